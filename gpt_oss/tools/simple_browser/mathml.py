"""A formula (`<math>`) as one line of text: its TeX where the page gives it, else read off the elements."""

from collections.abc import Callable

from lxml.html import HtmlElement

from gpt_oss.tools.simple_browser.html_words import inner_text

MAX_FORMULA_CHARS = 2000
MAX_DEPTH = 60  # keeps the recursion far from Python's limit; deeper parts become their plain text

_TEX = ".//annotation[@encoding='application/x-tex']"


def formula_text(math: HtmlElement) -> str:
    """Write `math` as `$tex$`, or linearly (`(a)/(b)`, `x^{2}`) where there is no TeX."""
    annotation = math.find(_TEX)
    tex = annotation.text if annotation is not None else math.get("alttext")
    if tex and tex.strip():
        return f"${' '.join(tex[:MAX_FORMULA_CHARS].split())}$"
    return " ".join(_linear(math, 0).split())[:MAX_FORMULA_CHARS]


def _linear(element: HtmlElement, depth: int) -> str:
    if depth > MAX_DEPTH:
        return inner_text(element, MAX_FORMULA_CHARS)
    tag = str(element.tag).rpartition(":")[2].lower()
    if tag in ("annotation", "annotation-xml"):
        return ""
    parts = [_linear(child, depth + 1) for child in element]
    written = _TEMPLATES.get(tag)
    if written is not None and len(parts) >= _ARGUMENTS[tag]:
        return written(parts)
    tails = [(child.tail or "").strip() for child in element]
    text = (element.text or "").strip()
    return text + "".join(part + tail for part, tail in zip(parts, tails, strict=True))


_TEMPLATES: dict[str, Callable[[list[str]], str]] = {
    "mfrac": lambda part: f"({part[0]})/({part[1]})",
    "msup": lambda part: f"{part[0]}^{{{part[1]}}}",
    "msub": lambda part: f"{part[0]}_{{{part[1]}}}",
    "msubsup": lambda part: f"{part[0]}_{{{part[1]}}}^{{{part[2]}}}",
    "munder": lambda part: f"{part[0]}_{{{part[1]}}}",
    "mover": lambda part: f"{part[0]}^{{{part[1]}}}",
    "munderover": lambda part: f"{part[0]}_{{{part[1]}}}^{{{part[2]}}}",
    "msqrt": lambda part: f"√({''.join(part)})",
    "mroot": lambda part: f"√[{part[1]}]({part[0]})",
    "mtr": lambda part: ", ".join(part) + ";",
}
_ARGUMENTS = {
    "mfrac": 2,
    "msup": 2,
    "msub": 2,
    "msubsup": 3,
    "munder": 2,
    "mover": 2,
    "munderover": 3,
    "msqrt": 1,
    "mroot": 2,
    "mtr": 1,
}

"""Citations in an answer, `【cursor†L3-L7】`, as links: pure functions over text.

In: text as the model wrote it and a function from (cursor, first cited line) to the source. Out: the text
with Markdown links and where exactly they are.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from gpt_oss.tools.simple_browser.links import domain_of

_CITATION = re.compile(r"【(\d{1,9})†(?:L(\d{1,9}))?[^【】]{0,200}】")
_PARTIAL = re.compile(r"【(?:\d{0,9}|\d{1,9}†[^【】]{0,200})\Z")
_IN_LINK = str.maketrans({" ": "%20", "(": "%28", ")": "%29", "<": "%3C", ">": "%3E"})


@dataclass(frozen=True)
class Source:
    """What a citation refers to."""

    url: str
    title: str


def link_citations(
    text: str, resolve: Callable[[int, int | None], Source | None], hide_partial: bool = False
) -> tuple[str, list[dict[str, Any]], bool]:
    """Replace each citation that `resolve` knows by ` ([domain](url))`.

    Returns the new text, its annotations (`text[start_index:end_index]` is the Markdown link) and whether
    `text` ends in what may become a citation; `hide_partial` leaves that end out. Without it, whatever is
    appended to `text`, a prefix's result stays a prefix of the result. Unknown cursors stay as written.
    """
    partial = _PARTIAL.search(text)
    if partial and hide_partial:
        text = text[: partial.start()]
    pieces: list[str] = []
    annotations: list[dict[str, Any]] = []
    length = copied = 0
    for citation in _CITATION.finditer(text):
        line = citation.group(2)
        source = resolve(int(citation.group(1)), int(line) if line else None)
        if source is None:
            continue
        before = _spaced(text[copied : citation.start()], after_link=bool(pieces))
        blank = "" if (not length and not before) or before[-1:].isspace() else " "
        link = markdown_link(source.url)
        start = length + len(before) + len(blank) + 1
        pieces.append(f"{before}{blank}({link})")
        length += len(pieces[-1])
        copied = citation.end()
        annotations.append(
            {
                "type": "url_citation",
                "start_index": start,
                "end_index": start + len(link),
                "title": source.title,
                "url": source.url,
            }
        )
    pieces.append(_spaced(text[copied:], after_link=bool(pieces)))
    return "".join(pieces), annotations, partial is not None


def _spaced(text: str, after_link: bool) -> str:
    return f" {text}" if after_link and text[:1].isalnum() else text


def markdown_link(url: str) -> str:
    """Write `[domain](url)`; a URL without a domain (a local file) is named by its last part."""
    label = domain_of(url) or unquote(url.rstrip("/").rpartition("/")[2]) or url
    return f"[{label.translate(str.maketrans('[]', '()'))}]({url.translate(_IN_LINK)})"

"""HTML to a small, clean element tree: only blocks that shape text, with links, images and formulas as text.

In: markup of any quality. Out: an lxml tree made of headings, paragraphs, lists, quotes, `pre` and `br`, and
the document's title; links are numbered in a `LinkTable`. Every step walks the tree a fixed number of times,
none recurses, and the parser bounds the depth, so time and memory are linear in the input.
"""

import re
from collections.abc import Iterable
from itertools import islice
from urllib.parse import urljoin

from lxml import etree
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from gpt_oss.tools.simple_browser.html_tables import flatten_tables
from gpt_oss.tools.simple_browser.html_words import inner_text
from gpt_oss.tools.simple_browser.link_table import LinkTable
from gpt_oss.tools.simple_browser.mathml import formula_text
from gpt_oss.tools.simple_browser.text import make_plain, make_safe, one_line

MAX_LINK_CHARS = 300
MAX_TAGS = 250_000  # what follows is cut; 10 MB of an ordinary page have about 150,000
MAX_NESTING = 12  # of lists and quotes; deeper ones are shown at this depth

_INVISIBLE = (
    *("head", "script", "style", "template", "svg", "canvas", "object", "embed", "iframe", "audio", "video"),
    *("select", "datalist", "map", "frameset", "rp"),
)
_BLOCKS = (
    *("section", "article", "header", "footer", "main", "aside", "nav", "figure", "figcaption", "address"),
    *("details", "summary", "fieldset", "form", "legend", "button", "hgroup", "search", "dialog", "option"),
    *("noframes", "menu", "dir", "textarea", "listing", "xmp", "plaintext"),
)
_NESTING = ("ul", "ol", "dl", "dd", "blockquote")
_SHAPING = frozenset(
    ("html", "body", "div", "p", "br", "hr", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "li", "dt", *_NESTING)
)
_TABLES = frozenset(("table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption", "colgroup", "col"))
_KEPT = _SHAPING | _TABLES | {"a", "sup", "sub"}
_KEPT_ATTRIBUTES = {"a": ("href", "aria-label", "title"), "ol": ("start",)}
# For a page that nests too deeply: tags that end by themselves stay, others become line breaks or nothing.
_FLAT = _KEPT - {"div", "pre", "table", "sup", "sub", *_NESTING} | {"img", "title", "script", "style"}
_BREAKING = frozenset((*_BLOCKS, *_NESTING, "div", "table", "pre"))
_BLANK_LINES = re.compile(r"(?<=\n)[ \t\r\n]*\n")
_ANY_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]*)[^<>]*>")


def parse_html(html: str) -> HtmlElement | None:
    """Parse the first `MAX_TAGS` tags of `html` into a tree; None if there is nothing in it.

    libxml2 stops where elements nest deeper than 2,048; such a page is parsed again without tags that nest.
    """
    html = _BLANK_LINES.sub("\n", _within_tag_limit(html))
    root, complete = _parse(html)
    if not complete:
        root, _ = _parse(_ANY_TAG.sub(_keep_flat_tag, html))
    return root


def _within_tag_limit(html: str) -> str:
    if html.count("<") <= MAX_TAGS:
        return html
    end = next(islice(re.finditer("<", html), MAX_TAGS, None)).start()
    return html[:end] + f"<p>[The page is cut here, after {MAX_TAGS:,} tags.]</p>"


def _parse(html: str) -> tuple[HtmlElement | None, bool]:
    parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    data = html.replace("\0", "").encode("utf-8", "replace")
    try:
        root = document_fromstring(data, parser=parser)
    except etree.ParserError:  # lxml's word for "the document is empty"
        return None, True
    return root, not any(error.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT for error in parser.error_log)


def _keep_flat_tag(tag: re.Match[str]) -> str:
    name = tag.group(2).lower()
    if name in _FLAT:
        return tag.group()
    return "<br>" if name in _BREAKING else ""


def clean_tree(root: HtmlElement, links: LinkTable) -> tuple[str, etree._Element]:
    """Reduce `root` as the module says, number its links in `links`, return the title and the clean tree."""
    title = one_line(make_safe(root.findtext(".//title") or ""), MAX_LINK_CHARS)
    base = root.find(".//base[@href]")
    if base is not None:
        links.base = _joined(links.base, base.get("href", ""))
    _write_formulas(root)
    etree.strip_elements(root, *_INVISIBLE, with_tail=False)
    _write_images(root)
    for element in root.iter(*_BLOCKS):
        element.tag = "div"
    _drop_attributes(root)
    tree = _stripped(root, {str(element.tag) for element in root.iter()} - _KEPT)
    _make_text_safe(tree)
    if _write_scripts(tree):
        tree = _stripped(tree, {"sup", "sub"})
    _write_links(tree, links)
    tree = _stripped(tree, {"a", "span"})
    flatten_tables(tree)
    _limit_nesting(tree)
    return title, tree


def _stripped(root: etree._Element, inline: Iterable[str]) -> etree._Element:
    """Strip the tags named `inline`, keeping what is in them, and return the tree parsed anew.

    Stripping leaves rows of adjacent text nodes, which lxml joins at every look in quadratic time; parsing
    what is now small and well-formed makes one node of them.
    """
    etree.strip_tags(root, *inline)
    source = make_plain(etree.tostring(root, encoding="unicode", with_tail=False))
    parser = etree.XMLParser(encoding="utf-8", recover=True, huge_tree=True, resolve_entities=False)
    return etree.fromstring(source.encode("utf-8"), parser=parser)


def _drop_attributes(root: HtmlElement) -> None:
    for element in root.iter():
        if element.keys():
            kept = [(name, element.get(name)) for name in _KEPT_ATTRIBUTES.get(element.tag, ())]
            element.attrib.clear()
            element.attrib.update((name, value) for name, value in kept if value is not None)


def _joined(base: str, href: str) -> str:
    try:
        return urljoin(base, href.strip())
    except ValueError:
        return base


def _write_formulas(root: HtmlElement) -> None:
    for math in _elements(root, "math", "m:math"):
        _become_text(math, f" {formula_text(math)} ")


def _write_images(root: HtmlElement) -> None:
    for number, image in enumerate(_elements(root, "img")):
        name = one_line(image.get("alt") or image.get("title") or "", MAX_LINK_CHARS)
        _become_text(image, f"[Image {number}: {name}]" if name else f"[Image {number}]")


def _write_scripts(root: etree._Element) -> bool:
    """Put `^{…}` and `_{…}` around the text of sup and sub elements; returns whether there are any."""
    elements = _elements(root, "sup", "sub")
    for element in elements:
        if len(element) == 0 and not (element.text or "").strip():
            continue
        mark = "^" if element.tag == "sup" else "_"
        element.text = f"{mark}{{{(element.text or '').lstrip()}"
        if len(element):
            element[-1].tail = (element[-1].tail or "").rstrip() + "}"
        else:
            element.text = element.text.rstrip() + "}"
    return bool(elements)


def _make_text_safe(root: etree._Element) -> None:
    """Replace full-width brackets wherever they are in text; XPath finds the few such places fast."""
    for text in root.xpath("descendant::text()[contains(., '【') or contains(., '】')]"):
        if text.is_tail:
            text.getparent().tail = make_safe(text)
        else:
            text.getparent().text = make_safe(text)


def _write_links(root: etree._Element, links: LinkTable) -> None:
    for anchor in _elements(root, "a"):
        text = inner_text(anchor, MAX_LINK_CHARS)
        # An anchor around much text is broken markup or a whole teaser: it becomes a link before that text.
        label = text if len(text) <= MAX_LINK_CHARS else one_line(text, 80)
        label = label or one_line(make_safe(_name(anchor)), MAX_LINK_CHARS)
        markup = links.markup(anchor.get("href") or "", label)
        if markup and len(text) <= MAX_LINK_CHARS:
            _become_text(anchor, markup)
        elif markup:
            anchor.text = f"{markup} {anchor.text or ''}"


def _name(anchor: etree._Element) -> str:
    return anchor.get("aria-label") or anchor.get("title") or ""


def _limit_nesting(root: etree._Element) -> None:
    depth = 0
    for event, element in etree.iterwalk(root, events=("start", "end"), tag=_NESTING):
        depth += 1 if event == "start" else -1
        if event == "end" and depth >= MAX_NESTING:
            element.tag = "div"


def _elements(root: etree._Element, *tags: str) -> list[etree._Element]:
    return list(root.iter(*tags))


def _become_text(element: etree._Element, text: str) -> None:
    """Turn `element` into an inline element that holds only `text`; its tail stays."""
    element.clear(keep_tail=True)
    element.tag = "span"
    element.text = text

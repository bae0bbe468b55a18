"""Plain text of a page: made safe, wrapped into numbered lines, seen without its link markup.

Pure functions over `str`; offsets are in characters (code points). A page's text carries markup written by
this package, `【3†text】` for a link; everything that comes from a page itself passes `make_safe` first, so
that full-width brackets in the text always mean our own markup. Knows nothing of HTML, pages or models.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

WIDTH = 80

_UNSAFE = {
    **dict.fromkeys("\r\v\f\x85\u2028\u2029", "\n"),
    **dict.fromkeys("\xa0\u202f", " "),
    **dict.fromkeys((chr(code) for code in range(32) if chr(code) not in "\n\t\v\f\r"), ""),
    # Invisible: soft hyphen (it would hide a word from `find`), zero-width space, word joiner, byte order mark.
    **dict.fromkeys("\x7f\xad\u200b\u2060\ufeff\ufffe\uffff", ""),
    # Marks that let text run backwards on a screen.
    **dict.fromkeys(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))), ""),
}
# A regular expression skips what is safe several times faster than str.translate; lone surrogates are added.
_UNSAFE_CHARACTER = re.compile(f"[{''.join(map(re.escape, _UNSAFE))}\ud800-\udfff]")
_MARKUP = re.compile(r"【(\d+)†([^【】†]*)(?:†[^【】†]*)?】")
_LINE_END_BLANKS = re.compile(r"(?<![ \t])[ \t]+(?=\n|\Z)")  # the lookbehind keeps it linear in a long run
_BLANK_LINES = re.compile(r"\n{3,}")


def make_safe(text: str) -> str:
    """Replace what could fake a link or break a line: 【】 become 〖〗, the rest as in `make_plain`."""
    return make_plain(text.replace("【", "〖").replace("】", "〗"))


def make_plain(text: str) -> str:
    """Make every line end a newline and every blank a space; drop invisible and control characters."""
    return _UNSAFE_CHARACTER.sub(_replacement, text.replace("\r\n", "\n"))


def _replacement(character: re.Match[str]) -> str:
    return _UNSAFE.get(character.group(), "\ufffd")


def one_line(text: str, limit: int) -> str:
    """Collapse white space to single spaces and cut to `limit` characters, the last one then an ellipsis."""
    text = " ".join(text[: 20 * limit].split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def link_markup(link_id: int, text: str, domain: str | None) -> str:
    """Write a link as the model sees it: `【id†text】`, or `【id†text†domain】` for another domain."""
    text = text.replace("†", "‡")
    return f"【{link_id}†{text}†{domain}】" if domain else f"【{link_id}†{text}】"


def tidy(text: str) -> str:
    """Drop blanks at line ends, more than one blank line in a row, and blank lines at both ends."""
    return _BLANK_LINES.sub("\n\n", _LINE_END_BLANKS.sub("", text)).strip("\n")


def wrap_spans(text: str, width: int = WIDTH) -> list[tuple[int, int]]:
    """Cut `text` into lines of at most `width` characters: (start, end) of each, in order.

    A line ends at a newline, else at the last blank that fits (blanks at such a break belong to no line),
    else in the middle of a word. There is at least one line. Linear in the text's length.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    while True:
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        spans.extend(_wrap_paragraph(text, start, end, width))
        if end == len(text):
            return spans
        start = end + 1


def _wrap_paragraph(text: str, start: int, end: int, width: int) -> Iterator[tuple[int, int]]:
    while end - start > width:
        # A leading indent is no place to break: it would leave an empty line.
        indent = start
        while indent < start + width and text[indent] == " ":
            indent += 1
        cut = text.rfind(" ", indent, start + width + 1)
        cut = start + width if cut < 0 else cut
        yield start, cut
        start = cut
        while start < end and text[start] == " ":
            start += 1
        if start == end:
            return
    yield start, end


def wrap_lines(text: str, width: int = WIDTH) -> list[str]:
    """Return the lines of `wrap_spans` as strings."""
    return [text[start:end] for start, end in wrap_spans(text, width)]


class VisibleText:
    """A page's text as a reader sees it, without link markup, with both ways between the two offsets.

    `【3†some words†example.com】` reads as `some words`.
    """

    def __init__(self, page_text: str):
        """Read `page_text` once; linear."""
        kept = list(_visible_pieces(page_text)) or [(0, 0)]
        self.text = "".join(page_text[start:end] for start, end in kept)
        self._page_starts = [start for start, _ in kept]
        self._starts = list(accumulate((end - start for start, end in kept[:-1]), initial=0))

    def to_page(self, offset: int) -> int:
        """Offset in the page's text of the visible character at `offset`."""
        piece = bisect_right(self._starts, offset) - 1
        return self._page_starts[piece] + offset - self._starts[piece]

    def from_page(self, offset: int) -> int:
        """Offset of the visible character at the page's `offset`, or of the next visible one."""
        piece = bisect_right(self._page_starts, offset) - 1
        if piece < 0:
            return 0
        last = self._starts[piece + 1] if piece + 1 < len(self._starts) else len(self.text)
        return min(self._starts[piece] + offset - self._page_starts[piece], last)


def _visible_pieces(page_text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for link in _MARKUP.finditer(page_text):
        if link.start() > start:
            yield start, link.start()
        if link.end(2) > link.start(2):
            yield link.span(2)
        start = link.end()
    if start < len(page_text):
        yield start, len(page_text)


def link_ids(page_text: str) -> Iterator[tuple[int, str]]:
    """Yield (offset, link id) of every link written in `page_text`, in order."""
    for link in _MARKUP.finditer(page_text):
        yield link.start(), link.group(1)

"""Find a phrase on a page, as a reader sees it: across line wraps and link markup, in any letter case."""

import re
from bisect import bisect_right
from collections.abc import Sequence

from gpt_oss.tools.simple_browser.page_contents import Extract, PageContents
from gpt_oss.tools.simple_browser.text import VisibleText, one_line

MAX_MATCHES = 50
SHOWN_LINES = 4


def find_in_page(page: PageContents, spans: Sequence[tuple[int, int]], pattern: str) -> PageContents | None:
    """Return the page of matches of `pattern` in `page` (whose lines are `spans`); None if there is none.

    Link k of the result leads to match k: `snippets[k].line_idx` is its line. A match within lines that are
    already shown for the one before is not listed again.
    """
    visible = VisibleText(page.text)
    starts = [start for start, _ in spans]
    found: list[Extract] = []
    shown_to = -1
    for offset in match_offsets(visible.text, pattern):
        line = bisect_right(starts, visible.to_page(offset)) - 1
        if line < shown_to:
            continue
        shown_to = line + SHOWN_LINES
        passage = [
            visible.text[visible.from_page(start) : visible.from_page(end)] for start, end in spans[line:shown_to]
        ]
        title = f"match at L{line}"
        found.append(Extract(url=page.url, text="\n".join(passage), title=title, line_idx=line))
        if len(found) == MAX_MATCHES:
            break
    return _matches_page(page, pattern, found) if found else None


def match_offsets(text: str, pattern: str) -> list[int]:
    """Where `pattern` occurs in `text`: letter case and the kind and amount of white space do not matter."""
    words = [re.escape(word) for word in pattern.split()]
    if not words:
        return []
    return [match.start() for match in re.finditer(r"\s+".join(words), text, re.IGNORECASE)]


def _matches_page(page: PageContents, pattern: str, found: list[Extract]) -> PageContents:
    chunks = [f"# 【{number}†{match.title}】\n{match.text}" for number, match in enumerate(found)]
    if len(found) == MAX_MATCHES:
        chunks.append(f"[Only the first {MAX_MATCHES} matches are listed.]")
    return PageContents(
        url=page.url,
        title=f"Matches of `{one_line(pattern, 100)}` in `{one_line(page.title, 100)}`",
        text="\n\n".join(chunks),
        urls={str(number): page.url for number in range(len(found))},
        snippets={str(number): match for number, match in enumerate(found)},
    )

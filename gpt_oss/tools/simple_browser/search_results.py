"""A provider's results as the page of results the model sees."""

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpt_oss.tools.simple_browser.base import BackendError
from gpt_oss.tools.simple_browser.link_table import LinkTable
from gpt_oss.tools.simple_browser.links import domain_of, last_path_part
from gpt_oss.tools.simple_browser.page_contents import MAX_TITLE_CHARS, Extract, PageContents
from gpt_oss.tools.simple_browser.text import make_safe, one_line

MAX_SNIPPET_CHARS = 1000
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


@dataclass(frozen=True)
class SearchResult:
    """One result: plain or lightly marked-up text; `line` is where on the page the passage is, if known."""

    url: str
    title: str
    snippet: str
    line: int | None = None


def read_results(entries: Any, *snippet_keys: str) -> list[SearchResult]:
    """Read a provider's list of `{"url", "title", …}`; the first of `snippet_keys` with text is the snippet.

    Entries without a usable URL are left out, as is everything if there is no list.
    """
    results = []
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("url"), str):
            continue
        title = entry.get("title")
        snippets = (_joined(entry.get(key)) for key in snippet_keys)
        snippet = next((text for text in snippets if text), "")
        results.append(SearchResult(entry["url"], title if isinstance(title, str) else "", snippet))
    return results


def _joined(value: Any) -> str:
    if isinstance(value, list):
        return " … ".join(text for text in value if isinstance(text, str))
    return value if isinstance(value, str) else ""


def results_page(query: str, results: Iterable[SearchResult], topn: int, base: str = "") -> PageContents:
    """Write the first `topn` different results as a page; `base` is where relative links start (a local root).

    Raises BackendError if there are none.
    """
    links = LinkTable(base)
    items: list[str] = []
    snippets: dict[str, Extract] = {}
    for result in results:
        title = _plain(result.title, MAX_TITLE_CHARS) or domain_of(result.url) or last_path_part(result.url)
        known = len(links.urls)
        link = links.markup(result.url, title)
        if link is None or len(links.urls) == known:
            continue
        snippet = _plain(result.snippet, MAX_SNIPPET_CHARS)
        items.append(f"  * {link} {snippet}".rstrip())
        url = links.urls[str(known)]
        snippets[str(known)] = Extract(url=url, text=snippet, title=title, line_idx=result.line)
        if len(items) == topn:
            break
    if not items:
        raise BackendError(f"no results for `{one_line(query, 200)}`")
    text = "\nURL: \n# Search Results\n\n" + "\n".join(items)
    return PageContents(url="", text=text, title=one_line(query, MAX_TITLE_CHARS), urls=links.urls, snippets=snippets)


def _plain(text: str, limit: int) -> str:
    """Take the tags and entities that providers put into snippets out of `text`; one safe line."""
    text = text[: 20 * limit]
    if "<" in text or "&" in text:
        text = html.unescape(_TAG.sub("", text))
    return one_line(make_safe(text), limit)

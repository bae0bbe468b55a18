"""The browser tool: `search`, `open` and `find` for the model, citations for whoever shows its answer.

In: Harmony messages to `browser.<function>`. Out: views of pages as text. It keeps one conversation's pages
(`BrowserState`) and leaves the web to a `Backend`; whatever goes wrong there is answered in one line.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import tiktoken
from aiohttp import ClientSession, ClientTimeout
from openai_harmony import Message, ToolNamespaceConfig

from gpt_oss.errors import ToolError
from gpt_oss.tokenizer import get_tokenizer
from gpt_oss.tools.simple_browser.backend import Backend
from gpt_oss.tools.simple_browser.citations import Source, link_citations
from gpt_oss.tools.simple_browser.find import find_in_page
from gpt_oss.tools.simple_browser.links import VIEW_SOURCE_PREFIX, domain_of, link_target, without_fragment
from gpt_oss.tools.simple_browser.page_contents import EMPTY_PAGE, PageContents
from gpt_oss.tools.simple_browser.state import BrowserState, Kind
from gpt_oss.tools.simple_browser.text import link_ids, one_line, wrap_spans
from gpt_oss.tools.simple_browser.view import render_view
from gpt_oss.tools.tool import Parameter, Tool, message_text, read_arguments

LINES_BEFORE_PASSAGE = 4
MAX_QUERY_CHARS = 2000
MAX_ERROR_CHARS = 500
BACKEND_SECONDS = 90
"""The end of all patience with a backend; backends have their own, shorter limits for each request."""

_FUNCTIONS: Final = {
    "search": {
        "query": Parameter((str,)),
        "topn": Parameter((int,), 10),
        "source": Parameter((str,), None),
    },
    "open": {
        "id": Parameter((int, str), -1),
        "cursor": Parameter((int,), -1),
        "loc": Parameter((int,), -1),
        "num_lines": Parameter((int,), -1),
        "view_source": Parameter((bool,), False),
        "source": Parameter((str,), None),
    },
    "find": {
        "pattern": Parameter((str,)),
        "cursor": Parameter((int,), -1),
    },
}

_OWN_ENCODINGS: Final = ("o200k_harmony", "o200k_base")
"""The two agree on all text, and the tokenizer in this package needs no network."""

logger = logging.getLogger(__name__)


class SimpleBrowserTool(Tool):
    """A text browser over `backend` for one conversation.

    `encoding_name` names the tokenizer that measures views of at most `view_tokens` tokens; `tool_state` is
    what `get_tool_state` of an earlier tool returned.
    """

    def __init__(
        self,
        backend: Backend,
        encoding_name: str = "o200k_harmony",
        max_search_results: int = 20,
        tool_state: dict[str, Any] | None = None,
        view_tokens: int = 1024,
        name: str = "browser",
    ):
        if encoding_name not in _OWN_ENCODINGS and encoding_name not in tiktoken.list_encoding_names():
            raise ValueError(f"there is no encoding {encoding_name!r}; use one of {', '.join(_OWN_ENCODINGS)}")
        self.backend = backend
        self.encoding_name = encoding_name
        self.max_search_results = max_search_results
        self.view_tokens = view_tokens
        self._name = name
        self.tool_state = BrowserState.model_validate((tool_state or {}).get("tool_state", tool_state or {}))
        self._spans_of = lru_cache(maxsize=2)(wrap_spans)

    @property
    def name(self) -> str:
        """Namespace of the functions, `browser`."""
        return self._name

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """openai-harmony's browser namespace, naming the backend's source."""
        config = ToolNamespaceConfig.browser()
        source = self.backend.source
        named = f"sources={source} (default: {source})"
        description = (config.description or "").replace("sources=web (default: web)", named)
        return config.model_copy(update={"name": self.name, "description": description})

    def get_tool_state(self) -> dict[str, Any]:
        """Everything seen so far as JSON-ready data; give it to a new tool as `tool_state`."""
        return {"tool_state": self.tool_state.model_dump()}

    def normalize_citations(
        self, text: str, hide_partial_citations: bool = False
    ) -> tuple[str, list[dict[str, Any]], bool]:
        """Turn `【cursor†L3-L7】` into links: (text, annotations, has_partial_citations), see `citations`."""
        return link_citations(text, self.resolve_citation, hide_partial_citations)

    def resolve_citation(self, cursor: int, line: int | None = None) -> Source | None:
        """What a citation of `line` of the view `cursor` refers to; None if there is no such view.

        On a search page that is the result the line belongs to; matches of `find` stand for their page.
        """
        if not 0 <= cursor <= self.tool_state.current_cursor:
            return None
        visit = self.tool_state.visits[cursor]
        page = self.tool_state.pages.get(visit.key)
        if visit.kind == "search" and page is not None and page.urls:
            return self._cited_result(page, line)
        if visit.source is not None:
            visit = self.tool_state.visits[visit.source]
        url = visit.url.removeprefix(VIEW_SOURCE_PREFIX)
        return Source(url, visit.title or domain_of(url)) if url else None

    def _cited_result(self, page: PageContents, line: int | None) -> Source:
        spans = self._spans_of(page.text)
        end = spans[min(line or 0, len(spans) - 1)][1]
        chosen = next(iter(page.urls))
        for offset, link_id in link_ids(page.text):
            if offset >= end:
                break
            chosen = link_id if link_id in page.urls else chosen
        snippet = (page.snippets or {}).get(chosen)
        url = page.urls[chosen]
        return Source(url, (snippet and snippet.title) or domain_of(url) or url)

    async def _process(self, message: Message) -> AsyncGenerator[Message, None]:
        called = message.recipient or ""
        functions: dict[str, Callable[..., Awaitable[str]]] = {
            "search": self.search,
            "open": self.open,
            "find": self.find,
        }
        function = called.removeprefix(f"{self.name}.")
        if function not in functions:
            known = ", ".join(f"{self.name}.{name}" for name in functions)
            raise ToolError(f"there is no function {one_line(called, 80)}; there are {known}")
        arguments = read_arguments(message_text(message), _FUNCTIONS[function], f"{self.name}.{function}")
        yield self.reply(message, await functions[function](**arguments))

    async def search(self, query: str, topn: int = 10, source: str | None = None) -> str:
        """Search for `query` and show the page of at most `topn` results. Raises ToolError."""
        if not query.strip():
            raise ToolError(f"{self.name}.search needs a query that is not empty")
        if topn < 1:
            raise ToolError(f"{self.name}.search(topn) must be at least 1, not {topn}")
        topn = min(topn, self.max_search_results)
        async with self._session() as session:
            page = await self._ask(self.backend.search(query.strip()[:MAX_QUERY_CHARS], topn, session))
        cursor = self.tool_state.add(page, "search")
        return await self._view(page, cursor, 0, -1)

    async def open(
        self,
        id: int | str = -1,
        cursor: int = -1,
        loc: int = -1,
        num_lines: int = -1,
        view_source: bool = False,
        source: str | None = None,
    ) -> str:
        """Open link `id` of the page at `cursor`, or a URL, or (without `id`) scroll; show from line `loc`.

        Raises ToolError, which leaves the state as it was.
        """
        opened = await self._locate(id, cursor, view_source)
        lines = await asyncio.to_thread(self._spans_of, opened.page.text)
        if loc >= len(lines):
            raise ToolError(f"line {loc} is past the end: the page has {len(lines)} lines, from 0")
        if loc < 0:
            loc = max(0, min(opened.passage, len(lines) - 1) - LINES_BEFORE_PASSAGE)
        cursor = self.tool_state.add(opened.page, opened.kind, opened.key, opened.source)
        return await self._view(opened.page, cursor, loc, num_lines)

    async def _locate(self, id: int | str, cursor: int, view_source: bool) -> "_Opened":
        link = _link_number(id)
        if link is None:
            return await self._document(self._written_url(str(id)), view_source)
        cursor = self.tool_state.cursor(cursor, skip_find=cursor == -1 and link < 0)
        page = await self._page_of(cursor)
        visit = self.tool_state.visits[cursor]
        if link < 0 and view_source:
            return await self._document(page.url, view_source)
        if link < 0:
            return _Opened(page, visit.kind, visit.key, visit.source)
        if str(link) not in page.urls:
            raise ToolError(_no_such_link(link, cursor, page))
        snippet = (page.snippets or {}).get(str(link))
        passage = (snippet and snippet.line_idx) or 0
        if visit.source is not None and not view_source:
            found_in = self.tool_state.visits[visit.source]
            page = await self._page_of(visit.source)
            return _Opened(page, found_in.kind, found_in.key, found_in.source, passage)
        return await self._document(page.urls[str(link)], view_source, passage)

    async def find(self, pattern: str, cursor: int = -1) -> str:
        """Show where `pattern` occurs on the page at `cursor`. Raises ToolError."""
        if not pattern.strip():
            raise ToolError(f"{self.name}.find needs a pattern that is not empty")
        cursor = self.tool_state.cursor(cursor, skip_find=True)
        visit = self.tool_state.visits[cursor]
        cursor = cursor if visit.source is None else visit.source
        page = await self._page_of(cursor)
        spans = await asyncio.to_thread(self._spans_of, page.text)
        matches = await asyncio.to_thread(find_in_page, page, spans, pattern[:MAX_QUERY_CHARS])
        if matches is None:
            shown = one_line(pattern, 100)
            raise ToolError(f"`{shown}` does not occur on page [{cursor}] ({one_line(page.title, 100)})")
        return await self._view(matches, self.tool_state.add(matches, "find", source=cursor), 0, -1)

    def _written_url(self, text: str) -> str:
        """What the model wrote in place of a link; `/path` is relative to the web page it looks at."""
        newest = self.tool_state.visits[-1].url if self.tool_state.visits else ""
        relative = text.startswith("/") and newest.startswith("http")
        return (link_target(text, newest) if relative else None) or text.strip()

    async def _document(self, url: str, view_source: bool, passage: int = 0) -> "_Opened":
        url = url.removeprefix(VIEW_SOURCE_PREFIX)
        if not url:
            raise ToolError("there is no URL to open: results of a search have none of their own")
        key = f"{VIEW_SOURCE_PREFIX}{url}" if view_source else without_fragment(url)
        page = self.tool_state.page(key) or await self._fetch(key)
        return _Opened(page, "page", key, None, 0 if view_source else passage)

    async def _page_of(self, cursor: int) -> PageContents:
        """The page of a visit; one that was dropped to save memory is fetched again."""
        visit = self.tool_state.visits[cursor]
        page = self.tool_state.page(visit.key)
        if page is None and visit.kind != "page":
            raise ToolError(f"page [{cursor}] is too long ago and no longer kept; please search again")
        if page is None:
            page = await self._fetch(visit.key)
            self.tool_state.keep(visit.key, page)
        return page

    async def _fetch(self, key: str) -> PageContents:
        async with self._session() as session:
            return await self._ask(self.backend.fetch(key, session))

    def _session(self) -> ClientSession:
        return ClientSession(timeout=ClientTimeout(total=BACKEND_SECONDS))

    async def _ask(self, asked: Awaitable[PageContents]) -> PageContents:
        """Await the backend; every failure of it becomes a ToolError of one line."""
        try:
            async with asyncio.timeout(BACKEND_SECONDS):
                page = await asked
        except ToolError as error:
            raise ToolError(one_line(str(error), MAX_ERROR_CHARS)) from error
        except TimeoutError as error:
            raise ToolError("the page took too long and was given up (time-out)") from error
        except Exception as error:  # backends may be anybody's code, and the conversation must survive them
            logger.warning("browser backend %s failed", type(self.backend).__name__, exc_info=True)
            reason = one_line(f"{type(error).__name__}: {error}", MAX_ERROR_CHARS)
            raise ToolError(f"the browser's backend failed: {reason}") from error
        if page.error_message:
            raise ToolError(one_line(page.error_message, MAX_ERROR_CHARS))
        return page if page.text.strip() else page.model_copy(update={"text": EMPTY_PAGE})

    async def _view(self, page: PageContents, cursor: int, first: int, wanted: int) -> str:
        return await asyncio.to_thread(self._render, page, cursor, first, wanted)

    def _render(self, page: PageContents, cursor: int, first: int, wanted: int) -> str:
        encode = _encoding(self.encoding_name).encode_ordinary
        spans = self._spans_of(page.text)
        return render_view(page, cursor, spans, first, wanted, self.view_tokens, lambda text: len(encode(text)))


@dataclass(frozen=True)
class _Opened:
    """A page about to be shown: what the visit will say of it, and the line it is opened for."""

    page: PageContents
    kind: Kind
    key: str
    source: int | None
    passage: int = 0


def _link_number(id: int | str) -> int | None:
    """The link that `id` names (negative: none); None if it is a URL."""
    if isinstance(id, int):
        return id
    return int(id) if re.fullmatch(r"\s*-?[0-9]{1,9}\s*", id) else None


def _no_such_link(link: int, cursor: int, page: PageContents) -> str:
    if not page.urls:
        return f"there is no link {link}: page [{cursor}] has no links"
    return f"there is no link {link} on page [{cursor}]; its links are 0 to {len(page.urls) - 1}"


@lru_cache(maxsize=4)
def _encoding(name: str) -> tiktoken.Encoding:
    """The named tokenizer; other ones than our own may be downloaded by tiktoken."""
    return get_tokenizer() if name in _OWN_ENCODINGS else tiktoken.get_encoding(name)

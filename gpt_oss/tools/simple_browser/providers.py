"""The backends that ask a search service: Exa, You.com and any SearXNG instance.

Each translates one provider's protocol. Keys are read when a request is made, never at import.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientSession

from gpt_oss.tools.simple_browser.base import Backend, BackendError
from gpt_oss.tools.simple_browser.direct_fetch import DirectFetcher
from gpt_oss.tools.simple_browser.http_requests import Request, RetryPolicy, Service, request_json
from gpt_oss.tools.simple_browser.links import VIEW_SOURCE_PREFIX, absolute_url
from gpt_oss.tools.simple_browser.page_contents import (
    MAX_PAGE_BYTES,
    PageContents,
    process_html,
    process_text,
)
from gpt_oss.tools.simple_browser.search_results import read_results, results_page

REQUEST_SECONDS = 30.0


class _KeyedBackend(Backend):
    """What Exa and You.com share: a key from an option or the environment, JSON both ways."""

    service: str
    key_variable: str
    default_url: str

    def __init__(
        self,
        source: str = "web",
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = REQUEST_SECONDS,
        retry: RetryPolicy | None = None,
    ):
        """`api_key` defaults to the environment's; `timeout` is in seconds, for one search or fetch."""
        super().__init__(source)
        self.api_key = api_key
        self.base_url = (base_url or self.default_url).rstrip("/")
        self.timeout = timeout
        self.retry = retry or RetryPolicy()

    def _headers(self) -> dict[str, str]:
        key = self.api_key or os.environ.get(self.key_variable)
        if not key:
            raise BackendError(f"{self.key_variable} is not set; {self.service} needs an API key there")
        return {"x-api-key": key}

    async def _post(self, session: ClientSession, path: str, body: dict[str, Any]) -> Any:
        headers = self._headers()
        return await self._answer(
            path, lambda url: session.post(url, json=body, headers=headers, allow_redirects=False)
        )

    async def _get(self, session: ClientSession, path: str, query: dict[str, str]) -> Any:
        headers = self._headers()
        return await self._answer(
            path, lambda url: session.get(url, params=query, headers=headers, allow_redirects=False)
        )

    async def _answer(self, path: str, request: Request) -> Any:
        service = Service(self.service, f"check the key in {self.key_variable}", self.timeout, self.retry)
        return await request_json(request, self.base_url + path, service)


class ExaBackend(_KeyedBackend):
    """Search and page contents from Exa (https://docs.exa.ai)."""

    service = "Exa"
    key_variable = "EXA_API_KEY"
    default_url = "https://api.exa.ai"

    async def search(self, query: str, topn: int, session: ClientSession) -> PageContents:
        """POST /search."""
        contents = {"text": True, "summary": True}
        data = await self._post(session, "/search", {"query": query, "numResults": topn, "contents": contents})
        results = read_results(_field(data, "results", self.service), "summary", "text")
        return await asyncio.to_thread(results_page, query, results, topn)

    async def fetch(self, url: str, session: ClientSession) -> PageContents:
        """POST /contents; Exa gives a page's text with its HTML tags."""
        address = absolute_url(url.removeprefix(VIEW_SOURCE_PREFIX))
        data = await self._post(session, "/contents", {"urls": [address], "text": {"includeHtmlTags": True}})
        return await _provided_page(_field(data, "results", self.service), "text", url, self.service)


class YouComBackend(_KeyedBackend):
    """Search and page contents from You.com (https://documentation.you.com)."""

    service = "You.com"
    key_variable = "YDC_API_KEY"
    default_url = "https://api.ydc-index.io"

    async def search(self, query: str, topn: int, session: ClientSession) -> PageContents:
        """GET /v1/search: web results first, then news."""
        data = await self._get(session, "/v1/search", {"query": query, "count": str(topn)})
        found = _field(data, "results", self.service)
        if not isinstance(found, Mapping):
            raise _unexpected(self.service)
        results = [
            *read_results(found.get("web"), "snippets", "description"),
            *read_results(found.get("news"), "description", "snippets"),
        ]
        return await asyncio.to_thread(results_page, query, results, topn)

    async def fetch(self, url: str, session: ClientSession) -> PageContents:
        """GET /v1/contents."""
        address = absolute_url(url.removeprefix(VIEW_SOURCE_PREFIX))
        data = await self._get(session, "/v1/contents", {"urls": address, "livecrawl_formats": "html"})
        return await _provided_page(data, "html", url, self.service)


class SearxngBackend(Backend):
    """Search with a SearXNG instance (its `json` format must be enabled), pages by direct fetch. Needs no key."""

    def __init__(
        self,
        base_url: str = "http://localhost:8080",
        source: str = "web",
        *,
        fetcher: DirectFetcher | None = None,
        timeout: float = REQUEST_SECONDS,
        retry: RetryPolicy | None = None,
    ):
        """`base_url` is the instance; `fetcher` has the limits of direct fetches."""
        super().__init__(source)
        self.base_url = base_url.rstrip("/")
        self.fetcher = fetcher or DirectFetcher()
        self.timeout = timeout
        self.retry = retry or RetryPolicy()

    async def search(self, query: str, topn: int, session: ClientSession) -> PageContents:
        """GET /search?format=json."""
        params = {"q": query, "format": "json"}
        advice = "its settings must list json under search.formats"
        service = Service(f"SearXNG at {self.base_url}", advice, self.timeout, self.retry)
        data = await request_json(
            lambda url: session.get(url, params=params, allow_redirects=False), f"{self.base_url}/search", service
        )
        results = read_results(_field(data, "results", service.name), "content")
        return await asyncio.to_thread(results_page, query, results, topn)

    async def fetch(self, url: str, session: ClientSession) -> PageContents:
        """Fetch from the web itself, on connections of the fetcher's own: only those are checked."""
        return await self.fetcher.page(url)


def _field(data: Any, name: str, service: str) -> Any:
    if not isinstance(data, Mapping) or name not in data:
        raise _unexpected(service)
    return data[name]


def _unexpected(service: str) -> BackendError:
    return BackendError(f"{service} answered with JSON of an unexpected shape")


async def _provided_page(entries: Any, html_key: str, url: str, service: str) -> PageContents:
    """Make a page of a provider's `[{"title", html_key}]`; `url` may start with view-source:."""
    address = absolute_url(url.removeprefix(VIEW_SOURCE_PREFIX))
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise _unexpected(service)
    html = entries[0].get(html_key) if entries else None
    if not isinstance(html, str):
        raise BackendError(f"{service} has no contents of {address}")
    if len(html) > MAX_PAGE_BYTES:
        raise BackendError(f"{address} is larger than {MAX_PAGE_BYTES // 2**20} MB and was not read")
    title = entries[0].get("title")
    title = title if isinstance(title, str) else None
    if url.startswith(VIEW_SOURCE_PREFIX):
        return await asyncio.to_thread(process_text, html, url, title)
    return await asyncio.to_thread(process_html, html, address, title, display_urls=True)

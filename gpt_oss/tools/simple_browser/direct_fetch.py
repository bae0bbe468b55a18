"""Fetch a page from the web itself, within limits of size, time, redirects and reachable addresses.

Used by backends whose provider only searches. Every request, also after a redirect, goes through
`addresses`; time is limited as a whole, so that a server cannot hold a fetch by sending a byte now and then.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from gpt_oss import __version__
from gpt_oss.tools.simple_browser.addresses import AddressPolicy, CheckedResolver, literal_address
from gpt_oss.tools.simple_browser.base import BackendError
from gpt_oss.tools.simple_browser.charsets import decode_page
from gpt_oss.tools.simple_browser.http_requests import BUSY, REDIRECTS, RetryPolicy
from gpt_oss.tools.simple_browser.links import VIEW_SOURCE_PREFIX, absolute_url
from gpt_oss.tools.simple_browser.page_contents import (
    MAX_PAGE_BYTES,
    PageContents,
    process_html,
    process_markdown,
    process_text,
)

_HTML = frozenset(("text/html", "application/xhtml+xml"))
_MARKDOWN = frozenset(("text/markdown", "text/x-markdown"))
_TEXT = frozenset(f"application/{name}" for name in ("json", "xml", "javascript", "ecmascript", "yaml", "toml", "sql"))
_HEADERS = {
    "User-Agent": f"gpt-oss/{__version__} (text browser)",
    "Accept": "text/html,application/xhtml+xml,text/*;q=0.9,*/*;q=0.5",
    "Accept-Language": "en,*;q=0.5",
}


@dataclass(frozen=True)
class Document:
    """What a server gave: its final URL, media type (lower case, maybe empty), header charset and body."""

    url: str
    media_type: str
    charset: str | None
    body: bytes


class DirectFetcher:
    """Fetches over http and https.

    `timeout` is for the whole fetch, in seconds; `max_bytes` for the body, unpacked; `allowed_networks` are
    reachable though not public; `resolver` replaces the system's name resolution (its answers are checked
    all the same).
    """

    def __init__(
        self,
        *,
        allowed_networks: Iterable[str] = (),
        max_bytes: int = MAX_PAGE_BYTES,
        timeout: float = 30.0,
        max_redirects: int = 10,
        retry: RetryPolicy | None = None,
        resolver: AbstractResolver | None = None,
    ):
        self.policy = AddressPolicy(allowed_networks)
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.max_redirects = max_redirects
        self.retry = retry or RetryPolicy()
        self.resolver = resolver

    async def page(self, url: str) -> PageContents:
        """Fetch `url` (which may start with view-source:) as a page. Raises BackendError."""
        address = absolute_url(url.removeprefix(VIEW_SOURCE_PREFIX))
        document = await self.document(address)
        return await asyncio.to_thread(document_page, document, url.startswith(VIEW_SOURCE_PREFIX))

    async def document(self, url: str) -> Document:
        """Fetch `url`, following redirects. Raises BackendError."""
        try:
            async with asyncio.timeout(self.timeout), self._session() as session:
                return await self._follow(session, _checked_url(url))
        except TimeoutError as error:
            raise BackendError(f"{url} took longer than {self.timeout:g} s (time-out)") from error
        except (aiohttp.ClientError, OSError) as error:
            raise BackendError(f"{url} cannot be fetched: {type(error).__name__}: {error}") from error
        except ValueError as error:  # from aiohttp and yarl, for hosts and headers they cannot encode
            raise BackendError(f"{url} cannot be fetched: {error}") from error

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self.policy, self.resolver), use_dns_cache=False, force_close=True
        )
        return aiohttp.ClientSession(connector=connector, headers=_HEADERS, trust_env=False)

    async def _follow(self, session: aiohttp.ClientSession, url: URL) -> Document:
        for _ in range(self.max_redirects + 1):
            async with self._response(session, url) as response:
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or not location:
                    return await self._read(response, url)
                url = _checked_url(str(url.join(URL(location))))
        raise BackendError(f"{url} redirects more than {self.max_redirects} times (a redirect loop)")

    @asynccontextmanager
    async def _response(self, session: aiohttp.ClientSession, url: URL) -> AsyncIterator[aiohttp.ClientResponse]:
        """Answer of a GET of `url`, repeated while the server is busy."""
        address = literal_address(url.raw_host or "")
        if address is not None:  # aiohttp asks its resolver only for names
            self.policy.check(str(url.host), [address])
        for attempt in range(self.retry.attempts):
            async with session.get(url, allow_redirects=False) as response:
                if response.status not in BUSY or attempt == self.retry.attempts - 1:
                    yield response
                    return
                pause = self.retry.pause(attempt, response.headers.get("Retry-After"))
            await asyncio.sleep(pause)

    async def _read(self, response: aiohttp.ClientResponse, url: URL) -> Document:
        if response.status not in (200, 203):
            raise BackendError(f"{url} answered with HTTP {response.status} {response.reason or ''}".rstrip())
        too_large = BackendError(f"{url} is larger than {self.max_bytes / 2**20:g} MB and was not read")
        if (response.content_length or 0) > self.max_bytes:
            raise too_large
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self.max_bytes:
                raise too_large
        media_type = response.content_type.lower() if "Content-Type" in response.headers else ""
        return Document(str(url), media_type, response.charset, bytes(body))


def _checked_url(url: str) -> URL:
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.raw_host:
        raise BackendError(f"{url} cannot be opened; only http and https URLs can")
    return parsed.with_user(None).with_fragment(None)


def document_page(document: Document, view_source: bool = False) -> PageContents:
    """Make a page of a fetched document according to its type. Raises BackendError for what is not text."""
    kind = _kind(document)
    if kind is None:
        what = "a PDF file" if _is_pdf(document) else document.media_type or "binary data"
        raise BackendError(f"{document.url} is {what}, not a text page, and cannot be shown")
    text = decode_page(document.body, document.charset, kind is process_html)
    if view_source:
        return process_text(text, VIEW_SOURCE_PREFIX + document.url)
    if kind is process_html:
        return process_html(text, document.url, display_urls=True)
    return kind(text, document.url)


def _kind(document: Document) -> Callable[..., PageContents] | None:
    """The function that reads a document of this type; None for what is not text."""
    head = document.body[:1024]
    if _is_pdf(document) or (b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff"))):
        return None
    media_type = document.media_type
    if not media_type or media_type == "application/octet-stream":
        media_type = "text/html" if head.lstrip().startswith(b"<") else "text/plain"
    if media_type in _HTML:
        return process_html
    if media_type in _MARKDOWN:
        return process_markdown
    readable = media_type.startswith("text/") or media_type in _TEXT or media_type.endswith(("+json", "+xml"))
    return process_text if readable and media_type != "image/svg+xml" else None


def _is_pdf(document: Document) -> bool:
    return document.media_type == "application/pdf" or document.body[:1024].lstrip().startswith(b"%PDF-")

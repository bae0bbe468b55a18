"""The backend without a network: a folder of HTML, Markdown and text documents, searched by a local index."""

import asyncio
import hashlib
import logging
import sqlite3
import threading
from pathlib import Path

from aiohttp import ClientSession

from gpt_oss.cache import ENTRY_PREFIX, cache_directory
from gpt_oss.errors import CacheError
from gpt_oss.tools.simple_browser.base import Backend, BackendError
from gpt_oss.tools.simple_browser.links import VIEW_SOURCE_PREFIX
from gpt_oss.tools.simple_browser.local_files import path_of, read_page
from gpt_oss.tools.simple_browser.local_index import LocalIndex
from gpt_oss.tools.simple_browser.page_contents import PageContents
from gpt_oss.tools.simple_browser.search_results import SearchResult, results_page
from gpt_oss.tools.simple_browser.text import VisibleText

logger = logging.getLogger(__name__)


class LocalBackend(Backend):
    """Searches and opens the documents under `root`; every search first brings the index up to date.

    `index_path` is the index's file: by default one in the user's cache, `:memory:` for none.
    """

    def __init__(self, root: str | Path, source: str = "local", *, index_path: str | Path | None = None):
        """Raises BackendError if `root` is not a folder."""
        super().__init__(source)
        self.root = Path(root).expanduser().resolve()
        if not self.root.is_dir():
            raise BackendError(f"{self.root} is not a folder; the local backend needs a folder of documents")
        self._index_path = index_path
        self._index: LocalIndex | None = None
        self._opening = threading.Lock()

    async def search(self, query: str, topn: int, session: ClientSession) -> PageContents:
        """Search the documents for any of the words of `query`."""
        return await asyncio.to_thread(self._search, query, topn)

    def _search(self, query: str, topn: int) -> PageContents:
        with self._opening:
            index = self._index = self._index or self._open_index()
        try:
            index.refresh()
            hits = index.search(query, topn)
        except sqlite3.Error as error:
            raise BackendError(f"the index of {self.root} cannot be used: {error}") from error
        results = [SearchResult(hit.path.as_uri(), hit.title, VisibleText(hit.passage).text, hit.line) for hit in hits]
        return results_page(query, results, topn, base=self.root.as_uri() + "/")

    async def fetch(self, url: str, session: ClientSession) -> PageContents:
        """Open a document by its file: URL or its path in the folder."""
        return await asyncio.to_thread(self._fetch, url)

    def _fetch(self, url: str) -> PageContents:
        path = path_of(self.root, url.removeprefix(VIEW_SOURCE_PREFIX))
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BackendError(f"{path.name!r} cannot be read: {error.strerror}") from error
        return read_page(path, data, url.startswith(VIEW_SOURCE_PREFIX))

    def _open_index(self) -> LocalIndex:
        if self._index_path is not None:
            try:
                return LocalIndex(self.root, str(self._index_path))
            except sqlite3.Error as error:
                raise BackendError(f"the index {self._index_path} cannot be used: {error}") from error
        try:
            path = cached_index_path(self.root)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return LocalIndex(self.root, str(path))
        except (CacheError, OSError, sqlite3.Error) as error:
            logger.info("no index in the user's cache (%s); the index is kept in memory", error)
            return LocalIndex(self.root, ":memory:")


def cached_index_path(root: Path) -> Path:
    """Where the index of `root` lies by default, in the cache folder; raises CacheError where there is none."""
    name = f"{hashlib.sha256(bytes(root)).hexdigest()[:16]}.sqlite"
    return cache_directory() / f"{ENTRY_PREFIX}browser" / name

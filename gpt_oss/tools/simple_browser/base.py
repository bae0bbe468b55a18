"""What a backend of the browser is: it searches and it fetches, both giving pages.

`search` returns the page of results, whose link k leads to result k; `fetch` returns the page at a URL, or
its source where the URL starts with `view-source:`. Both are given an aiohttp session for requests to a provider
and raise `BackendError` with one sentence for the model.
"""

from abc import ABC, abstractmethod

from aiohttp import ClientSession

from gpt_oss.errors import ToolError
from gpt_oss.tools.simple_browser.page_contents import PageContents


class BackendError(ToolError):
    """A search or a fetch that failed; the message is one sentence, shown to the model."""


class Backend(ABC):
    """A source of search results and pages; `source` is its name in the tool's description."""

    def __init__(self, source: str = "web"):
        self.source = source

    @abstractmethod
    async def search(self, query: str, topn: int, session: ClientSession) -> PageContents:
        """Return the page of at most `topn` results for `query`."""

    @abstractmethod
    async def fetch(self, url: str, session: ClientSession) -> PageContents:
        """Return the page at `url`."""

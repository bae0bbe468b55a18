"""A backend with pages given in advance: the tool's boundary to the web."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import ClientSession
from openai_harmony import Message, Role

from gpt_oss.tools.simple_browser import SimpleBrowserTool
from gpt_oss.tools.simple_browser.backend import Backend, BackendError
from gpt_oss.tools.simple_browser.page_contents import PageContents, process_html
from gpt_oss.tools.simple_browser.search_results import SearchResult, results_page


class FakeWeb(Backend):
    """Pages by URL (HTML, a page, or an exception) and results by query; it notes what it was asked."""

    def __init__(
        self,
        pages: Mapping[str, str | PageContents | Exception] | None = None,
        results: Callable[[str], list[SearchResult]] | None = None,
    ):
        super().__init__("web")
        self.pages = dict(pages or {})
        self.results = results or (lambda query: [])
        self.fetched: list[str] = []
        self.searched: list[tuple[str, int]] = []

    async def search(self, query: str, topn: int, session: ClientSession) -> PageContents:
        self.searched.append((query, topn))
        return results_page(query, self.results(query), topn)

    async def fetch(self, url: str, session: ClientSession) -> PageContents:
        assert not session.closed
        self.fetched.append(url)
        page = self.pages.get(url)
        if page is None:
            raise BackendError(f"no such page: {url}")
        if isinstance(page, Exception):
            raise page
        return page if isinstance(page, PageContents) else process_html(page, url, display_urls=True)


async def call(tool: SimpleBrowserTool, function: str, arguments: Any = None, channel: str = "analysis") -> str:
    """Text of the tool's one answer to the model's call; checks how it is addressed."""
    content = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    message = Message.from_role_and_content(Role.ASSISTANT, content).with_recipient(function).with_channel(channel)
    (reply,) = [reply async for reply in tool.process(message)]
    assert reply.author.role == Role.TOOL
    assert reply.author.name == function
    assert reply.channel == channel
    assert reply.recipient == "assistant"
    (part,) = reply.content
    return str(part.text)

"""Tools that the server runs itself: which there are, one set for each request.

In: factories, because a browser's pages and a session's variables belong to one conversation. Out: tools for
`run_turn`, closed when the request is over.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from gpt_oss.errors import ToolError
from gpt_oss.responses_api.offered_tools import BROWSER
from gpt_oss.tools.tool import Tool

logger = logging.getLogger(__name__)

Factories = Mapping[str, Callable[[], Tool]]
"""`browser` and `python`, as far as the server can run them."""


class HostedTools:
    """The tools of one request."""

    def __init__(self, factories: Factories, names: Sequence[str]):
        self._tools = {name: factories[name]() for name in names}

    @property
    def tools(self) -> list[Tool]:
        """All of them."""
        return list(self._tools.values())

    def pages(self) -> tuple[str, list[str]]:
        """The address of the page the browser showed last, and those of its links."""
        state = getattr(self._tools.get(BROWSER), "tool_state", None)
        if state is None or not state.visits:
            return "", []
        newest = state.visits[-1]
        page = state.pages.get(newest.key)
        return newest.url, list(page.urls.values()) if page is not None else []

    async def close(self) -> None:
        """Give back what the tools hold."""
        for result in await asyncio.gather(*(tool.close() for tool in self.tools), return_exceptions=True):
            if isinstance(result, ToolError):
                logger.warning("a tool could not be closed: %s", result)
            elif isinstance(result, BaseException):
                raise result

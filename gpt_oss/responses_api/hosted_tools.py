"""Tools that the server runs itself: which there are, one set for each request.

In: factories, because a browser's pages and a session's variables belong to one conversation, and what the browser of
its earlier turns had seen. Out: tools for `run_turn`, closed when the request is over.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt_oss.errors import ToolError
from gpt_oss.responses_api.offered_tools import BROWSER
from gpt_oss.tools.tool import Tool

logger = logging.getLogger(__name__)

MAX_STORED_CHARS = 1_000_000
"""Of pages stored with one response, newest first; the browser fetches others again when they are asked for."""

Factories = Mapping[str, Callable[[], Tool]]
"""`browser` and `python`, as far as the server can run them."""


class HostedTools:
    """The tools of one request. browser: `browser_state` of the turn that it continues."""

    def __init__(self, factories: Factories, names: Sequence[str], browser: Mapping[str, Any] | None = None):
        self._tools = {name: factories[name]() for name in names}
        self._earlier = dict(browser or {})
        state = self._browser()
        if state is not None and self._earlier:
            self._tools[BROWSER].tool_state = type(state).model_validate(self._earlier)  # type: ignore[attr-defined]

    @property
    def tools(self) -> list[Tool]:
        """All of them."""
        return list(self._tools.values())

    def pages(self) -> tuple[str, list[str]]:
        """The address of the page the browser showed last, and those of its links."""
        state = self._browser()
        if state is None or not state.visits:
            return "", []
        newest = state.visits[-1]
        page = state.pages.get(newest.key)
        return newest.url, list(page.urls.values()) if page is not None else []

    def browser_state(self) -> dict[str, Any]:
        """What the conversation's browser has seen so far, as JSON-ready data; empty where that is nothing."""
        state = self._browser()
        if state is None or not state.visits:
            return self._earlier
        room = MAX_STORED_CHARS
        kept = {}
        for key, page in reversed(state.pages.items()):
            room -= len(page.text)
            if room >= 0:
                kept[key] = page
        return state.model_copy(update={"pages": dict(reversed(kept.items()))}).model_dump()

    def _browser(self) -> Any:
        return getattr(self._tools.get(BROWSER), "tool_state", None)

    async def close(self) -> None:
        """Give back what the tools hold."""
        for result in await asyncio.gather(*(tool.close() for tool in self.tools), return_exceptions=True):
            if isinstance(result, ToolError):
                logger.warning("a tool could not be closed: %s", result)
            elif isinstance(result, BaseException):
                raise result

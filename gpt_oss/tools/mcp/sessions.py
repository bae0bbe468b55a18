"""One tool for each client session, so that no client sees another's pages, cursors or variables.

A session is whatever key the transport gives. A tool is made at the first call of its session and closed when the
session ends or has been idle for long, or when too many others are newer. Knows nothing of the protocol.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gpt_oss.tools.tool import Tool


@dataclass
class _Session:
    tool: Tool
    last_used: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """Tools by session key, at most `most` of them, each for `idle_seconds` after its last call."""

    def __init__(
        self,
        make_tool: Callable[[], Tool],
        *,
        idle_seconds: float = 1800,
        most: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._make_tool = make_tool
        self._idle_seconds = idle_seconds
        self._most = most
        self._clock = clock
        self._sessions: OrderedDict[str | None, _Session] = OrderedDict()  # least recently used first

    @asynccontextmanager
    async def tool(self, key: str | None) -> AsyncIterator[Tool]:
        """Lend the tool of session `key`; calls of one session take turns. Raises what making a tool raises."""
        session = self._sessions.get(key) or _Session(self._make_tool())
        self._sessions[key] = session
        self._sessions.move_to_end(key)
        session.last_used = self._clock()
        await self._close_old()
        async with session.turn:
            try:
                yield session.tool
            finally:
                session.last_used = self._clock()

    async def _close_old(self) -> None:
        too_old = self._clock() - self._idle_seconds
        surplus = len(self._sessions) - self._most
        old = [
            key
            for index, (key, session) in enumerate(self._sessions.items())
            if (index < surplus or session.last_used < too_old) and not session.turn.locked()
        ]
        await self._close([self._sessions.pop(key) for key in old])

    async def end(self, key: str | None) -> None:
        """Close the tool of session `key`, if there is one, after the call it is at work on."""
        session = self._sessions.pop(key, None)
        if session is not None:
            async with session.turn:
                await session.tool.close()

    async def close(self) -> None:
        """Close all tools."""
        sessions, self._sessions = list(self._sessions.values()), OrderedDict()
        await self._close(sessions)

    @staticmethod
    async def _close(sessions: list[_Session]) -> None:
        for session in sessions:
            await session.tool.close()

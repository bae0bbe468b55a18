"""From async to plain iteration, for code that has no event loop: a terminal, a script, a test.

    with Bridge() as bridge:
        for event in bridge.iterate(run_turn(messages, generator, tools)):
            ...

One bridge keeps one event loop, so tools may hold connections from turn to turn.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Bridge:
    """An event loop that runs only while somebody waits for it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do one piece of async work; an exception in the caller's thread (Ctrl-C) cancels it."""
        task = self._loop.create_task(work)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise

    def iterate(self, source: AsyncGenerator[T, None]) -> Iterator[T]:
        """The items of an async generator, which is closed at the end, also when iteration is given up."""
        try:
            while True:
                try:
                    item = self.run(_next(source))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self.run(source.aclose())

    def close(self) -> None:
        """Close the loop."""
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _next(source: AsyncGenerator[T, None]) -> T:
    return await anext(source)

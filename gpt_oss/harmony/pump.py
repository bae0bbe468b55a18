"""Tokens from a generation that blocks, in a thread of its own, to an event loop that must not.

`TokenPump` hands tokens over in batches: whatever came while the loop was busy is one batch. `Cancellation`
ends a turn from any thread, also from a signal handler.
"""

import _thread
import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpt_oss.token_generator import FinishReason, Generation, Token


class Cancellation:
    """A request to stop, made once, from any thread."""

    def __init__(self) -> None:
        self.requested = False
        self._callbacks: list[Callable[[], None]] = []

    def request(self) -> None:
        """Stop what is going on; no effect the second time."""
        self.requested = True
        for callback in list(self._callbacks):
            callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, `callback` is called by a request, at once if there was one already.

        It may be called in any thread, and twice.
        """
        self._callbacks.append(callback)
        try:
            if self.requested:
                callback()
            yield
        finally:
            self._callbacks.remove(callback)


class TokenPump:
    """Runs `start` and the generation it returns in a thread; `next_batch` gives what came."""

    def __init__(self, start: Callable[[], Generation]):
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._signalled = False
        self._tokens: deque[Token] = deque()
        self._error: BaseException | None = None
        self._over = False
        self._cancelled = False
        self._generation: Generation | None = None
        # Thread.start() would wait until the new thread runs, and the event loop with it.
        _thread.start_new_thread(self._work, ())

    @property
    def cached_tokens(self) -> int:
        """How much of the prompt was cached; valid from the first batch on."""
        return self._generation.cached_tokens if self._generation is not None else 0

    @property
    def read_tokens(self) -> int:
        """How much of the prompt was read so far."""
        return self._generation.read_tokens if self._generation is not None else 0

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the generation ended; valid after the last batch."""
        if self._generation is None or self._cancelled:
            return "cancelled"
        return self._generation.finish_reason

    async def next_batch(self) -> list[Token]:
        """The tokens that came since the last call, at least one; an empty list at the end.

        Raises what `start` or the generation raised.
        """
        while not self._tokens and not self._over:
            await self._ready.wait()
            self._ready.clear()
            self._signalled = False
        batch = []
        while self._tokens:
            batch.append(self._tokens.popleft())
        if not batch and self._error is not None:
            raise self._error
        return batch

    async def wait(self, seconds: float | None) -> bool:
        """Whether there is something to read, or the end, within this time."""
        if not self._tokens and not self._over:
            try:
                await asyncio.wait_for(self._ready.wait(), seconds)
            except TimeoutError:
                return False
        return True

    def cancel(self) -> None:
        """End the generation. Callable from any thread, more than once."""
        self._cancelled = True
        if self._generation is not None:
            self._generation.cancel()

    def _work(self) -> None:
        try:
            self._generation = self._start()
            if self._cancelled:
                self._generation.cancel()
            for token in self._generation:
                self._tokens.append(token)
                self._signal()
        except Exception as error:  # carried over to the event loop, where it is raised
            self._error = error
        self._over = True
        self._signalled = False
        self._signal()

    def _signal(self) -> None:
        if not self._signalled:
            self._signalled = True
            try:
                self._loop.call_soon_threadsafe(self._ready.set)
            except RuntimeError:  # the loop is closed: nobody listens any more
                self.cancel()

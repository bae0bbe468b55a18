"""A response being made: one task that fills a list of events, and any number of readers.

In: the events of a turn and a mapper that translates them (`event_mapper` or `chat_mapper`). Out: `events`, to be
followed from any point; the last one is terminal, whatever happens. Knows nothing of HTTP.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from gpt_oss.errors import GptOssError
from gpt_oss.harmony.events import Event
from gpt_oss.harmony.pump import Cancellation
from gpt_oss.responses_api.errors import ApiError, api_error
from gpt_oss.responses_api.hosted_tools import HostedTools

logger = logging.getLogger(__name__)

ApiEvent = dict[str, Any]
INTERNAL_ERROR = "The server had an error while making this response."


class Mapper(Protocol):
    """What translates the events of a turn."""

    finished: bool

    def start(self) -> Iterator[ApiEvent]:
        """The first events."""

    def map(self, event: Event) -> Iterator[ApiEvent]:
        """The events for one of the turn's."""

    def fail(self, message: str, code: str = "server_error") -> Iterator[ApiEvent]:
        """The last events, where something broke."""

    def cancelled(self) -> Iterator[ApiEvent]:
        """The last events, where the client gave up."""

    def fail_instead(self, message: str) -> Iterator[ApiEvent]:
        """Replace the terminal event."""


class Run:
    """Starts at once. turn: makes the turn's events, given what cancels it. save: called before the terminal event is
    given out, so that what a client has seen is stored. done: called at the end. first_events: sent already.
    observe: called with each event of the turn."""

    def __init__(
        self,
        mapper: Mapper,
        turn: Callable[[Cancellation], AsyncGenerator[Event, None]],
        hosted: HostedTools,
        save: Callable[[list[ApiEvent]], Awaitable[None]] | None = None,
        done: Callable[[], None] = lambda: None,
        first_events: Sequence[ApiEvent] = (),
        observe: Callable[[Event], None] = lambda event: None,
    ):
        self.mapper = mapper
        self.events = list(first_events)
        self.refusal: ApiError | None = None
        """Why the request was refused before the turn's first event."""
        self._turn, self._hosted, self._save, self._done, self._observe = turn, hosted, save, done, observe
        self._cancellation = Cancellation()
        self._ending: str | None = None  # why the server ends it
        self._changed = asyncio.Event()
        self._begun = self._over = False
        self._task = asyncio.create_task(self._work())

    @property
    def over(self) -> bool:
        """Whether no more events will come."""
        return self._over

    def cancel(self) -> None:
        """End it because the client wants that."""
        self._cancellation.request()

    def end(self, reason: str) -> None:
        """End it as failed, because the server has to."""
        self._ending = reason
        self._cancellation.request()

    async def started(self) -> None:
        """Wait for the turn's first event, which comes before any token; raises ApiError where it was refused."""
        while not self._begun and not self._over:
            await self._next_change()
        if self.refusal is not None:
            raise self.refusal

    async def finished(self) -> None:
        """Wait for the end."""
        await asyncio.shield(self._task)

    async def follow(self, after: int = -1) -> AsyncIterator[ApiEvent]:
        """The events after the one with index `after`, as they come."""
        position = after + 1
        while True:
            while position < len(self.events):
                yield self.events[position]
                position += 1
            if self._over:
                return
            await self._next_change()

    async def _next_change(self) -> None:
        await self._changed.wait()

    def _publish(self, events: list[ApiEvent]) -> None:
        self.events += events
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _work(self) -> None:
        try:
            async with aclosing(self._turn(self._cancellation)) as turn:
                async for event in turn:
                    if not self._begun:
                        self._begun = True
                        self._publish(list(self.mapper.start()))
                    if await self._take(event):
                        break
        except GptOssError as error:
            await self._refuse_or_fail(api_error(error))
        except Exception:  # a bug of ours must still end the stream in order
            logger.exception("a response failed")
            await self._refuse_or_fail(ApiError(INTERNAL_ERROR, status=500, type="server_error", code="server_error"))
        finally:
            self._over = True
            self._publish([])
            self._done()
            with contextlib.suppress(GptOssError):
                await self._hosted.close()

    async def _take(self, event: Event) -> bool:
        """Translate one event; whether it was the last that matters."""
        self._observe(event)
        events = list(self.mapper.map(event))
        if self.mapper.finished:
            await self._conclude(events)
        elif events:
            self._publish(events)
        return self.mapper.finished

    async def _refuse_or_fail(self, error: ApiError) -> None:
        if not self._begun:
            self.refusal = error
        elif not self.mapper.finished:
            await self._conclude(list(self.mapper.fail(error.message, error.code or "server_error")))

    async def _conclude(self, events: list[ApiEvent]) -> None:
        """Store what was made, then let the terminal event out."""
        if self._ending is not None:
            events = [*events[:-1], *self.mapper.fail_instead(self._ending)]
        if self._save is not None:
            try:
                await self._save([*self.events, *events])
            except Exception:  # a full disk, or a bug of ours: the stream must end in order
                logger.exception("a response could not be stored")
                events = [*events[:-1], *self.mapper.fail_instead("the response could not be stored")]
        self._publish(events)


async def until_finished(run: Run, receive: Callable[[], Awaitable[Any]]) -> None:
    """Wait for the end of a run. receive: of the request; a client that goes away ends the run."""
    gone = asyncio.create_task(_disconnected(receive))
    done = asyncio.create_task(run.finished())
    try:
        await asyncio.wait([gone, done], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            run.cancel()
        await done
    finally:
        gone.cancel()


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

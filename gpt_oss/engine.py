"""Many requests on one backend: from any thread a `Request` in, a `Generation` of tokens out.

Requests wait in a queue and are worked on in its order; `gpt_oss.scheduler` decides what is computed next.
One daemon thread drives it, started by the first request and ended when there has been nothing to do for a
minute, so an engine that nobody uses costs no processor time, and one that nobody holds is freed with its
weights. Knows nothing of weights, text or Harmony.
"""

import atexit
import os
import secrets
import threading
import weakref
from collections import deque
from dataclasses import dataclass

from gpt_oss.errors import GenerationError, QueueFull
from gpt_oss.scheduler import Backend, Event, Scheduler, Task, failure
from gpt_oss.token_generator import FinishReason, Generation, Request, Token

__all__ = ["Backend", "Engine", "EngineStats", "TaskGeneration"]

IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The queue and the slots at this moment, and totals since the engine was made."""

    slots: int
    active: int  # slots that are taken
    waiting: int  # requests in the queue
    requests: int  # ever given a slot
    prefix_hits: int  # of those, how many found a part of their prompt in the cache
    prompt_tokens: int  # of those requests
    cached_tokens: int  # of those tokens, how many were not computed again
    generated_tokens: int


class Engine:
    """Runs requests on a backend, as many at a time as it has slots.

    chunk: most prompt tokens computed between two decode steps when no other request is decoding; busy_chunk:
    when one is, so that its tokens keep coming. max_waiting: requests beyond this many in the queue are
    refused.
    """

    def __init__(self, backend: Backend, *, chunk: int = 512, busy_chunk: int = 128, max_waiting: int = 1024) -> None:
        if min(chunk, busy_chunk, max_waiting, backend.slots) < 1:
            raise ValueError("chunk, busy_chunk, max_waiting and the backend's slots must be at least 1")
        self._context_length = backend.context_length
        self._slots = backend.slots
        self._scheduler = Scheduler(backend, chunk, busy_chunk)
        self._max_waiting = max_waiting
        self._lock = threading.Condition()  # guards the three below
        self._waiting: deque[Task] = deque()
        self._worker: threading.Thread | None = None
        self._closed = False
        self._process = os.getpid()
        # An interpreter that shuts down while a daemon thread runs C++ code may crash.
        atexit.register(_close_if_alive, weakref.ref(self))

    def submit(self, request: Request) -> Generation:
        """Queue a checked request.

        Raises QueueFull, or GenerationError once the engine is closed and in a process forked from its own, which has
        no thread that would work on the request.
        """
        _refuse_forked(self._process)
        task = Task(request, seed=secrets.randbits(64) if request.seed is None else request.seed)
        if len(request.prompt_tokens) >= self._context_length:
            task.end("context")  # the prompt fits, an answer does not
            return TaskGeneration(task)
        with self._lock:
            if self._closed:
                raise GenerationError("the engine is closed; load the model again")
            if len(self._waiting) >= self._max_waiting:
                raise QueueFull(f"{len(self._waiting)} requests are waiting already; try again later")
            self._waiting.append(task)
            if self._worker is None:
                self._start_worker()
            self._lock.notify_all()
        return TaskGeneration(task)

    @property
    def stats(self) -> EngineStats:
        """The counters now."""
        totals = self._scheduler.counters
        return EngineStats(
            slots=self._slots,
            active=self._scheduler.active,
            waiting=len(self._waiting),
            requests=totals.requests,
            prefix_hits=totals.prefix_hits,
            prompt_tokens=totals.prompt_tokens,
            cached_tokens=totals.cached_tokens,
            generated_tokens=totals.generated_tokens,
        )

    def close(self) -> None:
        """Cancel all requests and end the thread; returns when the backend is no longer in use.

        Nothing is done in a forked process: the thread is the parent's, and so may be the lock, which then stays held.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            worker = self._worker
            self._lock.notify_all()
        if worker is not None and worker is not threading.current_thread():
            worker.join()

    def _start_worker(self) -> None:
        self._worker = threading.Thread(target=self._work, name="gpt-oss-engine", daemon=True)
        self._worker.start()

    # The worker's thread from here on.

    def _work(self) -> None:
        try:
            while self._wait_for_work():
                self._admit()
                self._scheduler.step()
        except BaseException as error:  # a mistake of ours must not leave callers waiting for ever
            self._abandon("error", failure("scheduling", error))
            raise

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when the thread shall end: closed, or idle for long."""
        with self._lock:
            if not self._has_work():
                self._lock.wait(IDLE_SECONDS)
            if self._closed:
                self._abandon("cancelled")
            elif not self._has_work():
                self._worker = None  # the next request starts another
            return self._worker is not None

    def _has_work(self) -> bool:
        return self._closed or bool(self._waiting) or self._scheduler.active > 0

    def _admit(self) -> None:
        with self._lock:
            if any(task.cancelled for task in self._waiting):
                self._waiting = deque(task for task in self._waiting if not task.cancelled)
        while self._waiting and self._scheduler.free:
            with self._lock:
                task = self._waiting.popleft()
            self._scheduler.admit(task)

    def _abandon(self, reason: FinishReason, error: GenerationError | None = None) -> None:
        """End every request and accept no more."""
        with self._lock:
            self._closed, self._worker = True, None
            waiting, self._waiting = self._waiting, deque()
        self._scheduler.end_all(reason, error)
        for task in waiting:
            task.end(reason, error)


def _close_if_alive(engine: "weakref.ref[Engine]") -> None:
    alive = engine()
    if alive is not None:
        alive.close()


def _refuse_forked(owner: int) -> None:
    if os.getpid() != owner:
        raise GenerationError(
            f"the engine belongs to process {owner}, from which this one was forked; load the model again"
        )


class TaskGeneration(Generation):
    """A reader of a task's events. The engine does not know it, so a dropped one can end its task."""

    def __init__(self, task: Task):
        self.prompt_tokens = len(task.prompt)
        self._task = task
        self._lock = threading.Lock()  # a reading and a cancelling thread see the same end
        self._process = os.getpid()

    @property
    def read_tokens(self) -> int:
        """Tokens of the prompt that are in the cache so far."""
        return self._task.read_tokens

    def __next__(self) -> Token:
        if self.finish_reason is not None:
            raise StopIteration
        _refuse_forked(self._process)  # no event would ever come
        event = self._task.events.get()
        with self._lock:
            if event.finish_reason is not None:
                self._task.events.put(Event(finish_reason=event.finish_reason))  # for other threads that wait
            if self.finish_reason is not None:  # ended while this thread was waiting
                raise StopIteration
            self.cached_tokens = self._task.cached_tokens
            self.finish_reason = event.finish_reason
        if event.error is not None:
            raise event.error
        if event.token is None:
            raise StopIteration
        return event.token

    def cancel(self) -> None:
        """End the request, from any thread; its slot is free within one step."""
        with self._lock:
            if self.finish_reason is not None:
                return
            self.finish_reason = "cancelled"
        self._task.cancelled = True
        self._task.end("cancelled")  # wakes the reader

    def __del__(self) -> None:
        # No lock here: garbage may be collected at any line of any thread. The engine looks before each step.
        self._task.cancelled = True

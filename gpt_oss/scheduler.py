"""Slots, caches and steps: what the engine's thread does next.

In: a backend and tasks, one by one. Out: each task's events (a token, an end, an error) in its queue. All of
it belongs to one thread, but a task's `cancelled` flag and its queue.

    admit    a task takes the free slot that shares the longest prefix with its prompt
    step     prefill: at most one chunk of prompt tokens, dealt round-robin to the slots that still need some;
             decode: one token for every slot whose prompt is done, as one batch; where backend and requests allow
             it the backend chooses the tokens itself and runs one step ahead of what is handed out

A slot's `cached` list holds exactly the ids whose keys and values the backend has: a sampled token joins it
when the decode step it was fed to has returned, not when it was sampled.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol, runtime_checkable

import torch

from gpt_oss.errors import GenerationError
from gpt_oss.sampling import INVALID, RowSettings, sample, token_logprobs
from gpt_oss.token_generator import FinishReason, Request, Token

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Weights and a key/value cache of `slots` independent sequences. Used by one thread at a time."""

    context_length: int
    slots: int
    vocab_size: int

    def prefill(self, slot: int, tokens: Sequence[int]) -> torch.Tensor:
        """Append tokens (at least one) to a slot; fp32 logits [vocab_size] after the last."""

    def decode(self, slots: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to each of the slots, all different; fp32 logits [len(slots), vocab_size]."""

    def truncate(self, slot: int, length: int) -> int:
        """Forget all but the first `length` tokens of a slot; how many really stay, at most `length`."""


@dataclass(frozen=True, slots=True)
class SampledRow:
    """A slot, the token to feed it first, and how to choose what follows: `gpt_oss.sampling` without filters.

    seed and step as in `gpt_oss.sampling.uniform`, step being that of the first token chosen. alternatives: how many
    of the most probable tokens to tell with each.
    """

    slot: int
    token: int
    temperature: float = 0.0
    seed: int = 0
    step: int = 0
    alternatives: int = 0


@runtime_checkable
class SamplingBackend(Backend, Protocol):
    """A backend that can also choose tokens itself, so that no step waits for the host. Optional."""

    def decode_sampled(self, rows: Sequence[SampledRow]) -> Generator[list[Token]]:
        """Append each row's token, choose the next, append that, and on; yields each step's tokens of all rows.

        Each has its log probability, and those of as many alternatives as its row asks for; the id is INVALID where
        there is no distribution. May compute ahead of what it yields. Closed, the slots hold the rows' first tokens
        and what was yielded but the last; until then no other verb is used. Ends by itself, perhaps before the first
        step, where it cannot go on: a context is full, or the rows are more than it takes.
        """


@dataclass(frozen=True, slots=True)
class Ahead:
    """A `decode_sampled` that is open, and the slots of its rows."""

    slots: list["Slot"]
    steps: Generator[list[Token]]


@dataclass(frozen=True, slots=True)
class Event:
    """What a task tells its reader: a token, or the end, or both at once."""

    token: Token | None = None
    finish_reason: FinishReason | None = None
    error: GenerationError | None = None


class Task:
    """One request on its way: its prompt, what it has generated, and the queue its reader reads."""

    def __init__(self, request: Request, seed: int):
        self.request = request
        self.seed = seed
        self.prompt = list(request.prompt_tokens)
        self.generated: list[int] = []
        self.cached_tokens = 0
        self.read_tokens = 0  # of the prompt, for those who wait
        self.cancelled = False  # set by any thread, seen by the engine's thread before its next step
        self.events: SimpleQueue[Event] = SimpleQueue()

    def end(self, reason: FinishReason, error: GenerationError | None = None) -> None:
        """Tell the reader that nothing more comes, and why."""
        self.events.put(Event(finish_reason=reason, error=error))


class Slot:
    """One sequence of the backend's cache."""

    def __init__(self, index: int):
        self.index = index
        self.cached: list[int] = []
        self.task: Task | None = None
        self.next_token: int | None = None  # sampled, its key and value not computed yet
        self.last_used = 0

    def release(self) -> None:
        """Free the slot; what is cached stays for a later prompt that begins the same way."""
        self.task = None
        self.next_token = None


@dataclass(slots=True)
class Counters:
    """Totals since the start, written by the engine's thread only."""

    requests: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


class Scheduler:
    """Chooses slots, computes prompts and tokens, samples, ends tasks. For one thread.

    chunk: most prompt tokens computed in one step; busy_chunk: the same while other slots are decoding.
    """

    def __init__(self, backend: Backend, chunk: int, busy_chunk: int):
        self._backend = backend
        self._chunk, self._busy_chunk = chunk, busy_chunk
        self._slots = [Slot(index) for index in range(backend.slots)]
        self._prefilling: deque[Slot] = deque()  # whose prompts are not complete, next one first
        self._ahead: Ahead | None = None  # for exactly the slots that are decoding, none of them prefilling
        self.counters = Counters()

    @property
    def active(self) -> int:
        """How many slots are taken."""
        return sum(slot.task is not None for slot in self._slots)

    @property
    def free(self) -> int:
        """How many tasks can be admitted now."""
        return len(self._slots) - self.active

    def admit(self, task: Task) -> None:
        """Give a free slot to the task. Of those that share equally much the one unused for longest."""
        # The prompt's last token is computed in any case: its logits are what sampling begins with.
        reusable = task.prompt[:-1]
        self._end_ahead()
        free = (slot for slot in self._slots if slot.task is None)
        shared, _, slot = max(
            ((common_prefix(slot.cached, reusable), -slot.last_used, slot) for slot in free),
            key=lambda candidate: candidate[:2],
        )
        slot.task = task
        slot.last_used = self.counters.requests = self.counters.requests + 1
        with self._failing([slot], "preparing the cache"):
            kept = self._backend.truncate(slot.index, shared)
            if not 0 <= kept <= shared:
                raise ValueError(f"truncate({slot.index}, {shared}) returned {kept}")
            del slot.cached[kept:]
            task.cached_tokens = kept
            self.counters.prefix_hits += kept > 0
            self.counters.prompt_tokens += len(task.prompt)
            self.counters.cached_tokens += kept
            self._prefilling.append(slot)

    def step(self) -> None:
        """Advance the active tasks: a chunk of prompt for some, a token for those whose prompt is done."""
        self._drop_cancelled()
        self._prefill()
        self._drop_cancelled()
        self._decode()

    def end_all(self, reason: FinishReason, error: GenerationError | None = None) -> None:
        """End every active task."""
        self._prefilling.clear()
        self._end_ahead()
        for slot in self._slots:
            if slot.task is not None:
                slot.task.end(reason, error)
                slot.release()

    def _drop_cancelled(self) -> None:
        for slot in self._slots:
            if slot.task is not None and slot.task.cancelled:
                if slot in self._prefilling:
                    self._prefilling.remove(slot)
                slot.task.end("cancelled")
                slot.release()

    def _prefill(self) -> None:
        decoding = any(slot.next_token is not None for slot in self._slots)
        budget = self._busy_chunk if decoding else self._chunk
        while budget and self._prefilling:
            slot = self._prefilling.popleft()
            with self._failing([slot], "reading the prompt"):
                budget -= self._prefill_one(slot, budget)

    def _prefill_one(self, slot: Slot, budget: int) -> int:
        task = _task(slot)
        start = len(slot.cached)
        part = task.prompt[start : start + budget]
        logits_V = self._backend.prefill(slot.index, part)
        slot.cached += part
        task.read_tokens = len(slot.cached)
        if len(slot.cached) == len(task.prompt):
            self._emit([slot], logits_V[None])
        else:
            self._prefilling.append(slot)
        return len(part)

    def _decode(self) -> None:
        slots = self._decoding()
        if self._ahead is not None and self._ahead.slots != slots:
            self._end_ahead()
        if not slots:
            return
        fed = [slot.next_token for slot in slots if slot.next_token is not None]
        with self._failing(slots, "generating a token"):
            chosen = self._decode_ahead(slots, fed)
            logits_NV = None if chosen else self._backend.decode([slot.index for slot in slots], fed)
            for slot, token in zip(slots, fed, strict=True):
                slot.cached.append(token)
            if logits_NV is not None:
                self._emit(slots, logits_NV)
            for slot, sampled in zip(slots, chosen, strict=False):
                with self._failing([slot], "sampling"):
                    self._deliver(slot, sampled)
        if self._decoding() != slots:
            self._end_ahead()  # now: there may be no further step

    def _decoding(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.next_token is not None]

    def _decode_ahead(self, slots: list[Slot], fed: Sequence[int]) -> list[Token]:
        """The next token of each slot as the backend itself chooses it; none where it cannot, or may not."""
        if self._ahead is None and not self._prefilling and isinstance(self._backend, SamplingBackend):
            tasks = [_task(slot) for slot in slots]
            if all(_unfiltered(task.request) for task in tasks):
                rows = [
                    SampledRow(
                        slot.index, token, task.request.temperature, task.seed, len(task.generated),
                        task.request.top_logprobs,
                    )
                    for slot, token, task in zip(slots, fed, tasks, strict=True)
                ]  # fmt: skip
                self._ahead = Ahead(slots, self._backend.decode_sampled(rows))
        if self._ahead is None:
            return []
        chosen = next(self._ahead.steps, None)
        if chosen is None:
            self._ahead = None
            return []
        wanted = [_task(slot).request.logprobs for slot in slots]
        return [token if want else Token(token.id) for token, want in zip(chosen, wanted, strict=True)]

    def _end_ahead(self) -> None:
        """Take back what the backend has computed but not handed out."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            with self._failing(ahead.slots, "taking back a step"):
                ahead.steps.close()

    def _emit(self, slots: Sequence[Slot], logits_NV: torch.Tensor) -> None:
        """Sample a token for each slot, hand it out and end the tasks that are done."""
        settings = {}
        for n, slot in enumerate(slots):
            with self._failing([slot], "asking which tokens are allowed"):
                settings[n] = self._settings(_task(slot))
        if not settings:
            return
        if len(settings) < len(slots):
            slots, logits_NV = [slots[n] for n in settings], logits_NV[list(settings)]
        ids = sample(logits_NV, list(settings.values())).tolist()
        tokens = _tokens([_task(slot).request for slot in slots], logits_NV, ids)
        for slot, token in zip(slots, tokens, strict=True):
            with self._failing([slot], "sampling"):
                self._deliver(slot, token)

    def _settings(self, task: Task) -> RowSettings:
        request = task.request
        allowed = request.allowed_tokens(tuple(task.generated)) if request.allowed_tokens is not None else None
        mask = None if allowed is None else self._checked_mask(torch.as_tensor(allowed))
        step = len(task.generated)
        return RowSettings(request.temperature, request.top_p, request.top_k, task.seed, step, mask)

    def _checked_mask(self, mask_V: torch.Tensor) -> torch.Tensor:
        shape = [self._backend.vocab_size]
        if mask_V.dtype != torch.bool or list(mask_V.shape) != shape:
            raise ValueError(f"expected a bool mask {shape}, got {mask_V.dtype} {list(mask_V.shape)}")
        if not mask_V.any():
            raise ValueError("the mask allows no token")
        return mask_V

    def _deliver(self, slot: Slot, token: Token) -> None:
        task = _task(slot)
        if token.id == INVALID:
            raise ValueError("the logits hold no finite maximum (NaN, +inf, or -inf everywhere)")
        task.generated.append(token.id)
        self.counters.generated_tokens += 1
        reason = task.request.finish_reason(token.id, len(task.generated), self._backend.context_length)
        if reason is None:
            slot.next_token = token.id
        else:
            slot.release()  # before the reader can see the end and ask for the next answer
        task.events.put(Event(token, reason))

    @contextmanager
    def _failing(self, slots: Sequence[Slot], doing: str) -> Iterator[None]:
        """Turn an exception into the end of these slots' tasks and forget their caches; others go on."""
        try:
            yield
        except (Exception, SystemExit) as error:  # backends and masks are foreign code: a request fails, not the engine
            told = any(slot.task is not None for slot in slots)
            logger.log(logging.INFO if told else logging.WARNING, "inference failed while %s", doing, exc_info=True)
            for slot in slots:
                task, slot.cached = slot.task, []
                slot.release()
                if task is not None:
                    task.end("error", failure(doing, error))


def failure(doing: str, error: BaseException) -> GenerationError:
    """What a reader is told about an exception on the engine's thread."""
    told = GenerationError(f"inference failed while {doing}: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading items are equal; a and b are of one sequence type."""
    block = 256  # compared as slices, at C speed
    start = 0
    end = min(len(a), len(b))
    while start + block <= end and a[start : start + block] == b[start : start + block]:
        start += block
    while start < end and a[start] == b[start]:
        start += 1
    return start


def _unfiltered(request: Request) -> bool:
    """Whether temperature and seed alone choose the tokens."""
    unlimited = request.temperature == 0 or (request.top_p == 1 and not request.top_k)
    return unlimited and request.allowed_tokens is None


def _task(slot: Slot) -> Task:
    assert slot.task is not None, "only active slots are computed"
    return slot.task


def _tokens(requests: Sequence[Request], logits_NV: torch.Tensor, ids: Sequence[int]) -> list[Token]:
    """Tokens of the ids, with log probabilities where the request wants them."""
    tokens = [Token(id) for id in ids]
    wanted = [n for n, request in enumerate(requests) if request.logprobs and ids[n] != INVALID]
    if wanted:
        alternatives = max(requests[n].top_logprobs for n in wanted)
        found = token_logprobs(logits_NV[wanted], [ids[n] for n in wanted], alternatives)
        for n, (logprob, top) in zip(wanted, found, strict=True):
            tokens[n] = Token(ids[n], logprob, top[: requests[n].top_logprobs])
    return tokens

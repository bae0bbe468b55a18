"""A backend without weights whose logits depend on every cached token, so that any mistake in a cache shows.

The logits after a history are random numbers seeded by that history. A slot whose bookkeeping is off by one token,
in number, order or value, gives other logits, hence another text than `expected_greedy` computes without an engine.
The backend also enforces the contract of the seam and records what it was asked.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import torch

from gpt_oss.sampling import RowSettings, sample, token_logprobs
from gpt_oss.scheduler import SampledRow
from gpt_oss.token_generator import Token

VOCAB = 50


def logits_after(history: Sequence[int], vocab: int = VOCAB) -> np.ndarray:
    """Float32 [vocab], a pure function of the history."""
    return np.random.default_rng(list(history)).normal(scale=3.0, size=vocab).astype(np.float32)


def expected_greedy(prompt: Sequence[int], count: int, stop: Sequence[int] = (), vocab: int = VOCAB) -> list[int]:
    """The greedy continuation, computed from the whole history each time."""
    history = list(prompt)
    while len(history) < len(prompt) + count:
        history.append(int(np.argmax(logits_after(history, vocab))))
        if history[-1] in stop:
            break
    return history[len(prompt) :]


class FakeBackend:
    """See above. `kept` maps the length truncate is asked for to the length it keeps; `before` runs ahead of
    each prefill and decode with the verb's name, and may block or raise."""

    def __init__(
        self,
        slots: int = 4,
        context_length: int = 200,
        vocab_size: int = VOCAB,
        kept: Callable[[int], int] = lambda length: length,
        before: Callable[[str], None] = lambda verb: None,
    ):
        self.slots, self.context_length, self.vocab_size = slots, context_length, vocab_size
        self.cache: list[list[int]] = [[] for _ in range(slots)]
        self.calls: list[tuple[str, list[int], int]] = []  # verb, slots, tokens
        self._kept, self._before = kept, before
        self._in_use = threading.Lock()

    def prefill(self, slot: int, tokens: Sequence[int]) -> torch.Tensor:
        assert len(tokens) > 0, "prefill of nothing"
        with self._alone("prefill", [slot], len(tokens)):
            self._append(slot, tokens)
            return torch.from_numpy(logits_after(self.cache[slot], self.vocab_size))

    def decode(self, slots: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        assert len(slots) == len(tokens) == len(set(slots)) > 0
        with self._alone("decode", list(slots), len(tokens)):
            for slot, token in zip(slots, tokens, strict=True):
                self._append(slot, [token])
            rows = [logits_after(self.cache[slot], self.vocab_size) for slot in slots]
            return torch.from_numpy(np.stack(rows))

    def truncate(self, slot: int, length: int) -> int:
        assert length <= len(self.cache[slot]), f"truncate to {length} of {len(self.cache[slot])}"
        del self.cache[slot][self._kept(length) :]
        return len(self.cache[slot])

    def held(self, slot: int) -> list[int]:
        """The tokens that count as appended to a slot."""
        return self.cache[slot]

    def _append(self, slot: int, tokens: Sequence[int]) -> None:
        assert all(0 <= token < self.vocab_size for token in tokens)
        self.cache[slot] += tokens
        assert len(self.cache[slot]) <= self.context_length, "beyond the context"

    def _alone(self, verb: str, slots: list[int], tokens: int) -> threading.Lock:
        """The lock of the call, which nobody else may hold."""
        self._before(verb)
        self.calls.append((verb, slots, tokens))
        assert not self._in_use.locked(), "two calls at once"
        return self._in_use


class FakeSamplingBackend(FakeBackend):
    """The same with `decode_sampled`, one step ahead of what it yields; no other verb may come in between."""

    def __init__(self, *given: Any, most_rows: int = 100, **named: Any):
        super().__init__(*given, **named)
        self.opened = 0
        self._most_rows = most_rows
        self._counted: dict[int, int] = {}  # while decode_sampled is open: what its slots hold without the step ahead

    def decode_sampled(self, rows: Sequence[SampledRow]) -> Generator[list[Token]]:
        if len(rows) > self._most_rows:
            return
        self.opened += 1
        counted = self._counted = {row.slot: len(self.cache[row.slot]) for row in rows}
        fed = [row.token for row in rows]
        behind: list[Token] | None = None
        try:
            for number in range(self.context_length - max(counted.values())):
                self._before("decode_sampled")
                for row, token in zip(rows, fed, strict=True):
                    self._append(row.slot, [token])
                if behind is not None:
                    yield self._hand_out(behind)
                logits = torch.from_numpy(
                    np.stack([logits_after(self.cache[row.slot], self.vocab_size) for row in rows])
                )
                fed = sample(
                    logits, [RowSettings(row.temperature, seed=row.seed, step=row.step + number) for row in rows]
                ).tolist()
                told = token_logprobs(logits, fed, max(row.alternatives for row in rows))
                behind = [
                    Token(id, logprob, others[: row.alternatives])
                    for row, id, (logprob, others) in zip(rows, fed, told, strict=True)
                ]
            if behind is not None:
                yield self._hand_out(behind)
        finally:
            self._counted = {}
            for slot, length in counted.items():
                del self.cache[slot][length:]

    def held(self, slot: int) -> list[int]:
        return self.cache[slot][: self._counted.get(slot)]

    def truncate(self, slot: int, length: int) -> int:
        assert not self._counted, "truncate while decode_sampled is open"
        return super().truncate(slot, length)

    def _hand_out(self, tokens: list[Token]) -> list[Token]:
        for slot in self._counted:
            self._counted[slot] += 1
        return tokens

    def _alone(self, verb: str, slots: list[int], tokens: int) -> threading.Lock:
        assert not self._counted, f"{verb} while decode_sampled is open"
        return super()._alone(verb, slots, tokens)

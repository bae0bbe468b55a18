"""The Triton model behind the engine's seam, and the faster verb beyond it: decoding without a stop at the host.

`prefill`, `decode`, `truncate` are the seam of `gpt_oss.engine.Backend`. `decode_sampled` keeps one step running
ahead: each step samples on the device and feeds itself; its tokens reach the host through pinned memory while the
next step runs.
"""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import torch

from gpt_oss.sampling import counter
from gpt_oss.scheduler import SampledRow
from gpt_oss.token_generator import Token
from gpt_oss.triton.variants import current

if TYPE_CHECKING:
    from gpt_oss.triton.decode import DecodeStep
    from gpt_oss.triton.model import Transformer


class TritonBackend:
    """See `gpt_oss.engine.Backend`. Logits are fp32 on the model's device and valid until the next step."""

    def __init__(self, model: "Transformer"):
        self.model = model
        self.context_length, self.slots = model.context_length, model.cache.slots
        self.vocab_size = model.config.vocab_size

    def prefill(self, slot: int, tokens: Sequence[int]) -> torch.Tensor:
        """Append tokens to one slot; logits after the last, [vocab]."""
        return self.model.prefill(slot, tokens)

    def decode(self, slots: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to each of the slots in one step; logits [len(slots), vocab]."""
        return self.model.decode(slots, tokens)

    @torch.inference_mode()  # from any thread, also where the model was made in this mode
    def truncate(self, slot: int, length: int) -> int:
        """Forget all but the first `length` tokens; how many really stay: all or, beyond the ring's margin, none."""
        return self.model.cache.truncate(slot, length)

    @torch.inference_mode()
    def decode_sampled(self, rows: Sequence[SampledRow]) -> Generator[list[Token]]:
        """See `gpt_oss.scheduler.SamplingBackend`; what is yielded is one step behind the device."""
        model, cache = self.model, self.model.cache
        room = self.context_length - max(cache.lengths[row.slot] for row in rows)
        if room < 1 or len(rows) > model.steps.largest:
            return
        for row in rows:
            model.state.temperature[row.slot] = row.temperature
            model.state.random[row.slot] = random_counter(row.seed, row.step)
        start = {row.slot: cache.lengths[row.slot] for row in rows}
        step = model.steps.run([row.slot for row in rows], [row.token for row in rows])
        buffers = [_Readback([row.alternatives for row in rows], model.device) for _ in range(2)]
        pending = buffers[0].begin(step)
        taken = 0
        try:
            for fed in range(1, room + 1):
                ahead = None
                if fed < room:
                    model.steps.again(step)
                    for slot, length in start.items():
                        cache.wrote(slot, length + fed + 1)
                    ahead = buffers[fed % 2].begin(step)
                taken = fed
                for slot in start:
                    cache.grow(slot, 1)
                yield pending.wait()
                if ahead is None:
                    return
                pending = ahead
        finally:
            for slot, length in start.items():
                cache.device_lengths[slot] = length + taken
                model.state.temperature[slot] = 0.0


class _Readback:
    """Pinned buffers for what one step at a time has chosen; `alternatives` wanted of each row."""

    def __init__(self, alternatives: Sequence[int], device: torch.device):
        self._alternatives, self._device = alternatives, device
        self._cuda = device.type == "cuda"
        self._done = torch.cuda.Event() if self._cuda else None
        self._arriving: list[torch.Tensor] = []

    def begin(self, step: "DecodeStep") -> "_Readback":
        """Start to copy what the step, as last enqueued, will have chosen."""
        rows, most = len(self._alternatives), max(self._alternatives)
        with current(self._device):
            found = [step.next_tokens[:rows], step.logprobs[:rows]]
            if most:
                found += step.alternatives(rows, most)
            if not self._arriving:
                self._arriving = [torch.empty(t.shape, dtype=t.dtype, pin_memory=self._cuda) for t in found]
            for buffer, source in zip(self._arriving, found, strict=True):
                buffer.copy_(source, non_blocking=True)
            if self._done is not None:
                self._done.record()
        return self

    def wait(self) -> list[Token]:
        """The token of each row, once they are here."""
        if self._done is not None:
            self._done.synchronize()
        ids, logprobs, *others = (buffer.tolist() for buffer in self._arriving)
        pairs = [list(zip(*row, strict=True)) for row in zip(*others, strict=True)] or [[]] * len(ids)
        return [
            Token(id, logprob, tuple(row[:wanted]))
            for id, logprob, row, wanted in zip(ids, logprobs, pairs, self._alternatives, strict=True)
        ]


def random_counter(seed: int, step: int) -> int:
    """The state from which `unembedding.uniform` computes `gpt_oss.sampling.uniform(seed, step)`, signed."""
    state = counter(seed, step)
    return state - (1 << 64) if state >= 1 << 63 else state

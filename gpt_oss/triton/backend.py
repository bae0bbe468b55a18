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

    def truncate(self, slot: int, length: int) -> int:
        """Forget all but the first `length` tokens; how many really stay: all or, beyond the ring's margin, none."""
        return self.model.cache.truncate(slot, length)

    @torch.inference_mode()
    def decode_sampled(self, rows: Sequence[SampledRow]) -> Generator[list[tuple[int, float]]]:
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
        buffers = [_Readback(len(rows), model.device) for _ in range(2)]
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
    """A pinned buffer for tokens and log-probabilities of one step at a time."""

    def __init__(self, rows: int, device: torch.device):
        cuda = device.type == "cuda"
        self._device = device
        with current(device):
            self._tokens = torch.empty(rows, dtype=torch.int32, pin_memory=cuda)
            self._logprobs = torch.empty(rows, dtype=torch.float32, pin_memory=cuda)
        self._done = torch.cuda.Event() if cuda else None

    def begin(self, step: "DecodeStep") -> "_Readback":
        """Start to copy what the step, as last enqueued, will have chosen."""
        rows = len(self._tokens)
        with current(self._device):
            self._tokens.copy_(step.next_tokens[:rows], non_blocking=True)
            self._logprobs.copy_(step.logprobs[:rows], non_blocking=True)
            if self._done is not None:
                self._done.record()
        return self

    def wait(self) -> list[tuple[int, float]]:
        """(id, log-probability) of each row, once they are here."""
        if self._done is not None:
            self._done.synchronize()
        return list(zip(self._tokens.tolist(), self._logprobs.tolist(), strict=True))


def random_counter(seed: int, step: int) -> int:
    """The state from which `unembedding.uniform` computes `gpt_oss.sampling.uniform(seed, step)`, signed."""
    state = counter(seed, step)
    return state - (1 << 64) if state >= 1 << 63 else state

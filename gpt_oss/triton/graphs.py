"""Decode steps as CUDA graphs, one per batch-size bucket, made at first use.

In: slots, and tokens or the promise that the last step's tokens go on. Out: the step's buffers, filled on the
current stream. A graph replaces some 130 (20b) or 190 (120b) launches by one; without CUDA (the interpreter) the
step just runs.
"""

import logging
from collections.abc import Callable, Sequence

import torch

from gpt_oss.triton.decode import DecodeStep
from gpt_oss.triton.variants import current

logger = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, 16, 32)


class GraphedSteps:
    """Decode steps of every bucket up to `largest` sequences; `make(batch)` builds one."""

    def __init__(self, make: Callable[[int], DecodeStep], largest: int, device: torch.device):
        self._make, self._device = make, device
        self.buckets = [bucket for bucket in BUCKETS if bucket < largest] + [min(largest, BUCKETS[-1])]
        self._steps: dict[int, DecodeStep] = {}
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if device.type == "cuda":
            # Graphs replay one after the other, so they can share one pool of memory; torch wants one stream for it,
            # and its own default is a stream of the card that the process recorded on first.
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    @property
    def largest(self) -> int:
        """Most sequences of one step."""
        return self.buckets[-1]

    def bucket(self, rows: int) -> int:
        """The batch size that `rows` sequences are padded to."""
        return next(bucket for bucket in self.buckets if bucket >= rows)

    def run(self, slots: Sequence[int], tokens: Sequence[int]) -> DecodeStep:
        """One step of these slots with these tokens."""
        step = self.step(len(slots))
        padding = step.batch - len(slots)
        rows = torch.tensor([[*slots, *[slots[0]] * padding], [*tokens, *[tokens[0]] * padding]], dtype=torch.int32)
        rows = rows.to(self._device)
        step.slots.copy_(rows[0])
        step.tokens.copy_(rows[1])
        step.active.fill_(len(slots))
        self.again(step)
        return step

    def again(self, step: DecodeStep) -> None:
        """The step once more, on what its buffers hold."""
        with current(self._device):
            if step.batch in self._graphs:
                self._graphs[step.batch].replay()
                return
            step.run()
            if self._device.type == "cuda":
                # Only now: the first run compiled the kernels, and recording runs nothing.
                self._graphs[step.batch] = self._capture(step)

    def step(self, rows: int) -> DecodeStep:
        """The step of the bucket that takes `rows` sequences; its buffers are those of its graph."""
        bucket = self.bucket(rows)
        if bucket not in self._steps:
            self._steps[bucket] = self._make(bucket)
        return self._steps[bucket]

    def _capture(self, step: DecodeStep) -> torch.cuda.CUDAGraph:
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use their cards meanwhile.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            step.run()
        logger.info("captured the decode step of %d sequences", step.batch)
        return graph

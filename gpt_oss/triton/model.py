"""The gpt-oss forward pass in Triton, and the generator that commands load.

`Transformer.prefill` and `Transformer.decode` are the two steps; everything around them is bookkeeping:

    weights   weights.py        caches  cache.py        a decode step  decode.py, graphs.py
    a prefill step              here, from norm.py, attention_prefill.py, router.py and grouped.py; its dense
                                projections are torch's (cuBLAS), which at many rows nothing of ours would beat
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear
from tqdm import tqdm

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.config import ModelConfig
from gpt_oss.errors import ContextOverflow, OutOfMemory
from gpt_oss.rope import cos_sin
from gpt_oss.token_generator import EngineTokenGenerator
from gpt_oss.triton import grouped
from gpt_oss.triton.attention_prefill import attend, rope_and_store
from gpt_oss.triton.backend import TritonBackend
from gpt_oss.triton.cache import MARGIN, KVCache, LayerCache, choose_context
from gpt_oss.triton.decode import DecodeStep, SlotState, key_splits
from gpt_oss.triton.graphs import GraphedSteps
from gpt_oss.triton.norm import rms_norm
from gpt_oss.triton.router import top_k
from gpt_oss.triton.variants import Variant, check_compiler, choose_device, choose_variant, current
from gpt_oss.triton.weights import (
    WORKSPACE_BYTES,
    LayerWeights,
    ModelWeights,
    TensorSource,
    load_weights,
    room_beside_weights,
)

__all__ = ["ModelConfig", "TokenGenerator", "Transformer"]

logger = logging.getLogger(__name__)

CHUNK = 2048  # most tokens of one prefill step: bounds its activations (20b: 0.3 GB) and fills the matrix units


class Transformer:
    """A model on one device with the caches of `slots` sequences of up to `context_length` tokens."""

    def __init__(
        self, config: ModelConfig, weights: ModelWeights, variant: Variant, *, slots: int = 1,
        context_length: int | None = None, margin: int = MARGIN,
    ):  # fmt: skip
        self.config, self.weights, self.variant = config, weights, variant
        self.device = weights.embedding.device
        free = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what loading has returned counts as free
            free = max(0, torch.cuda.mem_get_info(self.device)[0] - WORKSPACE_BYTES)
        self.context_length = choose_context(config, context_length, slots, free, variant.activations, margin)
        self.cache = KVCache(config, slots, self.context_length, self.device, variant.activations, margin)
        tables = (torch.from_numpy(table).to(self.device) for table in cos_sin(config, self.context_length))
        self.rope: tuple[torch.Tensor, torch.Tensor] = (next(tables), next(tables))
        self.state = SlotState(slots, self.device)
        # No method of ours: a circle of references would keep the card full until Python looks for such circles.
        make = partial(_decode_step, config, weights, self.rope, self.cache, self.state, variant)
        self.steps = GraphedSteps(make, slots, self.device)
        logger.info("context of %d tokens for each of %d sequences", self.context_length, slots)
        if context_length is None and self.context_length < config.context_length:
            logger.warning(
                "free memory is enough for a context of %d tokens of the model's %d",
                self.context_length, config.context_length,
            )  # fmt: skip

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: torch.device | str | None = None, *, dtype: torch.dtype = torch.bfloat16,
        **options: Any,
    ) -> "Transformer":  # fmt: skip
        """Load a checkpoint folder of either layout. Raises a `BackendError` or `CheckpointError`."""
        chosen = choose_device(device)
        variant = choose_variant(chosen, dtype)
        with Checkpoint(path) as checkpoint:
            return cls.from_source(checkpoint, chosen, variant, **options)

    @classmethod
    def from_source(
        cls, source: TensorSource, device: torch.device, variant: Variant, *, slots: int = 1,
        context_length: int | None = None, margin: int = MARGIN,
    ) -> "Transformer":  # fmt: skip
        """Load from anything that hands out tensors by name. What will not fit is refused before anything is read.

        On a card the model returned is ready: its kernels are compiled, its decode steps recorded.
        """
        config, dtype = source.config, variant.activations
        choose_context(config, context_length, slots, room_beside_weights(config, device, dtype), dtype, margin)
        try:
            with current(device):
                return cls._ready(source, device, variant, slots, context_length, margin)
        except torch.cuda.OutOfMemoryError:
            pass
        # Only here, and none of it in this frame: tracebacks would keep half a model alive.
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        raise OutOfMemory(
            f"{device} ran out of memory while loading ({free:,} of {total:,} bytes are free without the model); "
            "close other programs on the card or choose a shorter context"
        )

    @classmethod
    def _ready(
        cls, source: TensorSource, device: torch.device, variant: Variant, slots: int, context_length: int | None,
        margin: int,
    ) -> "Transformer":  # fmt: skip
        check_compiler(device)
        weights = load_weights(source, device, variant.activations)
        model = cls(source.config, weights, variant, slots=slots, context_length=context_length, margin=margin)
        if device.type == "cuda":
            model.prepare()
        return model

    @torch.inference_mode()
    def prepare(self) -> None:
        """Run every kernel once, so that no request waits for the compiler; forgets what the slots hold.

        The first time on a machine this takes a minute, and a progress bar shows it; after that a second.
        """
        chunk = min(CHUNK, self.cache.chunk, self.context_length)
        lengths = [1 << n for n in range(chunk.bit_length())]  # passes through each way that `grouped` cuts its work
        with tqdm(total=len(lengths) + len(self.steps.buckets), desc="compiling kernels", delay=1, disable=None) as bar:
            for length in lengths:
                self.prefill(0, [0] * length)
                self.cache.truncate(0, 0)
                bar.update()
            for bucket in self.steps.buckets:
                self.decode(range(bucket), [0] * bucket)
                for slot in range(bucket):
                    self.cache.truncate(slot, 0)
                bar.update()

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int]) -> torch.Tensor:
        """Append tokens to a slot; fp32 logits [vocab] after the last one."""
        if not tokens:
            raise ValueError("prefill needs at least one token")
        self._check_room(slot, len(tokens))
        chunk = min(CHUNK, self.cache.chunk)
        ids = torch.tensor(tokens, device=self.device)  # at once: the host need not wait for a chunk to send the next
        with current(self.device):
            for part in ids.split(chunk):
                last = self._prefill_chunk(slot, part)
            step = self.steps.step(1)
            step.x.copy_(last)
            step.unembed()
            return step.logits[0].clone()

    @torch.inference_mode()
    def decode(self, slots: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to each slot, all different; fp32 logits [len(slots), vocab], valid until the next step."""
        for slot in slots:
            self._check_room(slot, 1)
        parts = []
        for first in range(0, len(slots), self.steps.largest):
            part = slots[first : first + self.steps.largest]
            step = self.steps.run(part, tokens[first : first + self.steps.largest])
            parts.append(
                step.logits[: len(part)] if len(slots) <= self.steps.largest else step.logits[: len(part)].clone()
            )
        for slot in slots:
            self.cache.grow(slot, 1)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _check_room(self, slot: int, count: int) -> None:
        used = self.cache.lengths[slot]
        if used + count > self.context_length:
            raise ContextOverflow(
                f"slot {slot} holds {used} tokens and {count} more exceed the context of {self.context_length}"
            )

    def _prefill_chunk(self, slot: int, ids: torch.Tensor) -> torch.Tensor:
        """All layers for one chunk; the last token's hidden state [1, hidden]."""
        start = self.cache.lengths[slot]
        x = self.weights.embedding[ids]
        for number, layer in enumerate(self.weights.layers):
            self._attention(x, layer, self.cache.layers[number], slot, start, self.config.window(number) or 0)
            if number == len(self.weights.layers) - 1:
                x = x[-1:]  # nothing reads the other tokens' last experts
            self._experts(x, layer)
        self.cache.grow(slot, len(ids))
        self.cache.device_lengths[slot] = self.cache.lengths[slot]
        return x

    def _attention(
        self, x: torch.Tensor, layer: LayerWeights, cache: LayerCache, slot: int, start: int, window: int
    ) -> None:
        """x += out(attention(rope(qkv(norm(x)))))."""
        qkv = linear(rms_norm(x, layer.attention_norm, self.config.rms_norm_eps), layer.qkv, layer.qkv_bias)
        keys, values = cache.keys[slot], cache.values[slot]
        rope_and_store(qkv, *self.rope, keys, values, start)
        attended = attend(
            qkv, layer.sinks, keys, values, start, window, self.variant.compute, stages=self.variant.attention_stages
        )
        x += linear(attended, layer.out, layer.out_bias)

    def _experts(self, x: torch.Tensor, layer: LayerWeights) -> None:
        """x += Σ weight · expert(norm(x)) over the chosen experts."""
        config = self.config
        normed = rms_norm(x, layer.mlp_norm, config.rms_norm_eps)
        ids, weights = top_k(
            linear(normed, layer.router.t()[: config.num_experts], layer.router_bias), config.experts_per_token
        )
        tiling = grouped.Tiling.for_pairs(ids.numel(), config.num_experts)
        work = grouped.plan(ids, config.num_experts, tiling.block_m)
        hidden = grouped.gate_up(
            normed, layer.mlp1, layer.mlp1_bias, work, config.swiglu_limit, tiling, self.variant
        )
        y = grouped.down(hidden, layer.mlp2, layer.mlp2_bias, work, tiling, self.variant)
        grouped.combine(y, weights, x)


def _decode_step(
    config: ModelConfig, weights: ModelWeights, rope: tuple[torch.Tensor, torch.Tensor], cache: KVCache,
    state: SlotState, variant: Variant, batch: int,
) -> DecodeStep:  # fmt: skip
    """A step whose attention fills the card's processors."""
    device, processors = weights.embedding.device, 1
    if device.type == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    splits = key_splits(processors, batch, config.num_key_value_heads)
    return DecodeStep(config, weights, rope, cache, state, variant, batch, splits)


class TokenGenerator(EngineTokenGenerator):
    """The Triton backend with the engine around it.

    checkpoint: a folder of either layout. context: tokens per slot, None for as many as the model has and the card
    holds. device: a CUDA device, None for the current one. slots: requests that run at the same time.
    """

    def __init__(
        self, checkpoint: str | Path, context: int | None = None, device: torch.device | str | None = None, *,
        slots: int = 1, **engine_options: Any,
    ):  # fmt: skip
        model = Transformer.from_checkpoint(checkpoint, device, context_length=context, slots=slots)
        self.backend = TritonBackend(model)
        super().__init__(self.backend, **{"chunk": CHUNK} | engine_options)

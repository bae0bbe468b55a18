"""From a checkpoint to the card: what the kernels read, tensor by tensor.

In: a `Checkpoint`. Out: `ModelWeights` on the device. Each tensor goes memory map → pinned buffers → card and is put
into its final order there, expert tensors one expert at a time, so that beyond the weights themselves the card never
holds more than one such piece. A checkpoint that does not fit is refused before anything is read.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import triton
from tqdm import tqdm

from gpt_oss.config import ModelConfig
from gpt_oss.errors import CheckpointError, OutOfMemory
from gpt_oss.mxfp4 import SCALE_NAN
from gpt_oss.triton.layout import PackedExperts, empty_packed, pack_expert

logger = logging.getLogger(__name__)

# Kernels, the allocator's slack, activations of a chunk: measured sizes belong into benchmarks/results.
WORKSPACE_BYTES = 1 << 30
STAGING_BYTES = 64 << 20


class TensorSource(Protocol):
    """What is needed of a checkpoint; `gpt_oss.checkpoint.Checkpoint` is one, random weights are another."""

    @property
    def config(self) -> ModelConfig:
        """Shapes of the tensors."""

    def read(self, name: str, index: int | slice | tuple[int | slice, ...] = ()) -> np.ndarray:
        """The tensor called `name`, or the part of it that `index` selects."""


@dataclass(frozen=True)
class LayerWeights:
    """One layer. Dense tensors are in the activation type, gains of norms in fp32: in BF16 a step of a kernel's loop
    would read 2 bytes per thread of them, and copies into its pipeline begin at 4. router is [hidden, experts padded],
    see linear.py.
    """

    attention_norm: torch.Tensor  # [hidden] fp32
    qkv: torch.Tensor  # [(q + 2·kv heads)·head, hidden]
    qkv_bias: torch.Tensor
    sinks: torch.Tensor  # [q heads]
    out: torch.Tensor  # [hidden, q heads · head]
    out_bias: torch.Tensor
    mlp_norm: torch.Tensor  # [hidden] fp32
    router: torch.Tensor
    router_bias: torch.Tensor  # [experts]
    mlp1: PackedExperts
    mlp1_bias: torch.Tensor  # [experts, 2·intermediate]
    mlp2: PackedExperts
    mlp2_bias: torch.Tensor  # [experts, hidden]


@dataclass(frozen=True)
class ModelWeights:
    """Everything the forward pass reads but the cache and the rotary table."""

    embedding: torch.Tensor  # [vocab, hidden]
    layers: list[LayerWeights]
    norm: torch.Tensor  # [hidden] fp32
    unembedding: torch.Tensor  # [vocab, hidden]


def padded_experts(experts: int) -> int:
    """Columns of the router matrix: a power of two that the matrix units take."""
    return max(16, triton.next_power_of_2(experts))


def weight_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of `ModelWeights` on the card."""
    width = dtype.itemsize
    hidden, inter, experts = config.hidden_size, config.intermediate_size, config.num_experts
    dense = config.qkv_rows * (hidden + 1) + hidden * (config.num_attention_heads * config.head_dim + 1)
    dense += hidden * padded_experts(experts) + experts * (2 * inter + hidden + 1) + config.num_attention_heads
    packed = experts * (_packed_bytes(2 * inter, hidden) + _packed_bytes(hidden, inter))
    gains = (2 * config.num_hidden_layers + 1) * hidden * 4
    return config.num_hidden_layers * (dense * width + packed) + 2 * config.vocab_size * hidden * width + gains


def _packed_bytes(rows: int, k: int) -> int:
    return -(-rows // 16) * -(-k // 64) * (512 + 32)


def load_weights(source: TensorSource, device: torch.device, dtype: torch.dtype, progress: bool = True) -> ModelWeights:
    """Read all tensors of a checkpoint. Raises `CheckpointError`; nothing stays allocated then."""
    config = source.config
    if f"{_layer(0)}.mlp.mlp1_weight" in getattr(source, "names", ()):
        raise CheckpointError(
            "the experts of this checkpoint are stored in BF16, the triton backend reads MXFP4; use --backend torch"
        )
    loader = _Loader(source, device, dtype)
    # tqdm shows nothing unless the load takes a second and somebody watches.
    with tqdm(
        total=weight_bytes(config, dtype), unit="B", unit_scale=True, desc="loading", delay=1,
        disable=None if progress else True,
    ) as bar:  # fmt: skip
        loader.on_bytes = bar.update
        return ModelWeights(
            embedding=loader.dense("embedding.weight"),
            layers=[loader.layer(number) for number in range(config.num_hidden_layers)],
            norm=loader.gain("norm.scale"),
            unembedding=loader.dense("unembedding.weight"),
        )


def _layer(number: int) -> str:
    return f"block.{number}"


def room_beside_weights(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> int | None:
    """Bytes that the card will have for caches once the weights are there; None where memory is no question.

    Raises `OutOfMemory` if the weights themselves do not fit.
    """
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()  # of what this process had loaded before
    needed, free = weight_bytes(config, dtype) + WORKSPACE_BYTES, torch.cuda.mem_get_info(device)[0]
    if needed > free:
        raise OutOfMemory(
            f"the weights need {needed:,} bytes with workspace and {device} has {free:,} free; "
            "close other programs on the card, use a larger one, or choose --backend torch on several"
        )
    return free - needed


class Staging:
    """Two buffers of `size` bytes in turn, pinned for a card: while one crosses the bus the other is filled."""

    def __init__(self, device: torch.device, size: int = STAGING_BYTES):
        self._device, self._size, self._turn = device, size, 0
        cuda = device.type == "cuda"
        self._buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=cuda) for _ in range(2)]
        self._crossed = [torch.cuda.Event() for _ in range(2)] if cuda else []

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        """A copy on the device, complete for what the current stream does next; uint16 is BF16 as checkpoints have it.

        array: of any size, not empty.
        """
        source = array.reshape(-1).view(np.uint8)
        target = torch.empty(array.shape, dtype=_torch_dtype(array), device=self._device)
        target_bytes = target.view(-1).view(torch.uint8)
        for first in range(0, len(source), self._size):
            piece = source[first : first + self._size]
            buffer = self._buffers[self._turn][: len(piece)]
            if self._crossed:
                self._crossed[self._turn].synchronize()
            np.copyto(buffer.numpy(), piece)
            target_bytes[first : first + self._size].copy_(buffer, non_blocking=True)
            if self._crossed:
                self._crossed[self._turn].record()
            self._turn = 1 - self._turn
        return target


def _torch_dtype(array: np.ndarray) -> torch.dtype:
    if array.dtype == np.uint16:
        return torch.bfloat16
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


class _Loader:
    """Reads tensors of one checkpoint onto one device."""

    def __init__(self, source: TensorSource, device: torch.device, dtype: torch.dtype):
        self._source, self._device, self._dtype = source, device, dtype
        self._staging = Staging(device)
        self.on_bytes: Callable[[int], object] = lambda count: None

    def dense(self, name: str) -> torch.Tensor:
        return self._read(name, self._dtype)

    def gain(self, name: str) -> torch.Tensor:
        return self._read(name, torch.float32)

    def _read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        tensor = self._staging.to_device(self._source.read(name)).to(dtype)
        self.on_bytes(tensor.nbytes)
        return tensor

    def layer(self, number: int) -> LayerWeights:
        config, prefix = self._source.config, _layer(number)
        router = self.dense(f"{prefix}.mlp.gate.weight")  # [experts, hidden]
        padding = padded_experts(config.num_experts) - config.num_experts
        return LayerWeights(
            attention_norm=self.gain(f"{prefix}.attn.norm.scale"),
            qkv=self.dense(f"{prefix}.attn.qkv.weight"),
            qkv_bias=self.dense(f"{prefix}.attn.qkv.bias"),
            sinks=self.dense(f"{prefix}.attn.sinks"),
            out=self.dense(f"{prefix}.attn.out.weight"),
            out_bias=self.dense(f"{prefix}.attn.out.bias"),
            mlp_norm=self.gain(f"{prefix}.mlp.norm.scale"),
            router=torch.nn.functional.pad(router.t(), (0, padding)).contiguous(),
            router_bias=self.dense(f"{prefix}.mlp.gate.bias"),
            mlp1=self._experts(f"{prefix}.mlp.mlp1_weight", 2 * config.intermediate_size, config.hidden_size),
            mlp1_bias=self.dense(f"{prefix}.mlp.mlp1_bias"),
            mlp2=self._experts(f"{prefix}.mlp.mlp2_weight", config.hidden_size, config.intermediate_size),
            mlp2_bias=self.dense(f"{prefix}.mlp.mlp2_bias"),
        )

    def _experts(self, name: str, rows: int, k: int) -> PackedExperts:
        packed = empty_packed(self._source.config.num_experts, rows, k, self._device)
        damaged = torch.zeros((), dtype=torch.bool, device=self._device)
        for expert in range(self._source.config.num_experts):
            blocks = self._staging.to_device(self._source.read(f"{name}.blocks", (expert,)))
            scales = self._staging.to_device(self._source.read(f"{name}.scales", (expert,)))
            damaged |= (scales == SCALE_NAN).any()
            pack_expert(packed, expert, blocks, scales, interleaved_rows="mlp1" in name)
            self.on_bytes(packed.words[expert].nbytes + packed.scales[expert].nbytes)
        if damaged:
            raise CheckpointError(
                f"{name}.scales holds the byte {SCALE_NAN}, which is not a number; download the checkpoint again"
            )
        return packed

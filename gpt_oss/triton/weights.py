"""From a checkpoint to the card: what the kernels read, tensor by tensor.

In: a `Checkpoint`. Out: `ModelWeights` on the device. Each tensor goes memory map → pinned buffer → card and is put
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
from gpt_oss.triton.layout import PackedExperts, empty_packed, pack_expert

logger = logging.getLogger(__name__)

# Kernels, the allocator's slack, activations of a chunk: measured sizes belong into benchmarks/results.
WORKSPACE_BYTES = 1 << 30


class TensorSource(Protocol):
    """What is needed of a checkpoint; `gpt_oss.checkpoint.Checkpoint` is one, random weights are another."""

    @property
    def config(self) -> ModelConfig: ...

    def read(self, name: str, index: int | slice | tuple[int | slice, ...] = ()) -> np.ndarray: ...


@dataclass(frozen=True)
class LayerWeights:
    """One layer. Dense tensors are in the activation type; router is [hidden, experts padded], see linear.py."""

    attention_norm: torch.Tensor  # [hidden]
    qkv: torch.Tensor  # [(q + 2·kv heads)·head, hidden]
    qkv_bias: torch.Tensor
    sinks: torch.Tensor  # [q heads]
    out: torch.Tensor  # [hidden, q heads · head]
    out_bias: torch.Tensor
    mlp_norm: torch.Tensor
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
    norm: torch.Tensor
    unembedding: torch.Tensor  # [vocab, hidden]


def padded_experts(experts: int) -> int:
    """Columns of the router matrix: a power of two that the matrix units take."""
    return max(16, triton.next_power_of_2(experts))


def weight_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of `ModelWeights` on the card."""
    width = dtype.itemsize
    hidden, inter, experts = config.hidden_size, config.intermediate_size, config.num_experts
    dense = config.qkv_rows * (hidden + 1) + hidden * (config.num_attention_heads * config.head_dim + 3)
    dense += hidden * padded_experts(experts) + experts * (2 * inter + hidden + 1) + config.num_attention_heads
    packed = experts * (_packed_bytes(2 * inter, hidden) + _packed_bytes(hidden, inter))
    return config.num_hidden_layers * (dense * width + packed) + (2 * config.vocab_size + 1) * hidden * width


def _packed_bytes(rows: int, k: int) -> int:
    return -(-rows // 16) * -(-k // 64) * (512 + 32)


def load_weights(source: TensorSource, device: torch.device, dtype: torch.dtype, progress: bool = True) -> ModelWeights:
    """Read all tensors of a checkpoint. Raises `OutOfMemory` or `CheckpointError`; nothing stays allocated then."""
    config = source.config
    _check_fits(config, device, dtype)
    if f"{_layer(0)}.mlp.mlp1_weight" in getattr(source, "names", ()):
        raise CheckpointError(
            "the experts of this checkpoint are stored in BF16, the triton backend reads MXFP4; use --backend torch"
        )
    loader = _Loader(source, device, dtype)
    with tqdm(
        total=weight_bytes(config, dtype), unit="B", unit_scale=True, desc="Loading", disable=not progress
    ) as bar:
        loader.on_bytes = bar.update
        return ModelWeights(
            embedding=loader.dense("embedding.weight"),
            layers=[loader.layer(number) for number in range(config.num_hidden_layers)],
            norm=loader.dense("norm.scale"),
            unembedding=loader.dense("unembedding.weight"),
        )


def _layer(number: int) -> str:
    return f"block.{number}"


def _check_fits(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
    if device.type != "cuda":
        return
    needed, free = weight_bytes(config, dtype) + WORKSPACE_BYTES, torch.cuda.mem_get_info(device)[0]
    if needed > free:
        raise OutOfMemory(
            f"the weights need {needed:,} bytes with workspace and {device} has {free:,} free; "
            "close other programs on the card, use a larger one, or choose --backend torch on several"
        )


class _Loader:
    """Copies through one pinned buffer that grows to the largest piece."""

    def __init__(self, source: TensorSource, device: torch.device, dtype: torch.dtype):
        self._source, self._device, self._dtype = source, device, dtype
        self._pinned = torch.empty(0, dtype=torch.uint8)
        self.on_bytes: Callable[[int], object] = lambda count: None

    def dense(self, name: str) -> torch.Tensor:
        tensor = self._to_device(self._source.read(name)).to(self._dtype)
        self.on_bytes(tensor.nbytes)
        return tensor

    def layer(self, number: int) -> LayerWeights:
        config, prefix = self._source.config, _layer(number)
        router = self.dense(f"{prefix}.mlp.gate.weight")  # [experts, hidden]
        padding = padded_experts(config.num_experts) - config.num_experts
        return LayerWeights(
            attention_norm=self.dense(f"{prefix}.attn.norm.scale"),
            qkv=self.dense(f"{prefix}.attn.qkv.weight"),
            qkv_bias=self.dense(f"{prefix}.attn.qkv.bias"),
            sinks=self.dense(f"{prefix}.attn.sinks"),
            out=self.dense(f"{prefix}.attn.out.weight"),
            out_bias=self.dense(f"{prefix}.attn.out.bias"),
            mlp_norm=self.dense(f"{prefix}.mlp.norm.scale"),
            router=torch.nn.functional.pad(router.t(), (0, padding)).contiguous(),
            router_bias=self.dense(f"{prefix}.mlp.gate.bias"),
            mlp1=self._experts(f"{prefix}.mlp.mlp1_weight", 2 * config.intermediate_size, config.hidden_size),
            mlp1_bias=self.dense(f"{prefix}.mlp.mlp1_bias"),
            mlp2=self._experts(f"{prefix}.mlp.mlp2_weight", config.hidden_size, config.intermediate_size),
            mlp2_bias=self.dense(f"{prefix}.mlp.mlp2_bias"),
        )

    def _experts(self, name: str, rows: int, k: int) -> PackedExperts:
        packed = empty_packed(self._source.config.num_experts, rows, k, self._device)
        for expert in range(self._source.config.num_experts):
            blocks = self._to_device(self._source.read(f"{name}.blocks", (expert,)))
            scales = self._to_device(self._source.read(f"{name}.scales", (expert,)))
            pack_expert(packed, expert, blocks, scales, interleaved_rows="mlp1" in name)
            self.on_bytes(packed.words[expert].nbytes + packed.scales[expert].nbytes)
        return packed

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        """A private copy; uint16 is how checkpoints hand out BF16."""
        if self._device.type != "cuda":
            return _as_tensor(array.copy())
        if array.nbytes > self._pinned.nbytes:
            self._pinned = torch.empty(array.nbytes, dtype=torch.uint8, pin_memory=True)
        staged = self._pinned[: array.nbytes].numpy().view(array.dtype).reshape(array.shape)
        np.copyto(staged, array)
        # Blocking: the buffer is written again for the next piece, and reading the file is what takes the time.
        return _as_tensor(staged).to(self._device)


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)

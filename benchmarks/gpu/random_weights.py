"""Weights of true shapes made on the device itself: never in BF16 on the way, never on disk.

MXFP4 words are uniform bits, scale bytes uniform in 117…122 (a standard deviation of about 0.04), dense tensors
N(0, 0.02), gains 1, sinks N(0, 1), biases N(0, 0.01): spec/performance.md 8.1. On device "meta" only shapes come out.
`HostWeights` are for loading: a checkpoint of true shapes without its gigabytes.
"""

import numpy as np
import torch

from gpt_oss.checkpoint_layout import checkpoint_specs
from gpt_oss.config import ModelConfig
from gpt_oss.triton.layout import PackedExperts, empty_packed
from gpt_oss.triton.weights import LayerWeights, ModelWeights, padded_experts

MODELS = {
    "20b": ModelConfig(num_hidden_layers=24, num_experts=32),
    "120b": ModelConfig(num_hidden_layers=36, num_experts=128),
}


class HostWeights:
    """A `gpt_oss.triton.weights.TensorSource` that hands out the same random matrix for every tensor of its size.

    Experts repeat one another too, so two gigabytes stand for any model; all that is missing is the disk.
    """

    def __init__(self, config: ModelConfig, seed: int = 0):
        self.config = config
        self._specs = checkpoint_specs(config)
        self._random = np.random.default_rng(seed)
        self._matrices: dict[tuple[tuple[int, ...], str], np.ndarray] = {}

    def draw(self) -> None:
        """Make all matrices now, so that reading costs what it would from the page cache."""
        for name in self._specs:
            self.read(name)

    def read(self, name: str, index: int | slice | tuple[int | slice, ...] = ()) -> np.ndarray:
        """As `gpt_oss.checkpoint.Checkpoint.read`: BF16 as uint16."""
        shape = self._specs[name].shape
        kind = name.rsplit(".", 1)[1] if name.endswith((".blocks", ".scales")) else "dense"
        own = shape if kind == "dense" else shape[1:]
        if (own, kind) not in self._matrices:
            self._matrices[own, kind] = self._draw(own, kind)
        return np.broadcast_to(self._matrices[own, kind], shape)[index]

    def _draw(self, shape: tuple[int, ...], kind: str) -> np.ndarray:
        if kind == "blocks":
            return self._random.integers(0, 256, shape, dtype=np.uint8)
        if kind == "scales":
            return self._random.integers(117, 123, shape, dtype=np.uint8)
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        return (values.view(np.uint32) >> 16).astype(np.uint16)


class RandomWeights:
    """Draws tensors on one device from one seed; dense ones are of `dtype`."""

    def __init__(
        self, config: ModelConfig, device: torch.device | str, seed: int = 0, dtype: torch.dtype = torch.bfloat16
    ):
        self._config, self._device, self._dtype = config, torch.device(device), dtype
        self._generator = None
        if self._device.type != "meta":
            self._generator = torch.Generator(self._device).manual_seed(seed)

    def model(self) -> ModelWeights:
        """All layers and both ends."""
        config = self._config
        return ModelWeights(
            embedding=self._normal(config.vocab_size, config.hidden_size, deviation=1.0),
            layers=[self.layer() for _ in range(config.num_hidden_layers)],
            norm=self._ones(config.hidden_size),
            unembedding=self._normal(config.vocab_size, config.hidden_size),
        )

    def layer(self) -> LayerWeights:
        """One layer."""
        config = self._config
        hidden, inter, experts = config.hidden_size, config.intermediate_size, config.num_experts
        return LayerWeights(
            attention_norm=self._ones(hidden),
            qkv=self._normal(config.qkv_rows, hidden),
            qkv_bias=self._normal(config.qkv_rows, deviation=0.01),
            sinks=self._normal(config.num_attention_heads, deviation=1.0),
            out=self._normal(hidden, config.num_attention_heads * config.head_dim),
            out_bias=self._normal(hidden, deviation=0.01),
            mlp_norm=self._ones(hidden),
            router=self._normal(hidden, padded_experts(experts)),
            router_bias=self._normal(experts, deviation=0.01),
            mlp1=self._experts(experts, 2 * inter, hidden),
            mlp1_bias=self._normal(experts, 2 * inter, deviation=0.01),
            mlp2=self._experts(experts, hidden, inter),
            mlp2_bias=self._normal(experts, hidden, deviation=0.01),
        )

    def _experts(self, experts: int, rows: int, k: int) -> PackedExperts:
        packed = empty_packed(experts, rows, k, self._device)
        packed.words.random_(-(2**31), 2**31 - 1, generator=self._generator)
        packed.scales.random_(117, 123, generator=self._generator)
        return packed

    def _normal(self, *shape: int, deviation: float = 0.02) -> torch.Tensor:
        tensor = torch.empty(shape, dtype=self._dtype, device=self._device)
        return tensor.normal_(0, deviation, generator=self._generator)

    def _ones(self, *shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.float32, device=self._device)

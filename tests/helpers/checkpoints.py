"""Tiny random checkpoints for tests, and reading BF16.

`tiny_config` has what the released models hide: unequal head groups (16 query to 4 key-value heads), odd
numbers of layers and experts, hidden and intermediate sizes that differ. `random_tensors` fills every bit
pattern, NaN included, so that a test of reading and writing sees any change of a single bit;
`gpt_oss.synthetic` makes weights that can be computed with.
"""

from pathlib import Path
from typing import Any

import numpy as np

from gpt_oss.checkpoint_layout import checkpoint_specs
from gpt_oss.checkpoint_writer import write_checkpoint
from gpt_oss.config import ModelConfig
from gpt_oss.synthetic import SyntheticTensors, write_synthetic
from gpt_oss.tokenizer import NUM_TEXT_TOKENS


def tiny_config(**changes: Any) -> ModelConfig:
    """A small model of the real architecture; keyword arguments replace its numbers."""
    numbers: dict[str, Any] = {
        "num_hidden_layers": 3,
        "num_experts": 6,
        "experts_per_token": 4,
        "vocab_size": 211,
        "hidden_size": 96,
        "intermediate_size": 160,
        "head_dim": 64,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    }
    return ModelConfig(**(numbers | changes))


def tiny_checkpoint(directory: Path, config: ModelConfig | None = None, **options: Any) -> Path:
    """Write a random checkpoint with weights of sane size; options are those of `write_synthetic`."""
    return write_synthetic(directory, config or tiny_config(), **options)


def endless_checkpoint(directory: Path, config: ModelConfig) -> Path:
    """A random checkpoint over the real vocabulary that, asked greedily, never ends its answer.

    Control tokens have the logit 0, and the largest of 200,000 random ones is above it.
    """
    return write_checkpoint(directory, config, _EndlessTensors(config))


class _EndlessTensors(SyntheticTensors):
    def __getitem__(self, name: str) -> np.ndarray:
        tensor = super().__getitem__(name)
        if name == "unembedding.weight":
            tensor[NUM_TEXT_TOKENS:] = 0
        return tensor


def random_tensors(config: ModelConfig, random: np.random.Generator, quantized: bool = True) -> dict[str, np.ndarray]:
    """Uniformly random bits for every tensor of a checkpoint: uint8 packed, uint16 for BF16."""
    tensors = {}
    for name, spec in checkpoint_specs(config, quantized).items():
        dtype = np.uint8 if spec.dtypes[0] == "U8" else np.uint16
        tensors[name] = random.integers(0, np.iinfo(dtype).max, spec.shape, dtype, endpoint=True)
    return tensors


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    """BF16 bit patterns (uint16) to float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)

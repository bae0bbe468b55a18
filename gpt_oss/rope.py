"""Rotary position embedding with YaRN scaling: the single source of truth for all backends.

In: a `ModelConfig`. Out: NumPy arrays (inverse frequencies, or the cos/sin table of the first n positions).
The trap: the bounds of YaRN's ramp are fractional for these models (8.0928 and 17.398) and must not be rounded.
Source: "NTK by parts", YaRN, arXiv:2309.00071 section 3.2; spec/model.md, forward pass, step 2.
"""

import math
from typing import NamedTuple

import numpy as np

from gpt_oss.config import ModelConfig


class Yarn(NamedTuple):
    """What YaRN derives from a config; `low` and `high` are in units of rotary pairs."""

    inverse_frequency: np.ndarray  # [head_dim / 2] float32, radians per position
    concentration: float  # factor on cos and sin
    low: float
    high: float


def yarn(config: ModelConfig) -> Yarn:
    """Inverse frequencies between interpolation (slow pairs) and extrapolation (fast pairs)."""
    pairs = config.head_dim // 2
    # float32 from here on, in the order the released models were trained with.
    frequency = np.float32(config.rope_theta) ** (np.arange(pairs, dtype=np.float32) * 2 / config.head_dim)
    frequency = frequency.astype(np.float32)
    low, high = (_pair_with_rotations(config, turns) for turns in (config.rope_ntk_beta, config.rope_ntk_alpha))
    # Only for contexts far shorter than the released models' do these bounds matter; they are those of transformers.
    low, high = max(low, 0.0), min(high, config.head_dim - 1.0)
    if config.rope_scaling_factor == 1:
        return Yarn(1 / frequency, 1.0, low, high)
    ramp = np.clip((np.arange(pairs, dtype=np.float32) - low) / (high - low), 0, 1).astype(np.float32)
    factor = np.float32(config.rope_scaling_factor)
    inverse_frequency = (1 / frequency) * (1 - ramp) + (1 / (factor * frequency)) * ramp
    concentration = 0.1 * math.log(config.rope_scaling_factor) + 1
    return Yarn(inverse_frequency.astype(np.float32), concentration, low, high)


def cos_sin(config: ModelConfig, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin, each [positions, head_dim / 2] float32, already times the concentration."""
    if positions > config.context_length:
        raise ValueError(f"{positions} positions exceed the model's context of {config.context_length}")
    inverse_frequency, concentration, _, _ = yarn(config)
    angle = np.arange(positions, dtype=np.float32)[:, None] * inverse_frequency[None, :]
    scale = np.float32(concentration)
    return np.cos(angle) * scale, np.sin(angle) * scale


def _pair_with_rotations(config: ModelConfig, turns: float) -> float:
    """The (fractional) pair index that turns `turns` times within the initial context."""
    wavelength_ratio = config.initial_context_length / (turns * 2 * math.pi)
    return config.head_dim / 2 * math.log(wavelength_ratio) / math.log(config.rope_theta)

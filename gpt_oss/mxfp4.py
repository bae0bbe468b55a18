"""MXFP4, the 4-bit block format of the expert weights (OCP Microscaling Formats v1.0, sections 5.2 and 5.3.3).

32 consecutive values along the last axis share one scale byte: value = FP4_VALUES[code] * 2^(scale - 127).
Two codes lie in a byte, the low nibble first. Everything here is NumPy and exact; the backends take the
tables from here and decode on their own devices.
"""

import numpy as np

BLOCK = 32
SCALE_BIAS = 127
SCALE_NAN = 255
FP4_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)

# Row b holds the two values of byte b, in memory order: one look-up decodes two weights.
PAIR_VALUES = FP4_VALUES[np.stack([np.arange(256) & 15, np.arange(256) >> 4], axis=-1)]

_LARGEST_EXPONENT = 2  # of the largest FP4 value, 6 = 1.5 * 2^2


def scale_values(scales: np.ndarray) -> np.ndarray:
    """Scale bytes (E8M0) to float32, 2^(byte - 127); byte 255 is NaN and byte 0 a float32 subnormal."""
    values = np.ldexp(np.float32(1), np.minimum(scales.astype(np.int32), SCALE_NAN - 1) - SCALE_BIAS)
    return np.where(scales == SCALE_NAN, np.float32(np.nan), values)


def decode(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Exact values, float32.

    blocks: uint8 [..., n, 16]; scales: uint8 [..., n]. Returns [..., n * 32].
    Scale bytes of 253 and 254 can exceed float32's range and then give infinity, as IEEE says.
    """
    pairs = PAIR_VALUES[blocks].reshape(*scales.shape, BLOCK)
    with np.errstate(over="ignore"):
        values = pairs * scale_values(scales)[..., None]
    return values.reshape(*scales.shape[:-1], scales.shape[-1] * BLOCK)


def encode(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest MXFP4 blocks for float values [..., k], k a multiple of 32; returns blocks and scales for `decode`.

    The scale is 2^(floor(log2(max|v|)) - 2), as OCP section 6.3 prescribes; values beyond 6 scales saturate and
    ties go to the even code. Values that `decode` can produce come back unchanged in value. Non-finite input is
    a ValueError: a block with it has no scale.
    """
    values = np.asarray(values, dtype=np.float32)
    last = values.shape[-1] if values.ndim else 1  # a single number is no block either
    if last % BLOCK:
        raise ValueError(f"the last axis must be a multiple of {BLOCK}, found {last}")
    if not np.isfinite(values).all():
        raise ValueError("MXFP4 cannot encode infinite or NaN values")
    grouped = values.reshape(*values.shape[:-1], values.shape[-1] // BLOCK, BLOCK).astype(np.float64)
    largest = np.abs(grouped).max(axis=-1)
    # frexp gives m in [0.5, 1), so its exponent is floor(log2) + 1; an all-zero block takes the smallest scale.
    exponent = np.where(largest > 0, np.frexp(largest)[1] - 1 - _LARGEST_EXPONENT, -SCALE_BIAS)
    exponent = np.clip(exponent, -SCALE_BIAS, SCALE_NAN - 1 - SCALE_BIAS)
    codes = _nearest_code(np.ldexp(np.abs(grouped), -exponent[..., None]))
    codes |= np.signbit(grouped).astype(np.uint8) << 3
    blocks = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return blocks, (exponent + SCALE_BIAS).astype(np.uint8)


def _nearest_code(magnitude: np.ndarray) -> np.ndarray:
    """Index of the nearest value in FP4_VALUES[:8]; a tie goes to the even index, whose mantissa bit is 0."""
    midpoints = (FP4_VALUES[1:8].astype(np.float64) + FP4_VALUES[0:7]) / 2
    above = np.searchsorted(midpoints, magnitude, side="left")
    tie_to_upper = (above < 7) & (midpoints[np.minimum(above, 6)] == magnitude) & (above % 2 == 1)
    return (above + tie_to_upper).astype(np.uint8)

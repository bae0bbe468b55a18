"""MXFP4 against the definition, in exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from gpt_oss import mxfp4

MAGNITUDES = [
    Fraction(0),
    Fraction(1, 2),
    Fraction(1),
    Fraction(3, 2),
    Fraction(2),
    Fraction(3),
    Fraction(4),
    Fraction(6),
]
FLOAT32_MAX = Fraction(np.finfo(np.float32).max.item())


def test_all_codes_times_all_scales_are_exact():
    blocks = np.tile(np.arange(16, dtype=np.uint8) * 17, (256, 1))[:, None, :]  # both nibbles of byte c hold code c
    values = mxfp4.decode(blocks, np.arange(256, dtype=np.uint8)[:, None])
    assert values.dtype == np.float32
    for scale in range(255):
        for code in range(16):
            exact = MAGNITUDES[code % 8] * Fraction(2) ** (scale - 127) * (-1 if code >= 8 else 1)
            for value in values[scale, 2 * code : 2 * code + 2]:
                assert np.signbit(value) == (code >= 8), "-0 keeps its sign"
                assert np.isinf(value) if abs(exact) > FLOAT32_MAX else Fraction(value.item()) == exact
    assert np.isnan(values[255]).all()


def test_the_low_nibble_comes_first():
    blocks = np.zeros((1, 16), np.uint8)
    blocks[0, 3] = 0x72  # code 2 (1.0), then code 7 (6.0)
    assert mxfp4.decode(blocks, np.array([127], np.uint8))[6:8].tolist() == [1.0, 6.0]


def test_whatever_decodes_is_encoded_to_the_same_value():
    random = np.random.default_rng()
    blocks = random.integers(0, 256, (5, 7, 3, 16), np.uint8, endpoint=False)
    scales = random.integers(2, 250, (5, 7, 3), np.uint8)
    values = mxfp4.decode(blocks, scales)
    np.testing.assert_array_equal(mxfp4.decode(*mxfp4.encode(values)), values)


def test_encoding_takes_the_nearest_value_and_the_even_code_at_ties():
    values = np.zeros(32, np.float32)
    values[:13] = [6, 0.24, 0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 5.1, -0.75, -4.9]
    decoded = mxfp4.decode(*mxfp4.encode(values))
    assert decoded[:13].tolist() == [6, 0, 0, 0.5, 1, 1, 2, 2, 4, 4, 6, -1, -4]


def test_the_error_is_at_most_half_a_step():
    values = np.random.default_rng().normal(0, 3, (50, 64)).astype(np.float32)
    decoded = mxfp4.decode(*mxfp4.encode(values))
    largest = np.abs(values.reshape(50, 2, 32)).max(-1)
    unit = 2.0 ** (np.floor(np.log2(largest)) - 2)
    error = np.abs(decoded - values).reshape(50, 2, 32) / unit[..., None]
    size = np.abs(values).reshape(50, 2, 32) / unit[..., None]
    bound = np.select([size < 2, size < 4, size <= 6], [0.25, 0.5, 1.0], default=2.0)  # beyond 6 it saturates
    assert (error <= bound + 1e-6).all()


@pytest.mark.parametrize("value", [2.0**-140, 2.0**-126, 3.0e38, 0.0])
def test_extreme_blocks(value):
    block = np.full(32, value, np.float32)
    blocks, scales = mxfp4.encode(block)
    assert scales.dtype == np.uint8 and scales[0] != 255
    # Beyond 6 * 2^125 a block saturates within a quarter; below 2^-128 it is rounded to the format's grid.
    np.testing.assert_allclose(mxfp4.decode(blocks, scales), block, rtol=0.25, atol=2.0**-129)


def test_input_that_has_no_code_is_refused():
    with pytest.raises(ValueError, match="multiple of 32, found 33"):
        mxfp4.encode(np.zeros(33))
    with pytest.raises(ValueError, match="multiple of 32, found 1"):
        mxfp4.encode(np.float32(2))
    for bad in (np.inf, np.nan):
        with pytest.raises(ValueError, match="infinite or NaN"):
            mxfp4.encode(np.full(32, bad))


@pytest.mark.parametrize("shape", [(0, 32), (3, 0), (0,)])
def test_empty_tensors_stay_empty(shape):
    blocks, scales = mxfp4.encode(np.zeros(shape))
    assert scales.shape == (*shape[:-1], shape[-1] // 32) and blocks.shape == (*scales.shape, 16)
    assert mxfp4.decode(blocks, scales).shape == shape

"""YaRN against the published numbers and an fp64 restatement."""

import math

import numpy as np
import pytest

from gpt_oss.config import ModelConfig
from gpt_oss.rope import cos_sin, yarn


def test_the_bounds_of_the_released_models_are_fractional():
    result = yarn(ModelConfig())
    assert result.low == pytest.approx(8.0928, abs=1e-4)
    assert result.high == pytest.approx(17.398, abs=1e-3)
    assert result.concentration == pytest.approx(1.34657, abs=1e-5)


def test_fast_pairs_extrapolate_and_slow_pairs_interpolate():
    frequency = 150000.0 ** (-np.arange(32) / 32)
    ratio = yarn(ModelConfig()).inverse_frequency / frequency
    np.testing.assert_allclose(ratio[:9], 1, rtol=1e-6)
    np.testing.assert_allclose(ratio[18:], 1 / 32, rtol=1e-6)
    assert (np.diff(ratio[8:19]) < 0).all()


@pytest.mark.parametrize("theta", [10.0, 150_000.0])
@pytest.mark.parametrize("context", [4, 128, 4096, 1 << 19])
def test_the_frequencies_equal_transformers(context, theta):
    """Also where a bound of the ramp lies outside the head."""
    from transformers import GptOssConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theirs = GptOssConfig()
    theirs.rope_parameters |= {"original_max_position_embeddings": context, "rope_theta": theta}
    theirs, scaling = ROPE_INIT_FUNCTIONS["yarn"](theirs, "cpu")
    ours = yarn(ModelConfig(initial_context_length=context, rope_theta=theta))
    np.testing.assert_allclose(ours.inverse_frequency, theirs.numpy(), rtol=3e-7)
    assert ours.concentration == pytest.approx(scaling, rel=1e-6)


def test_the_table_is_fp32_and_right_at_every_distance():
    config = ModelConfig()
    cos, sin = cos_sin(config, 131072)
    inverse_frequency = yarn(config).inverse_frequency
    assert cos.dtype == sin.dtype == np.float32 and cos.shape == (131072, 32)
    for position in (0, 1, 127, 4096, 131071):
        # An fp32 angle is off by half a unit in its last place, and so is what is computed from it.
        angle = np.float64(np.float32(position) * inverse_frequency)
        np.testing.assert_allclose(cos[position], np.cos(angle) * (0.1 * math.log(32) + 1), atol=1e-6)
        np.testing.assert_allclose(sin[position], np.sin(angle) * (0.1 * math.log(32) + 1), atol=1e-6)


def test_no_scaling_is_plain_rope():
    result = yarn(ModelConfig(rope_scaling_factor=1.0))
    np.testing.assert_allclose(result.inverse_frequency, 150000.0 ** (-np.arange(32) / 32), rtol=1e-6)
    assert result.concentration == 1


def test_positions_beyond_the_context_are_an_error():
    with pytest.raises(ValueError, match="131073 positions exceed the model's context of 131072"):
        cos_sin(ModelConfig(), 131073)

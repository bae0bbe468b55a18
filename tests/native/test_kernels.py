"""The native kernels against fp64 NumPy: every instruction set of this machine, a build with address and
undefined-behaviour sanitizers, and NEON in an emulator where one is installed (apt: qemu-user gcc-aarch64-linux-gnu).
"""

import shutil

import numpy as np
import pytest

from gpt_oss import mxfp4, native
from gpt_oss.errors import GenerationError
from tests.helpers.checkpoints import bfloat16_values
from tests.native.remote import ISAS, RemoteLibrary, build

# An fp32 sum may be rounded one BF16 step away from the fp64 one: 2^-7 of the largest output, and as much again for
# activations that were. The error is zero as a rule; with 10,000 random layers it came to 1.0 steps.
TWO_STEPS = 2.0**-6

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    return RemoteLibrary([str(build(tmp_path_factory.mktemp("sanitized"), "gcc", *SANITIZERS))])


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    missing = [program for program in ("aarch64-linux-gnu-gcc", "qemu-aarch64") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: apt install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    program = build(tmp_path_factory.mktemp("emulated"), "aarch64-linux-gnu-gcc")
    return RemoteLibrary(["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(program)])


HERE = [f"{isa}" for isa in ISAS]
ELSEWHERE = [f"sanitized {isa}" for isa in ISAS] + ["emulated neon", "emulated portable"]


@pytest.fixture(params=HERE + ELSEWHERE)
def library(request):
    where, _, isa = request.param.rpartition(" ")
    library = request.getfixturevalue(where) if where else native.load()
    if library is None:
        pytest.skip("the native library is not built (make native)")
    best = library.isa
    if not library.select(isa):
        pytest.skip(f"this processor has no {isa}, or it is not compiled in")
    yield library
    library.select(best)


def bf16(values):
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def unaligned(array):
    """A copy that starts at an odd address, as tensors of a checkpoint may."""
    raw = np.empty(array.nbytes + 1, np.uint8)
    raw[1:] = array.reshape(-1).view(np.uint8)
    return raw[1:].view(array.dtype).reshape(array.shape) if array.dtype == np.uint8 else array


def random_layer(random, experts, hidden, inter, limit=7.0):
    def packed(rows, k):
        blocks = random.integers(0, 256, (experts, rows, k // 32, 16), np.uint8)
        return unaligned(blocks), unaligned(random.integers(115, 124, (experts, rows, k // 32), np.uint8))

    mlp1, mlp2 = packed(2 * inter, hidden), packed(hidden, inter)
    bias1, bias2 = bf16(random.normal(0, 0.5, (experts, 2 * inter))), bf16(random.normal(0, 0.5, (experts, hidden)))
    return native.ExpertLayer(*mlp1, bias1, *mlp2, bias2, limit)


def expected_mixture(layer, x, chosen, weights):
    """fp64, rounded to BF16 where a BF16 model rounds."""

    def rounded(values):
        return bfloat16_values(bf16(values)).astype(np.float64)

    w1 = mxfp4.decode(layer.mlp1_blocks, layer.mlp1_scales).astype(np.float64)
    w2 = mxfp4.decode(layer.mlp2_blocks, layer.mlp2_scales).astype(np.float64)
    out = np.zeros(x.shape)
    for t, (experts, shares) in enumerate(zip(chosen, weights, strict=True)):
        for expert, share in zip(experts, shares, strict=True):
            h = rounded(w1[expert] @ x[t] + bfloat16_values(layer.mlp1_bias[expert]))
            gate, linear = (
                np.minimum(h[0::2], layer.swiglu_limit),
                np.clip(h[1::2], -layer.swiglu_limit, layer.swiglu_limit),
            )
            act = rounded(gate / (1 + np.exp(-1.702 * gate)) * (linear + 1))
            out[t] += share * rounded(w2[expert] @ act + bfloat16_values(layer.mlp2_bias[expert]))
    return out


def run_experts(library, layer, x, chosen, weights, threads):
    out = np.full((x.shape[0], x.shape[1]), np.nan, np.float32)
    described = library.describe(layer)
    library.experts(
        described,
        len(x),
        chosen.shape[1],
        x.ctypes.data,
        chosen.ctypes.data,
        weights.ctypes.data,
        out.ctypes.data,
        threads,
    )
    return out


SHAPES = [
    (6, 96, 160, 1, 4),
    (6, 96, 160, 7, 3),
    (3, 64, 32, 9, 1),
    (5, 32, 224, 64, 5),
    (2, 2880, 96, 5, 2),
    (2, 64, 32, 140, 2),
    (2, 96, 64, 20, 2),
    (2, 352, 416, 23, 2),
    (2, 64, 32, 300, 2),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "e{} h{} i{} n{} k{}".format(*shape))
def test_experts(library, shape):
    experts, hidden, inter, tokens, k = shape
    random = np.random.default_rng()
    layer = random_layer(random, experts, hidden, inter, limit=random.choice([7.0, 0.5]))
    x = bf16(random.normal(size=(tokens, hidden)))
    chosen = np.stack([random.permutation(experts)[:k] for _ in range(tokens)]).astype(np.int64)
    weights = random.random((tokens, k)).astype(np.float32)
    results = [run_experts(library, layer, x, chosen, weights, threads) for threads in (1, 2, 3, 8)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    expected = expected_mixture(layer, bfloat16_values(x), chosen, weights)
    assert np.abs(results[0] - expected).max() < TWO_STEPS * np.abs(expected).max()


def test_decode_is_exact_for_all_codes_and_scales(library):
    pairs = np.random.default_rng().permuted(np.tile(np.arange(256, dtype=np.uint8), (256, 1)), axis=1)
    blocks, scales = pairs.reshape(256, 16, 16), np.repeat(np.arange(256, dtype=np.uint8)[:, None], 16, axis=1)
    out = np.zeros((256, 16 * 32), np.uint16)
    library.decode(blocks, scales, out.ctypes.data, 2)
    expected = mxfp4.decode(blocks, scales)
    np.testing.assert_array_equal(bfloat16_values(out)[:255].view(np.uint32), expected[:255].view(np.uint32))
    assert np.isnan(bfloat16_values(out[255])).all()


# A token takes the path for few tokens, 13 that for many.
@pytest.mark.parametrize("tokens", [1, 13])
@pytest.mark.parametrize("scale", [0, 1, 127, 240])
def test_products_are_right_at_both_ends_of_the_scales(library, scale, tokens):
    random = np.random.default_rng()
    layer = random_layer(random, 1, 64, 32)
    layer.mlp2_scales[:] = scale
    layer.mlp2_bias[:] = 0  # or it would hide the smallest products
    x = bf16(random.normal(size=(tokens, 64)))
    chosen, weights = np.zeros((tokens, 1), np.int64), np.ones((tokens, 1), np.float32)
    expected = expected_mixture(layer, bfloat16_values(x), chosen, weights)
    actual = run_experts(library, layer, x, chosen, weights, 1)
    assert np.abs(actual - expected).max() < TWO_STEPS * np.abs(expected).max()


@pytest.mark.parametrize("tokens", [2, 26])
def test_a_nan_scale_reaches_the_output(library, tokens):
    random = np.random.default_rng()
    layer = random_layer(random, 2, 160, 64)
    layer.mlp2_scales[0, 3, 1] = 255
    x, weights = bf16(random.normal(size=(tokens, 160))), np.ones((tokens, 1), np.float32)
    out = run_experts(library, layer, x, (np.arange(tokens) % 2)[:, None].astype(np.int64), weights, 2)
    assert np.isnan(out[::2, 3]).all() and np.isnan(out).sum() == tokens // 2


@pytest.mark.parametrize("tokens", [2, 26])
def test_a_nan_gate_or_token_reaches_its_own_output_only(library, tokens):
    random = np.random.default_rng()
    layer = random_layer(random, 2, 160, 64)
    layer.mlp1_scales[0, 6, 1] = 255  # the gate of hidden value 3
    x, weights = bf16(random.normal(size=(tokens, 160))), np.ones((tokens, 1), np.float32)
    x[1, 7] = 0x7FC0
    out = run_experts(library, layer, x, (np.arange(tokens) % 2)[:, None].astype(np.int64), weights, 2)
    assert np.isnan(out[::2]).all() and np.isnan(out[1]).all() and not np.isnan(out[3::2]).any()


def test_activations_are_right_at_both_ends_of_the_gate(library):
    random = np.random.default_rng()
    layer = random_layer(random, 1, 64, 256, limit=7.0)
    layer.mlp1_scales[:] = 0  # so that the biases alone are the activation's arguments
    gates = np.concatenate([-np.geomspace(1e-30, 1e38, 128), np.linspace(-110, 10, 128)])
    layer.mlp1_bias[0, 0::2], layer.mlp1_bias[0, 1::2] = bf16(gates), bf16(random.uniform(-9, 9, 256))
    x, chosen, weights = bf16(random.normal(size=(1, 64))), np.zeros((1, 1), np.int64), np.ones((1, 1), np.float32)
    with np.errstate(over="ignore"):
        expected = expected_mixture(layer, bfloat16_values(x), chosen, weights)
    actual = run_experts(library, layer, x, chosen, weights, 1)
    assert np.abs(actual - expected).max() < TWO_STEPS * np.abs(expected).max()


@pytest.mark.parametrize(
    ("rows", "k", "tokens"), [(1, 32, 1), (7, 96, 3), (333, 2880, 5), (64, 160, 64), (37, 352, 21), (20, 96, 300)]
)
def test_dense(library, rows, k, tokens):
    random = np.random.default_rng()
    w, bias, x = (
        bf16(random.normal(size=(rows, k))),
        bf16(random.normal(size=rows)),
        bf16(random.normal(size=(tokens, k))),
    )
    for offset in (bias, None):
        (actual, exact), (other, _) = (dense(library, w, x, offset, threads) for threads in (1, 3))
        np.testing.assert_array_equal(actual, other)
        assert (np.abs(actual - exact) <= 2.0**-8 * np.abs(exact) + 1e-4 * np.sqrt(k)).all()


@pytest.mark.parametrize("tokens", [1, 21])
def test_dense_as_it_was_summed(library, tokens):
    """Unrounded, and rounded afterwards exactly what the other function gives."""
    random = np.random.default_rng()
    w, x, bias = (bf16(random.normal(size=shape)) for shape in ((35, 320), (tokens, 320), 35))
    sums = np.full((tokens, 35), np.nan, np.float32)
    pointers = (w.ctypes.data, bias.ctypes.data, 35, 320, x.ctypes.data, tokens, sums.ctypes.data, 2)
    library.matmul_bf16(*pointers, rounded=False)
    rounded, exact = dense(library, w, x, bias)
    assert np.abs(sums - exact).max() < 1e-4
    np.testing.assert_array_equal(bfloat16_values(bf16(sums)), rounded)


def dense(library, w, x, bias=None, threads=2):
    """x Wᵀ + b as fp64 values of the BF16 result, and in fp64 from the same BF16 values."""
    rows, tokens, k = len(w), *x.shape
    y = np.full((tokens, rows), 0x7FC0, np.uint16)
    address = None if bias is None else bias.ctypes.data
    library.matmul_bf16(w.ctypes.data, address, rows, k, x.ctypes.data, tokens, y.ctypes.data, threads)
    exact = bfloat16_values(x).astype(np.float64) @ bfloat16_values(w).astype(np.float64).T
    return bfloat16_values(y).astype(np.float64), exact if bias is None else exact + bfloat16_values(bias)


@pytest.mark.parametrize("tokens", [3, 47])
def test_dense_keeps_small_values_beside_large_ones(library, tokens):
    """Sums are fp32: the error is the rounding of the result, and 2^-18 of the sum of the products' magnitudes."""
    random = np.random.default_rng()

    def of_all_sizes(shape):
        return bf16(random.normal(size=shape) * 2.0 ** random.integers(-12, 1, shape))

    w, x = of_all_sizes((35, 320)), of_all_sizes((tokens, 320))
    actual, exact = dense(library, w, x)
    magnitudes = np.abs(bfloat16_values(x)).astype(np.float64) @ np.abs(bfloat16_values(w)).astype(np.float64).T
    assert (np.abs(actual - exact) <= 2.0**-8 * np.abs(exact) + 2.0**-18 * magnitudes).all()


@pytest.mark.parametrize("tokens", [3, 47])
@pytest.mark.parametrize(("up", "down"), [(100, -100), (-100, 100), (-126, 60), (60, -130), (120, -1)])
def test_dense_at_both_ends_of_the_exponents(library, tokens, up, down):
    random = np.random.default_rng()
    w, x = bf16(random.uniform(1, 2, (20, 96)) * 2.0**up), bf16(random.uniform(1, 2, (tokens, 96)) * 2.0**down)
    actual, exact = dense(library, w, x)
    assert np.abs(actual / exact - 1).max() < 2.0**-7


@pytest.mark.parametrize("tokens", [3, 47])
@pytest.mark.parametrize("odd", [0x7FC0, 0x7F80, 0xFF80])
def test_dense_nan_and_infinity_reach_their_own_row_and_token_only(library, tokens, odd):
    random = np.random.default_rng()
    w, x = bf16(random.normal(size=(20, 96))), bf16(random.normal(size=(tokens, 96)))
    w[5, 40], x[2, 70] = odd, odd
    y, _ = dense(library, w, x)
    finite = np.isfinite(y)
    assert not finite[:, 5].any() and not finite[2].any()
    assert finite.sum() == (tokens - 1) * 19


def test_arguments_that_cannot_be_computed_are_refused(library):
    random = np.random.default_rng()
    layer = random_layer(random, 2, 64, 32)
    x, weights = bf16(random.normal(size=(1, 64))), np.ones((1, 1), np.float32)
    for expert in (-1, 2):
        with pytest.raises(GenerationError, match="an argument is not what the kernel can compute"):
            run_experts(library, layer, x, np.array([[expert]], np.int64), weights, 1)
    with pytest.raises(GenerationError):
        library.matmul_bf16(x.ctypes.data, None, 1, 33, x.ctypes.data, 1, x.ctypes.data, 1)
    with pytest.raises(ValueError, match="mlp1_blocks must be contiguous"):
        library.describe(native.ExpertLayer(layer.mlp1_blocks[:, ::2], *list(layer.__dict__.values())[1:]))


def test_an_unknown_instruction_set_changes_nothing(library):
    before = library.isa
    assert not library.select("mmx")
    assert library.isa == before

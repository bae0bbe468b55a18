"""Every kernel of gpt_oss/metal against NumPy in float64: odd shapes, buffers that start as NaN."""

import ctypes

import numpy as np
import pytest

from tests.metal.emulated import ARGS, Buffer, Device, DeviceError, ExpertsLayout, Slice, from_bf16, to_bf16

HEAD = 64


def assert_close(actual: np.ndarray, expected: np.ndarray, scale: float | None = None) -> None:
    """Equal but for fp32 rounding: 2e-5 of the largest magnitude covers sums of 2880 products in any order."""
    assert actual.shape == expected.shape
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    largest = scale or max(1.0, float(np.nanmax(np.abs(expected))))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * largest)


def bf16(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Random bf16 bit patterns and their values in float64."""
    bits = to_bf16(rng.standard_normal(shape))
    return bits, from_bf16(bits).astype(np.float64)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


@pytest.mark.parametrize(("tokens", "hidden"), [(1, 32), (5, 37), (3, 300)])
def test_embedding(device: Device, rng: np.random.Generator, tokens: int, hidden: int) -> None:
    bits, table = bf16(rng, 11, hidden)
    ids = rng.integers(0, 11, tokens, dtype=np.uint32)
    output = device.empty((tokens, hidden))
    with device.commands() as commands:
        args = ARGS["embedding"](tokens, hidden, 11)
        commands.launch("launch_embedding", args, device.put(ids).at(), device.put(bits).at(), output.at())
    assert np.array_equal(output.array, table[ids].astype(np.float32))


def test_a_token_without_a_row_gives_nan(plain_device: Device) -> None:
    table, output = plain_device.put(np.zeros((7, 40), np.uint16)), plain_device.empty((2, 40))
    with plain_device.commands() as commands:
        ids = plain_device.put(np.array([7, 6], np.uint32))
        commands.launch("launch_embedding", ARGS["embedding"](2, 40, 7), ids.at(), table.at(), output.at())
    assert np.isnan(output.array[0]).all()
    assert not output.array[1].any()


@pytest.mark.parametrize(("rows", "hidden"), [(1, 32), (3, 37), (2, 2880), (70, 5)])
def test_rmsnorm(device: Device, rng: np.random.Generator, rows: int, hidden: int) -> None:
    x = normal(rng, rows, hidden)
    bits, gain = bf16(rng, hidden)
    output = device.empty((rows, hidden))
    with device.commands() as commands:
        args = ARGS["rmsnorm"](rows, hidden, 1e-5)
        commands.launch("launch_rmsnorm", args, device.put(x).at(), device.put(bits).at(), output.at())
    x = x.astype(np.float64)
    assert_close(output.array, x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain)


@pytest.mark.parametrize("launcher", ["launch_dense_few", "launch_dense_many", "launch_dense"])
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), [(1, 4, 1), (3, 36, 5), (33, 100, 67), (2, 576, 33)])
@pytest.mark.parametrize(("has_bias", "add"), [(0, 0), (1, 1)])
def test_dense(
    device: Device,
    rng: np.random.Generator,
    launcher: str,
    tokens: int,
    inputs: int,
    outputs: int,
    has_bias: int,
    add: int,
) -> None:
    x, before = normal(rng, tokens, inputs), normal(rng, tokens, outputs)
    weight_bits, weight = bf16(rng, outputs, inputs)
    bias_bits, bias = bf16(rng, outputs)
    output = device.put(before)
    slices = [device.put(x).at(), device.put(weight_bits).at()]
    slices.append(device.put(bias_bits).at() if has_bias else Slice(None, 0))
    with device.commands() as commands:
        args = ARGS["dense"](tokens, inputs, outputs, has_bias, add)
        commands.launch(launcher, args, *slices, output.at())
    assert_close(output.array, x @ weight.T + has_bias * bias + add * before)


@pytest.mark.parametrize(
    ("tokens", "q_heads", "kv_heads", "first", "capacity"), [(1, 1, 1, 0, 1), (5, 6, 2, 0, 5), (3, 4, 4, 11, 8)]
)
def test_rotary(
    device: Device, rng: np.random.Generator, tokens: int, q_heads: int, kv_heads: int, first: int, capacity: int
) -> None:
    heads = q_heads + 2 * kv_heads
    qkv, angles = normal(rng, tokens, heads, HEAD), normal(rng, first + tokens, 32)
    table = device.put(np.stack([np.cos(angles), np.sin(angles)], -1))
    buffer = device.put(qkv)
    before = to_bf16(normal(rng, capacity, kv_heads, HEAD))
    keys, values = device.put(before), device.put(before)
    with device.commands() as commands:
        args = ARGS["rotary"](tokens, first, q_heads, kv_heads, capacity)
        commands.launch("launch_rotary", args, buffer.at(), table.at(), keys.at(), values.at())

    pairs = qkv.astype(np.float64).reshape(tokens, heads, 32, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles[first:].astype(np.float64))[:, None]
    rotated = np.stack([turned.real, turned.imag], -1).reshape(tokens, heads, HEAD)
    assert_close(buffer.array[:, :q_heads], rotated[:, :q_heads])
    expected_keys, expected_values = from_bf16(before), before.copy()
    for token in range(tokens):
        expected_keys[(first + token) % capacity] = rotated[token, q_heads:-kv_heads]
        expected_values[(first + token) % capacity] = to_bf16(qkv[token, -kv_heads:])
    assert np.array_equal(values.array, expected_values)
    assert np.allclose(from_bf16(keys.array), expected_keys, rtol=2**-8, atol=1e-5)  # bf16 keeps 8 bits


def attention(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, sinks: np.ndarray, window: int, first: int
) -> np.ndarray:
    """The definition: query [tokens, q heads, 64], keys and values of all positions [positions, kv heads, 64]."""
    group = query.shape[1] // keys.shape[1]
    output = np.empty(query.shape)
    for token, head in np.ndindex(query.shape[:2]):
        position = first + token
        seen = slice(max(0, position + 1 - window) if window else 0, position + 1)
        scores = np.append(keys[seen, head // group] @ query[token, head], sinks[head])
        weights = np.exp(scores - scores.max())
        output[token, head] = (weights / weights.sum())[:-1] @ values[seen, head // group]
    return output


@pytest.mark.parametrize("launcher", ["launch_attention_decode", "launch_attention_prefill", "launch_attention"])
@pytest.mark.parametrize(
    ("tokens", "first", "q_heads", "kv_heads", "window", "capacity"),
    [
        (1, 0, 1, 1, 0, 1),
        (5, 0, 6, 2, 0, 7),
        (17, 70, 2, 1, 0, 90),
        (1, 300, 4, 2, 0, 301),
        (35, 3, 2, 2, 6, 40),  # the ring wraps
        (3, 200, 3, 1, 1, 3),
        (18, 130, 2, 1, 128, 145),
    ],
)
def test_attention(
    device: Device,
    rng: np.random.Generator,
    launcher: str,
    tokens: int,
    first: int,
    q_heads: int,
    kv_heads: int,
    window: int,
    capacity: int,
) -> None:
    positions = first + tokens
    qkv = normal(rng, tokens, q_heads + 2 * kv_heads, HEAD) / 4
    key_bits, keys = bf16(rng, positions, kv_heads, HEAD)
    value_bits, values = bf16(rng, positions, kv_heads, HEAD)
    sink_bits, sinks = bf16(rng, q_heads)
    rings = [device.empty((capacity, kv_heads, HEAD), np.uint16) for _ in range(2)]
    for position in range(positions):
        rings[0].array[position % capacity] = key_bits[position]
        rings[1].array[position % capacity] = value_bits[position]
    output = device.empty((tokens, q_heads, HEAD))
    with device.commands() as commands:
        args = ARGS["attention"](tokens, first, q_heads, kv_heads, capacity, window)
        slices = (device.put(qkv).at(), rings[0].at(), rings[1].at(), device.put(sink_bits).at(), output.at())
        commands.launch(launcher, args, *slices)
    assert_close(output.array, attention(qkv[:, :q_heads].astype(np.float64), keys, values, sinks, window, first))


def top_k(scores: np.ndarray, active: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.argsort(-scores, axis=-1, kind="stable")[:, :active]
    best = np.take_along_axis(scores, chosen, -1).astype(np.float64)
    weights = np.exp(best - best.max(-1, keepdims=True))
    return chosen, weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("tokens", "experts", "active"), [(1, 1, 1), (3, 6, 4), (9, 33, 5), (2, 128, 4), (40, 7, 7), (1, 1000, 40)]
)
def test_topk(device: Device, rng: np.random.Generator, tokens: int, experts: int, active: int) -> None:
    scores = np.round(normal(rng, tokens, experts) * 8) / 8  # with equals among them
    chosen, weights = device.empty((tokens, active), np.uint32), device.empty((tokens, active))
    with device.commands() as commands:
        args = ARGS["topk"](tokens, experts, active)
        commands.launch("launch_topk", args, device.put(scores).at(), chosen.at(), weights.at())
    expected_chosen, expected_weights = top_k(scores, active)
    assert np.array_equal(chosen.array, expected_chosen)
    assert_close(weights.array, expected_weights)


FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
FP4 = np.concatenate([FP4, -FP4])


def swiglu(rows: np.ndarray, limit: float) -> np.ndarray:
    gate, linear = np.minimum(rows[..., ::2], limit), np.clip(rows[..., 1::2], -limit, limit)
    return gate / (1 + np.exp(-1.702 * gate)) * (linear + 1)


class Experts:
    """Random experts in the model file's layout, and their values."""

    def __init__(self, rng: np.random.Generator, device: Device, layout: ExpertsLayout) -> None:
        device.call("experts_layout_fill", ctypes.byref(layout))
        self.layout = layout
        memory = np.zeros((layout.num_experts, layout.stride), np.uint8)
        hidden, intermediate = layout.hidden, layout.intermediate
        parts = (layout.mlp1_blocks, layout.mlp1_scales, layout.mlp1_bias)
        self.mlp1 = self._matrix(rng, memory, parts, 2 * intermediate, hidden)
        parts = (layout.mlp2_blocks, layout.mlp2_scales, layout.mlp2_bias)
        self.mlp2 = self._matrix(rng, memory, parts, hidden, intermediate)
        self.weights = device.put(memory)

    @staticmethod
    def _matrix(
        rng: np.random.Generator, memory: np.ndarray, parts: tuple[int, int, int], rows: int, columns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        experts = len(memory)
        blocks = rng.integers(0, 256, (experts, rows, columns // 32, 16), dtype=np.uint8)
        scales = rng.integers(121, 126, (experts, rows, columns // 32), dtype=np.uint8)
        bias_bits, bias = bf16(rng, experts, rows)
        for offset, part in zip(parts, (blocks, scales + 14, bias_bits), strict=True):
            part_bytes = np.ascontiguousarray(part).view(np.uint8).reshape(experts, -1)
            memory[:, offset : offset + part_bytes.shape[1]] = part_bytes
        codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(experts, rows, columns // 32, 32)
        values = FP4[codes] * 2.0 ** (scales[..., None].astype(int) - 127)
        return values.reshape(experts, rows, columns), bias

    def __call__(self, x: np.ndarray, chosen: np.ndarray, gates: np.ndarray) -> np.ndarray:
        output = np.zeros(x.shape)
        for token, slot in np.ndindex(chosen.shape):
            expert = chosen[token, slot]
            rows = self.mlp1[0][expert] @ x[token] + self.mlp1[1][expert]
            activation = swiglu(rows, self.layout.swiglu_limit)
            output[token] += gates[token, slot] * (self.mlp2[0][expert] @ activation + self.mlp2[1][expert])
        return output


def run_experts(
    device: Device,
    launcher: str,
    experts: Experts,
    x: np.ndarray,
    chosen: np.ndarray,
    gates: np.ndarray,
    before: np.ndarray,
) -> Buffer:
    device.lib.experts_scratch_bytes.restype = ctypes.c_size_t
    layout, tokens = ctypes.byref(experts.layout), ctypes.c_uint32(len(x))
    scratch = device.empty(device.lib.experts_scratch_bytes(layout, tokens), np.uint8)
    residual = device.put(before)
    inputs = (device.put(x).at(), experts.weights.at(), device.put(chosen).at(), device.put(gates).at())
    with device.commands() as commands:
        commands.launch(launcher, (layout, tokens), *inputs, scratch.at(), residual.at())
    return residual


@pytest.mark.parametrize("launcher", ["launch_experts_few", "launch_experts_many", "launch_experts"])
@pytest.mark.parametrize(
    ("tokens", "experts", "active", "hidden", "intermediate"),
    [(1, 1, 1, 32, 32), (3, 6, 4, 96, 32), (40, 3, 2, 32, 96), (17, 40, 3, 64, 160)],
)
def test_experts(
    device: Device,
    rng: np.random.Generator,
    launcher: str,
    tokens: int,
    experts: int,
    active: int,
    hidden: int,
    intermediate: int,
) -> None:
    layer = Experts(rng, device, ExpertsLayout(experts, active, hidden, intermediate, 1.5))
    x, before = normal(rng, tokens, hidden), normal(rng, tokens, hidden)
    chosen = np.stack([rng.permutation(experts)[:active] for _ in range(tokens)]).astype(np.uint32)
    gates = rng.random((tokens, active), np.float32)
    residual = run_experts(device, launcher, layer, x, chosen, gates, before)
    assert_close(residual.array, before + layer(x, chosen, gates))


@pytest.mark.parametrize("launcher", ["launch_experts_few", "launch_experts_many"])
def test_an_expert_that_does_not_exist_gives_nan(plain_device: Device, rng: np.random.Generator, launcher: str) -> None:
    layer = Experts(rng, plain_device, ExpertsLayout(3, 2, 32, 32, 7.0))
    chosen = np.array([[0, 3], [2, 1]], np.uint32)
    arrays = normal(rng, 2, 32), chosen, np.full((2, 2), 0.5, np.float32), normal(rng, 2, 32)
    residual = run_experts(plain_device, launcher, layer, *arrays).array
    assert np.isnan(residual[0]).all()
    assert np.isfinite(residual[1]).all()


def test_nan_scores_reach_the_residual(plain_device: Device, rng: np.random.Generator) -> None:
    """Not one of the four is hidden by a choice that happens to be possible."""
    scores = plain_device.put(np.array([[1, np.nan, np.nan, np.nan]], np.float32))
    chosen, weights = plain_device.empty((1, 2), np.uint32), plain_device.empty((1, 2))
    with plain_device.commands() as commands:
        commands.launch("launch_topk", ARGS["topk"](1, 4, 2), scores.at(), chosen.at(), weights.at())
    assert chosen.array.tolist() == [[0, 0xFFFFFFFF]]


@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (2, 37), (3, 1000)])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_softmax(device: Device, rng: np.random.Generator, rows: int, tokens: int, temperature: float) -> None:
    logits = normal(rng, rows, tokens) * 10
    output, in_place = device.empty((rows, tokens)), device.put(logits)
    with device.commands() as commands:
        args = ARGS["softmax"](rows, tokens, temperature)
        commands.launch("launch_softmax", args, device.put(logits).at(), output.at())
        commands.launch("launch_softmax", args, in_place.at(), in_place.at())
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    assert_close(output.array, weights / weights.sum(-1, keepdims=True))
    assert np.array_equal(output.array, in_place.array)


def test_argmax(device: Device, rng: np.random.Generator) -> None:
    logits = np.round(normal(rng, 9, 777) * 2)  # many equals
    logits[5, 700] = np.nan
    logits[6] = -np.inf
    logits[7, 3] = np.inf
    logits[8, 1:] = -np.inf
    token = device.empty(9, np.int32)
    with device.commands() as commands:
        commands.launch("launch_argmax", ARGS["argmax"](9, 777), device.put(logits).at(), token.at())
    assert token.array.tolist() == [*logits[:5].argmax(-1), -1, -1, -1, 0]


def kept_by_top_p(p: np.ndarray, top_p: float, slack: float) -> np.ndarray:
    """Whether each token is needed: those more probable, or equal and earlier, do not reach top_p without it."""
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    kept = np.zeros(len(p), bool)
    kept[order] = before < top_p * p.sum() * (1 + slack)
    return kept


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.55, 1e-6])
@pytest.mark.parametrize("tokens", [1, 37, 1500])
def test_sample(device: Device, rng: np.random.Generator, top_p: float, tokens: int) -> None:
    p = np.round(rng.random(tokens) ** 4 * 50) + (np.arange(tokens) == tokens // 2)  # ties and zeros
    p = (p / p.sum()).astype(np.float32)
    points = [0.0, 0.25, 0.6180339, 1 - 2**-24, *rng.random(3)]
    found = [device.empty(1, np.int32) for _ in points]
    probabilities = device.put(p)
    with device.commands() as commands:
        for point, token in zip(points, found, strict=True):
            commands.launch("launch_sample", ARGS["sample"](tokens, top_p, point), probabilities.at(), token.at())

    def agrees(slack: float) -> bool:
        exact = p.astype(np.float64)
        exact[~kept_by_top_p(exact, top_p, slack)] = 0
        ends = np.cumsum(exact) / exact.sum()
        begins = ends - exact / exact.sum()
        indices = [token.array[0] for token in found]
        return all(
            exact[i] > 0 and begins[i] - 1e-5 <= point <= ends[i] + 1e-5
            for point, i in zip(points, indices, strict=True)
        )

    # With so many equal values a sum can lie on top_p itself; there rounding decides whether one token more is kept.
    assert agrees(-1e-6) or agrees(1e-6)


def test_sample_without_a_distribution(plain_device: Device) -> None:
    bad = np.ones((3, 40), np.float32)
    bad[0] = np.nan
    bad[1] = 0
    bad[2, 39] = np.inf
    token = plain_device.empty(3, np.int32)
    row = plain_device.put(bad)
    with plain_device.commands() as commands:
        for i in range(3):
            commands.launch("launch_sample", ARGS["sample"](40, 0.9, 0.5), row.at(160 * i), token.at(4 * i))
    assert token.array.tolist() == [-1, -1, -1]


def test_the_random_number_is_that_of_the_python_sampler(plain_device: Device) -> None:
    from gpt_oss.sampling import uniform

    sample_point = plain_device.lib.sample_point
    sample_point.restype, sample_point.argtypes = ctypes.c_float, [ctypes.c_uint64] * 2
    for seed, step in [(0, 0), (1, 0), (1, 1), (2**64 - 1, 12345)]:
        assert sample_point(seed, step) == int(uniform(seed, step) * 2**24) / 2**24


def test_launchers_refuse_what_does_not_fit(plain_device: Device) -> None:
    device = plain_device
    small, halves = device.empty(64), device.empty(4096, np.uint16)
    layout = ExpertsLayout(2, 1, 40, 32, 7.0)
    cases = [
        ("launch_embedding", ARGS["embedding"](0, 32, 3), [small, halves, small], "num_tokens must be positive"),
        ("launch_embedding", ARGS["embedding"](3, 32, 3), [small, halves, small], "output: 3 x 32 elements do not fit"),
        ("launch_rmsnorm", ARGS["rmsnorm"](1, 65, 1e-5), [small, halves, small], "input: 1 x 65"),
        ("launch_dense", ARGS["dense"](1, 6, 1, 0, 0), [small, halves, halves, small], "multiple of 4, not 6"),
        ("launch_dense", ARGS["dense"](1, 64, 65, 0, 0), [small, halves, halves, small], "weight: 65 x 64"),
        ("launch_rotary", ARGS["rotary"](2, 0, 1, 1, 1), [small, small, halves, halves], "exceed the cache of 1"),
        ("launch_attention", ARGS["attention"](1, 9, 1, 1, 9, 0), [small, halves, halves, halves, small], "holds 9"),
        (
            "launch_attention",
            ARGS["attention"](1, 0, 3, 2, 9, 0),
            [small, halves, halves, halves, small],
            "cannot share",
        ),
        ("launch_topk", ARGS["topk"](1, 3, 4), [small, small, small], "4 of 3 experts"),
        ("launch_softmax", ARGS["softmax"](1, 3, 0.0), [small, small], "temperature must be positive"),
        ("launch_sample", ARGS["sample"](3, 0.0, 0.5), [small, small], "top_p must be positive"),
        ("launch_sample", ARGS["sample"](3, 1.0, 1.0), [small, small], "random number"),
        ("launch_experts", (ctypes.byref(layout), ctypes.c_uint32(1)), [small] * 6, "multiples of 32"),
    ]
    for launcher, args, buffers, message in cases:
        with pytest.raises(DeviceError, match=message), device.commands() as commands:
            commands.launch(launcher, args, *(buffer.at() for buffer in buffers))

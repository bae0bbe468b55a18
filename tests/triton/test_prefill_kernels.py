"""Each stage of a prefill against its naive twin."""

import dataclasses

import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder

from gpt_oss.rope import cos_sin
from gpt_oss.triton import grouped
from gpt_oss.triton.attention_prefill import attend, rope_and_store
from gpt_oss.triton.norm import rms_norm
from gpt_oss.triton.router import top_k
from gpt_oss.triton.variants import choose_variant, mma_variant
from tests.triton import naive, ptx
from tests.triton.naive import SMALL, Experts, assert_close, tolerance

Q_HEADS, KV_HEADS, HEAD = 16, 4, 16
COMPUTE = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}
TILING = grouped.Tiling(block_m=16, tiles_n=4, steps_k=1, warps=4)


@pytest.mark.parametrize("shape", [(1, 96), (7, 63)])
def test_rms_norm(generator, device, dtype, shape):
    x, gain = (torch.randn(size, generator=generator).to(device, dtype) for size in (shape, shape[1:]))
    assert_close(rms_norm(x, gain, 1e-5), naive.rms_norm(x.double(), gain.double()), tolerance(device, dtype))


def test_top_k_prefers_the_lower_expert_among_equals(generator, device):
    logits = torch.randn(5, 6, generator=generator).to(device)
    logits[2] = 1.0
    ids, weights = top_k(logits, 4)
    values, expected = logits.cpu().double().topk(4)
    expected[2] = torch.arange(4)
    assert ids.tolist() == expected.tolist()
    assert_close(weights, values.softmax(-1), tolerance(device))


@pytest.mark.parametrize(
    ("start", "tokens", "window"), [(0, 1, 0), (5, 70, 0), (127, 3, 128), (128, 65, 128), (1000, 2, 128), (1, 130, 128)]
)
def test_attention(generator, device, dtype, start, tokens, window):
    check_attention(generator, device, dtype, start, tokens, window)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 1, 5, 127, 128, 1000])
@pytest.mark.parametrize("tokens", [1, 2, 63, 64, 129, 300])
@pytest.mark.parametrize("window", [0, 128])
def test_attention_everywhere(generator, device, dtype, start, tokens, window):
    check_attention(generator, device, dtype, start, tokens, window)


def check_attention(generator, device, dtype, start, tokens, window):
    """Keys before `start` come from the cache (a ring in windowed layers), the others are stored first."""
    end = start + tokens
    capacity = 512 if window else end
    qkv = torch.randn(tokens, (Q_HEADS + 2 * KV_HEADS) * HEAD, generator=generator).to(dtype)
    sinks = torch.randn(Q_HEADS, generator=generator).to(dtype)
    old = torch.randn(2, KV_HEADS, start, HEAD, generator=generator).to(dtype)
    keys, values = (torch.full((KV_HEADS, capacity, HEAD), float("nan"), dtype=dtype) for _ in range(2))
    for position in range(max(0, start - capacity), start):
        keys[:, position % capacity], values[:, position % capacity] = old[0, :, position], old[1, :, position]
    keys, values = keys.nan_to_num(7.0).to(device), values.nan_to_num(7.0).to(device)
    cos, sin = (torch.from_numpy(table) for table in cos_sin(SMALL, end))
    q, k, v = qkv.double().view(tokens, -1, HEAD).split([Q_HEADS, KV_HEADS, KV_HEADS], 1)
    q, k = (
        torch.stack([naive.rotate(x[i], cos[start + i].double(), sin[start + i].double()) for i in range(tokens)])
        for x in (q, k)
    )
    qkv = qkv.to(device)
    rope_and_store(qkv, cos.to(device), sin.to(device), keys, values, start)
    assert_close(qkv.view(tokens, -1, HEAD)[:, :Q_HEADS], q, tolerance(device, dtype))
    found = attend(qkv, sinks.to(device), keys, values, start, window, COMPUTE[dtype])
    all_keys = torch.cat([old[0].double(), k.transpose(0, 1)], 1)
    all_values = torch.cat([old[1].double(), v.transpose(0, 1)], 1)
    sample = sorted({0, tokens // 2, tokens - 1})
    for i in sample:
        seen = start + i + 1
        expected = naive.attend(q[i], all_keys[:, :seen], all_values[:, :seen], sinks.double(), window)
        assert_close(found[i].view(Q_HEADS, HEAD), expected, tolerance(device, dtype))
    assert_close(keys[:, (end - 1) % capacity], k[-1], tolerance(device, dtype))


@pytest.mark.parametrize(("tokens", "routing"), [(1, "random"), (37, "random"), (19, "same")])
def test_experts(generator, device, dtype, tokens, routing):
    check_experts(generator, device, dtype, tokens, routing)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [2, 64, 300])
@pytest.mark.parametrize("routing", ["random", "same"])
def test_experts_of_many_tokens(generator, device, dtype, tokens, routing):
    check_experts(generator, device, dtype, tokens, routing)


EXTREME = pytest.mark.parametrize(("scales", "magnitude"), [((0, 2), 1e3), ((253, 255), 1e-37)])


@EXTREME
def test_experts_with_extreme_scales(generator, device, dtype, scales, magnitude):
    check_extreme_scales(generator, device, dtype, scales, magnitude, choose_variant(device, dtype))


@pytest.fixture
def emulated_assembly(monkeypatch):
    """The variant of NVIDIA cards with its assembly emulated; products in fp32, as the interpreter needs them."""
    monkeypatch.setattr(InterpreterBuilder, "create_inline_asm", ptx.create_inline_asm)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", ptx.cast_impl)
    return dataclasses.replace(mma_variant((9, 0)), compute=tl.float32)


ON_CPUS = pytest.mark.skipif(torch.cuda.is_available(), reason="a card runs the assembly itself")


@ON_CPUS
def test_experts_by_emulated_assembly(generator, device, emulated_assembly):
    check_experts(generator, device, torch.float32, 19, "random", emulated_assembly)


@ON_CPUS
@EXTREME
def test_extreme_scales_by_emulated_assembly(generator, device, emulated_assembly, scales, magnitude):
    check_extreme_scales(generator, device, torch.float32, scales, magnitude, emulated_assembly)


def check_extreme_scales(generator, device, dtype, scales, magnitude, variant):
    """Bytes 0, 1 and 253, 254: weights of 2^-128 to 1.5·2^127, all of them numbers that bf16 has.

    Large weights meet few inputs, so that no sum is the small difference of large terms: SwiGLU's clamp hides the
    size of such terms from the largest value, to which the tolerance is relative.
    """
    weights = Experts(generator, 3, 32, 96, True, device, scales, codes=0xBB)
    bias = torch.zeros(3, 32, dtype=dtype, device=device)
    ids = torch.tensor([[0], [2], [0]], dtype=torch.int32, device=device)
    t = magnitude * torch.randn(3, 96, generator=generator)
    if scales[0] > 200:
        t[:, torch.randperm(96, generator=generator)[4:]] = 0
    t = t.to(device, dtype)
    work = grouped.plan(ids, 3, TILING.block_m)
    found = grouped.gate_up(t, weights.packed, bias, work, 7.0, TILING, variant)
    for row, pair in enumerate(work.order.tolist()):
        expected = naive.swiglu(weights.values[int(ids[pair, 0])] @ t[pair].double().cpu())
        assert_close(found[row], expected, tolerance(device, dtype))


def check_experts(generator, device, dtype, tokens, routing, variant=None):
    """ "same": two of the experts receive all tokens, four receive none."""
    experts, hidden, inter, topk = 6, 96, 160, 2
    mlp1 = Experts(generator, experts, 2 * inter, hidden, True, device)
    mlp2 = Experts(generator, experts, hidden, inter, False, device)
    mlp1_bias = torch.randn(experts, 2 * inter, generator=generator).to(device, dtype)
    mlp2_bias = torch.randn(experts, hidden, generator=generator).to(device, dtype)
    rows = [torch.randperm(experts, generator=generator)[:topk] for _ in range(tokens)]
    ids = torch.stack([torch.tensor([4, 1])] * tokens if routing == "same" else rows).to(torch.int32).to(device)
    weights = torch.rand(tokens, topk, generator=generator).to(device)
    t, x = (torch.randn(tokens, hidden, generator=generator).to(device, dtype) for _ in range(2))
    variant = variant or choose_variant(device, dtype)
    work = grouped.plan(ids, experts, TILING.block_m)
    found_hidden = grouped.gate_up(t, mlp1.packed, mlp1_bias, work, 7.0, TILING, variant)
    y = grouped.down(found_hidden, mlp2.packed, mlp2_bias, work, TILING, variant)
    expected_x, result = x.double().cpu(), x.clone()
    for row, pair in enumerate(work.order.tolist()):
        token, rank = divmod(pair, topk)
        expert = int(ids[token, rank])
        h = naive.swiglu(mlp1.values[expert] @ t[token].double().cpu() + mlp1_bias[expert].double().cpu())
        expected = mlp2.values[expert] @ h + mlp2_bias[expert].double().cpu()
        assert_close(found_hidden[row], h, tolerance(device, dtype))
        assert_close(y[pair], expected, tolerance(device, dtype))
        expected_x[token] += weights[token, rank].double().cpu() * expected
    grouped.combine(y, weights, result)
    assert_close(result, expected_x, tolerance(device, dtype))


@pytest.mark.parametrize("pairs", [1, 16, 17, 200])
def test_the_plan_deals_every_row_once(generator, pairs):
    ids = torch.randint(0, 5, (pairs, 1), generator=generator, dtype=torch.int32)
    work = grouped.plan(ids, 7, 16)
    covered = []
    for expert, first, end in work.blocks.tolist():
        if expert >= 0:
            rows = range(first, min(first + 16, end))
            assert {int(ids[pair]) for pair in work.order[rows.start : rows.stop].tolist()} == {expert}
            covered += rows
    assert covered == list(range(pairs))

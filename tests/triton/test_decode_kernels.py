"""Each stage of a decode step against its naive twin, on poisoned buffers and fresh random numbers."""

import dataclasses

import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder

from gpt_oss import sampling
from gpt_oss.triton.backend import random_counter
from gpt_oss.triton.variants import INTERPRETER_TILES, mma_variant
from tests.triton import naive, ptx
from tests.triton.naive import SMALL, RandomModel, assert_close, tolerance

BATCHES = range(1, 10)
STARTS = [0, 1, 5, 127, 128, 1000]
WINDOWS = [None, 128]


@pytest.mark.parametrize("batch", BATCHES)
def test_qkv(generator, device, dtype, batch):
    model = RandomModel(generator, device, dtype=dtype)
    step, layer = model.step(batch), model.layer
    step.x.copy_(model.normal(batch, 96))
    step.qkv(layer)
    normed = naive.rms_norm(model.wide(step.x), model.wide(layer.attention_norm))
    expected = normed @ model.wide(layer.qkv).T + model.wide(layer.qkv_bias)
    assert_close(step.qkv_out, expected, tolerance(device, dtype))


@pytest.mark.parametrize(
    ("start", "window"),
    [(0, None), (1, 128), (5, None), (127, 128), (128, 128), (1000, 128), (1024, None), (3000, None)],
)
def test_attention(generator, device, dtype, start, window):
    check_attention(generator, device, dtype, start, window)


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("window", WINDOWS)
def test_attention_everywhere(generator, device, dtype, start, window):
    check_attention(generator, device, dtype, start, window)


def check_attention(generator, device, dtype, start, window):
    """Two sequences of different lengths; the second is one longer."""
    model = RandomModel(generator, device, dtype=dtype)
    config, step = model.config, model.step(2, context=start + 200, margin=100)
    cache = step.cache.layers[0 if window else 1]
    lengths = [start, start + 1]
    past = [[model.normal(4, n, 16) for n in lengths] for _ in range(2)]
    for slot, length in enumerate(lengths):
        for tensor, source in zip((cache.keys, cache.values), past, strict=True):
            for position in range(max(0, length - cache.capacity), length):
                tensor[slot, :, position % cache.capacity] = source[slot][:, position]
    step.cache.device_lengths.copy_(torch.tensor(lengths))
    step.qkv_out.copy_(model.normal(2, config.qkv_rows))
    step.attention(model.layer, cache, window)
    cos, sin = (model.wide(table) for table in step.rope)
    for slot, length in enumerate(lengths):
        q, k, v = model.wide(step.qkv_out[slot]).view(-1, 16).split([16, 4, 4])
        q, k = (naive.rotate(x, cos[length], sin[length]) for x in (q, k))
        keys, values = (
            torch.cat([model.wide(source[slot]), new[:, None]], 1) for source, new in zip(past, (k, v), strict=True)
        )
        expected = naive.attend(q, keys, values, model.wide(model.layer.sinks), window)
        assert_close(step.attention_out[slot].view(16, 16), expected, tolerance(device, dtype))
        assert_close(cache.keys[slot, :, length % cache.capacity], k, tolerance(device, dtype))
        assert_close(cache.values[slot, :, length % cache.capacity], v, tolerance(device, dtype))
    assert not step._attention_counters.any()


@pytest.mark.parametrize("batch", BATCHES)
def test_out_and_router(generator, device, dtype, batch):
    model = RandomModel(generator, device, dtype=dtype)
    step, layer = model.step(batch), model.layer
    x = model.normal(batch, 96)
    step.x.copy_(x)
    step.attention_out.copy_(model.normal(batch, 256))
    step.out(layer)
    if batch > 1:
        step.route(layer)
    expected = model.wide(x) + model.wide(step.attention_out) @ model.wide(layer.out).T + model.wide(layer.out_bias)
    assert_close(step.x, expected, tolerance(device, dtype))
    normed = naive.rms_norm(model.wide(step.x), model.wide(layer.mlp_norm))
    assert_close(step.normed[:, :96].float() / step.variant.input_scale, normed, tolerance(device, dtype))
    logits = normed @ model.wide(layer.router)[:, :6] + model.wide(layer.router_bias)
    ids = step.expert_ids.cpu().long()
    assert all(len(set(chosen)) == 4 for chosen in ids.tolist())
    # Of two that are nearly equal either may come first, or be the last that is taken.
    values = logits.gather(1, ids)
    assert_close(values, logits.topk(4).values, tolerance(device, dtype))
    assert_close(step.expert_weights, values.softmax(-1), tolerance(device, dtype))
    check_items(step, ids)


def check_items(step, ids):
    """Every pair in exactly one item, and every item of one expert."""
    seen = []
    for item in range(int(step.item_count)):
        pairs = [pair for pair in step.item_pairs[item].tolist() if pair >= 0]
        assert pairs
        assert {int(ids.flatten()[pair]) for pair in pairs} == {int(step.items[item])}
        seen += pairs
    assert sorted(seen) == list(range(ids.numel()))


def given_routing(model, step, ids):
    """Put a routing into the step's buffers by hand: one item per expert and eight pairs."""
    step.expert_ids.copy_(ids)
    step.expert_weights.copy_(torch.rand(ids.shape, generator=model.generator))
    items = []
    for expert in sorted(set(ids.flatten().tolist())):
        pairs = (ids.flatten() == expert).nonzero().flatten().tolist()
        items += [(expert, pairs[first : first + step.columns]) for first in range(0, len(pairs), step.columns)]
    step.item_count.fill_(len(items))
    step.items.fill_(-1)
    step.item_pairs.fill_(-1)
    for number, (expert, pairs) in enumerate(items):
        step.items[number] = expert
        step.item_pairs[number, : len(pairs)] = torch.tensor(pairs, dtype=torch.int32)


@pytest.mark.parametrize(
    ("batch", "scales", "all_one"),
    [(1, (118, 124), False), (3, (118, 124), True), (1, (0, 2), False), (1, (250, 255), False)],
    ids=["one token", "all tokens to the same experts", "smallest scales", "largest scales"],
)
def test_experts(generator, device, dtype, batch, scales, all_one):
    check_experts(generator, device, dtype, batch, scales, all_one)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(1, 10))
@pytest.mark.parametrize("all_one", [False, True])
def test_experts_of_every_batch(generator, device, dtype, batch, all_one):
    check_experts(generator, device, dtype, batch, (110, 130), all_one)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card runs the assembly itself")
@pytest.mark.parametrize("scales", [(118, 124), (0, 2), (250, 255)])
def test_experts_by_emulated_assembly(generator, device, monkeypatch, scales):
    """What NVIDIA cards run, lane by lane: 5 steps of 64 inputs are two rounds of 4 warps, 3 of them idle at last."""
    monkeypatch.setattr(InterpreterBuilder, "create_inline_asm", ptx.create_inline_asm)
    config = dataclasses.replace(SMALL, hidden_size=288, num_experts=4, experts_per_token=2)
    variant = dataclasses.replace(mma_variant((9, 0)), dependent_launch=False, tiles=INTERPRETER_TILES)
    model = RandomModel(generator, device, config, torch.bfloat16, scales)
    check_experts(generator, device, torch.bfloat16, 2, scales, True, model, variant)


def check_experts(generator, device, dtype, batch, scales, all_one, model=None, variant=None):
    """Experts 0 and those after the chosen ones get no token when all tokens go to the same."""
    small, large = scales[1] < 10, scales[1] > 200
    model = model or RandomModel(generator, device, dtype=dtype, scales=scales)
    step = model.step(batch, variant=variant)
    experts, topk, hidden = model.config.num_experts, model.config.experts_per_token, model.config.hidden_size
    relative = tolerance(device, dtype)
    chosen = [
        torch.arange(1, 1 + topk) if all_one else torch.randperm(experts, generator=generator)[:topk]
        for _ in range(batch)
    ]
    ids = torch.stack(chosen).to(torch.int32)
    given_routing(model, step, ids)
    t = torch.randn(batch, hidden, generator=generator, dtype=torch.float64)
    if small:  # else the bias would hide products with weights of 2^-127
        model.layer.mlp1_bias.zero_()
        t *= 1000
    if large:  # so that weights of 2^127 have finite products, and no sum is the small difference of large terms
        t *= 1e-37
        t[:, torch.randperm(hidden, generator=generator)[4:]] = 0
    step.normed[:, :hidden] = (t * step.variant.input_scale).to(step.normed.dtype)
    t = step.normed[:, :hidden].double().cpu() / step.variant.input_scale
    x = model.normal(batch, hidden)
    step.x.copy_(x)
    step.gate_up(model.layer)
    expected = torch.stack([
        swiglu_of(model, expert, t[token]) * step.expert_weights[token, rank].double().cpu()
        for token in range(batch) for rank, expert in enumerate(ids[token].tolist())
    ])  # fmt: skip
    assert_close(step.hidden[:, :32].double().cpu() / step.variant.input_scale, expected, relative)
    if small or large:
        return  # mlp2 of such scales leaves the range of fp32, as it must
    step.down(model.layer)
    expected = model.wide(x) + model.experts(t, ids, step.expert_weights.double().cpu())
    assert_close(step.x, expected, relative)
    assert not step._down_counters.any()


def swiglu_of(model, expert, t):
    return naive.swiglu(model.mlp1.values[expert] @ t + model.wide(model.layer.mlp1_bias)[expert])


@pytest.mark.parametrize("batch", BATCHES)
def test_unembedding_and_greedy_choice(generator, device, dtype, batch):
    model = RandomModel(generator, device, dtype=dtype)
    step = model.step(batch)
    step.x.copy_(model.normal(batch, 96))
    step.cache.device_lengths.copy_(torch.arange(batch))
    step.unembed()
    expected = (
        naive.rms_norm(model.wide(step.x), model.wide(model.weights.norm)) @ model.wide(model.weights.unembedding).T
    )
    assert_close(step.logits, expected, tolerance(device, dtype))
    step.finish()
    assert step.next_tokens.tolist() == step.logits.argmax(-1).tolist() == step.tokens.tolist()
    # A logprob is the difference of two numbers of the logits' size, so its error is relative to those, not to itself.
    error = (step.logprobs.double() - step.logits.double().log_softmax(-1).amax(-1)).abs().max()
    assert error <= tolerance(device, dtype) * (1 + step.logits.abs().max())
    assert step.cache.device_lengths.tolist() == [1 + row for row in range(batch)]
    ids, logprobs = step.alternatives(batch, 20)
    assert torch.equal(step.logits.gather(1, ids), step.logits.topk(20).values)
    assert torch.equal(logprobs[:, 0], step.logprobs)
    assert (logprobs - step.logits.log_softmax(-1).gather(1, ids)).abs().max() <= 1e-5 * step.logits.abs().max()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_sampling_is_that_of_the_engine(generator, device, dtype, temperature):
    """The same seed and step choose the same token as gpt_oss.sampling does from the same logits, step after step.

    Where the random number lies within rounding of the boundary of two tokens, either of them.
    """
    model = RandomModel(generator, device, dtype=dtype)
    batch = 4
    step = model.step(batch)
    step.x.copy_(model.normal(batch, 96))
    step.state.temperature.fill_(temperature)
    step.state.random.copy_(torch.tensor([random_counter(seed, 3) for seed in range(batch)]))
    step.unembed()
    for number in (3, 4, 5):
        rows = [sampling.RowSettings(temperature, seed=seed, step=number) for seed in range(batch)]
        expected = sampling.sample(step.logits, rows)
        step.finish()
        boundaries = (step.logits.double() / temperature).softmax(-1).cumsum(-1)
        for row, (found, twin) in enumerate(zip(step.next_tokens.tolist(), expected.tolist(), strict=True)):
            if found != twin:  # weights in fp32 are off by up to 2e-6
                between = boundaries[row, min(found, twin) : max(found, twin)]
                assert found >= 0 and (between - sampling.uniform(row, number)).abs().max() < 1e-5


def test_rows_of_padding_follow_the_first_and_change_nothing(generator, device, dtype):
    """Otherwise the next step would write the keys of two different tokens to one place."""
    model = RandomModel(generator, device, dtype=dtype)
    step = model.step(4)
    step.x.copy_(model.normal(1, 96).expand(4, -1))
    step.x[1] = model.normal(96)
    step.slots.copy_(torch.tensor([2, 1, 2, 2]))
    step.active.fill_(2)
    step.unembed()
    step.finish()
    assert step.cache.device_lengths.tolist() == [0, 1, 1, 0]
    first, second = step.next_tokens[:2].tolist()
    assert step.tokens.tolist() == [first, second, first, first]


def test_logits_without_a_maximum_give_no_token(generator, device, dtype):
    model = RandomModel(generator, device, dtype=dtype)
    step = model.step(1)
    step.x.fill_(float("nan"))
    step.unembed()
    step.finish()
    assert step.next_tokens.tolist() == [-1]


@pytest.mark.parametrize("batch", [1, 2])
def test_bf16_activations_round_on_store(generator, device, batch):
    """Stored values are the twin's, rounded to nearest: at most one bf16 step away after fp32 sums."""
    model = RandomModel(generator, device, dtype=torch.bfloat16)
    step, layer = model.step(batch), model.layer
    step.x.copy_(model.normal(batch, 96))
    step.qkv(layer)
    normed = naive.rms_norm(model.wide(step.x), model.wide(layer.attention_norm))
    expected = normed @ model.wide(layer.qkv).T + model.wide(layer.qkv_bias)
    assert_close(step.qkv_out, expected, 2.0**-8)


def test_more_heads_and_experts_than_powers_of_two(generator, device, dtype):
    """3 query heads per kv head, 5 experts, 3 chosen."""
    config = dataclasses.replace(
        SMALL, num_attention_heads=6, num_key_value_heads=2, num_experts=5, experts_per_token=3, num_hidden_layers=2
    )
    model = RandomModel(generator, device, config, dtype)
    step = model.step(1)
    x = model.normal(1, 96)
    step.x.copy_(x)
    step.qkv(model.layer)
    step.attention(model.layer, step.cache.layers[1], None)
    q, _, v = model.wide(step.qkv_out[0]).view(-1, 16).split([6, 2, 2])
    cos, sin = (model.wide(table)[0] for table in step.rope)
    k = naive.rotate(model.wide(step.qkv_out[0]).view(-1, 16)[6:8], cos, sin)
    expected = naive.attend(naive.rotate(q, cos, sin), k[:, None], v[:, None], model.wide(model.layer.sinks), None)
    assert_close(step.attention_out[0].view(6, 16), expected, tolerance(device, dtype))
    step.out(model.layer)
    assert step.expert_ids.max() < 5
    assert len(set(step.expert_ids[0].tolist())) == 3

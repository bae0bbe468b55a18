"""The torch model against two independent oracles: transformers in fp32 and our NumPy model in fp64."""

import dataclasses

import numpy as np
import pytest
import torch

from gpt_oss.torch.model import Transformer
from tests.helpers import oracle
from tests.helpers.models import ODD, decided, random_tensors, relative_error, torch_model, transformers_model

FP32_BOUND = 1e-4
# BF16 keeps 8 bits: 2^-9 per rounding, a few dozen roundings per logit along three layers of unit gain.
BF16_BOUND = 0.06

SHAPES = {
    "odd": ODD,
    "one group per head": dataclasses.replace(ODD, num_attention_heads=5, num_key_value_heads=5, num_hidden_layers=1),
    "all heads share": dataclasses.replace(ODD, num_attention_heads=7, num_key_value_heads=1, num_hidden_layers=2),
    "top-1 of 9": dataclasses.replace(ODD, num_experts=9, experts_per_token=1, hidden_size=64),
    "every expert": dataclasses.replace(ODD, num_experts=5, experts_per_token=5, intermediate_size=32),
    "narrow window": dataclasses.replace(ODD, sliding_window=7),
    "short context": dataclasses.replace(ODD, initial_context_length=32, rope_scaling_factor=8.0),
    "other rope": dataclasses.replace(ODD, rope_theta=10000.0, rope_scaling_factor=8.0, initial_context_length=512),
    "head_dim 32": dataclasses.replace(ODD, head_dim=32),
}


def fresh_seed():
    return int(np.random.SeedSequence().generate_state(1)[0])


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_fp32_logits_equal_both_oracles(config):
    seed = fresh_seed()
    tensors, random = random_tensors(config, seed), np.random.default_rng(seed)
    model = torch_model(config, tensors)
    tokens = decided(model, lambda: random.integers(0, config.vocab_size, 150))
    ours = model(torch.from_numpy(tokens))
    theirs = transformers_model(config, tensors)(torch.from_numpy(tokens)[None]).logits[0]
    assert relative_error(ours, theirs) < FP32_BOUND, f"seed {seed}"
    assert relative_error(ours, oracle.logits(config, tensors, tokens)) < FP32_BOUND, f"seed {seed}"


def test_fp64_logits_equal_the_fp64_oracle_to_rope_precision():
    # The rotary tables are fp32 by design; everything else follows the parameters' type.
    tensors = random_tensors(ODD, 5)
    tokens = np.arange(40)
    ours = torch_model(ODD, tensors, torch.float64)(torch.from_numpy(tokens))
    assert ours.dtype == torch.float64
    assert relative_error(ours, oracle.logits(ODD, tensors, tokens)) < 1e-5


@pytest.mark.parametrize("sink", [-np.inf, 80.0, -80.0])
def test_extreme_sinks(sink):
    tensors = random_tensors(ODD, 1)
    for layer in range(ODD.num_hidden_layers):
        tensors[f"block.{layer}.attn.sinks"][::2] = sink
    tokens = np.random.default_rng(2).integers(0, ODD.vocab_size, 140)
    ours = torch_model(ODD, tensors)(torch.from_numpy(tokens))
    theirs = transformers_model(ODD, tensors)(torch.from_numpy(tokens)[None]).logits[0]
    assert relative_error(ours, theirs) < FP32_BOUND
    assert relative_error(ours, oracle.logits(ODD, tensors, tokens)) < FP32_BOUND


def test_router_ties_choose_as_transformers_does():
    tensors = random_tensors(ODD, 3)
    for layer in range(ODD.num_hidden_layers):
        gate = tensors[f"block.{layer}.mlp.gate.weight"]
        gate[1::2], tensors[f"block.{layer}.mlp.gate.bias"][1::2] = (
            gate[::2],
            tensors[f"block.{layer}.mlp.gate.bias"][::2],
        )
    tokens = torch.arange(60)
    ours = torch_model(ODD, tensors)(tokens)
    theirs = transformers_model(ODD, tensors)(tokens[None]).logits[0]
    assert relative_error(ours, theirs) < FP32_BOUND


@pytest.mark.parametrize("experts", [5, 6, 7, 9, 17])
def test_router_ties_are_broken_alike_by_any_chunking(experts):
    """The first and the last expert have equal rows, and one of them is chosen."""
    config = dataclasses.replace(ODD, num_experts=experts, experts_per_token=1, num_hidden_layers=1)
    tensors = random_tensors(config, 5)
    gate, bias = (tensors[f"block.0.mlp.gate.{name}"] for name in ("weight", "bias"))
    gate[-1] = gate[0]
    bias[[0, -1]] = bias.max() + 3
    model, tokens = torch_model(config, tensors), torch.arange(60)
    whole = model(tokens)
    for chunk in (1, 7, 30):
        cache = model.new_cache(1, 60)
        pieces = torch.cat([model(piece, cache) for piece in tokens.split(chunk)])
        assert relative_error(pieces, whole) < FP32_BOUND


def test_swiglu_clamps_are_reached():
    tensors = random_tensors(ODD, 4)
    for layer in range(ODD.num_hidden_layers):
        tensors[f"block.{layer}.mlp.mlp1_weight"] *= 20
    tokens = np.arange(64)
    ours = torch_model(ODD, tensors)(torch.from_numpy(tokens))
    theirs = transformers_model(ODD, tensors)(torch.from_numpy(tokens)[None]).logits[0]
    assert relative_error(ours, theirs) < FP32_BOUND
    assert relative_error(ours, oracle.logits(ODD, tensors, tokens)) < FP32_BOUND


def test_long_positions_equal_transformers():
    config = dataclasses.replace(ODD, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2)
    tensors = random_tensors(config, 6)
    tokens = torch.from_numpy(np.random.default_rng(7).integers(0, config.vocab_size, 5001))
    ours = torch_model(config, tensors)(tokens)
    theirs = transformers_model(config, tensors)(tokens[None]).logits[0]
    for position in (0, 127, 128, 129, 150, 4095, 4096, 5000):
        assert relative_error(ours[position], theirs[position]) < FP32_BOUND, f"position {position}"


def test_bf16_stays_within_its_bound_of_the_fp64_oracle():
    tensors = random_tensors(ODD, 8)
    # The bound is about arithmetic, so the oracle gets the rounded weights.
    rounded = {
        k: torch.from_numpy(v).bfloat16().float().numpy() if not k.endswith("scale") else v for k, v in tensors.items()
    }
    for layer in range(ODD.num_hidden_layers):
        rounded[f"block.{layer}.mlp.gate.weight"] *= 0  # routing by bias alone: a flipped near-tie is not rounding
    tokens = np.random.default_rng(9).integers(0, ODD.vocab_size, 200)
    ours = torch_model(ODD, rounded, torch.bfloat16)(torch.from_numpy(tokens))
    assert ours.dtype == torch.float32
    assert relative_error(ours, oracle.logits(ODD, rounded, tokens)) < BF16_BOUND


def test_batch_rows_are_independent_sequences():
    # In fp64 rounding cannot decide which experts a token gets.
    model = torch_model(ODD, random_tensors(ODD, 10), torch.float64)
    tokens = torch.randint(0, ODD.vocab_size, (3, 131))
    together = model(tokens)
    for row in range(3):
        assert relative_error(together[row], model(tokens[row])) < 1e-12


def test_gradients_are_right():
    config = dataclasses.replace(
        ODD, num_hidden_layers=2, hidden_size=32, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, vocab_size=11, num_experts=3, experts_per_token=2, sliding_window=3,
    )  # fmt: skip
    model = torch_model(config, random_tensors(config, 11), torch.float64).requires_grad_(True)
    tokens = torch.tensor([1, 5, 2, 9, 3])
    names = ["embedding.weight", "block.0.attn.sinks", "block.0.attn.qkv.bias", "block.1.mlp.mlp1_bias",
             "block.1.mlp.gate.weight", "block.0.mlp.mlp2_weight", "block.1.attn.norm.scale"]  # fmt: skip
    parameters = dict(model.named_parameters())

    def run(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (tokens,))

    inputs = tuple(parameters[name].detach().double().requires_grad_() for name in names)
    assert torch.autograd.gradcheck(run, inputs, eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_gradients_in_fp32_reach_every_parameter():
    model = torch_model(ODD, random_tensors(ODD, 12)).requires_grad_(True)
    model(torch.randint(0, ODD.vocab_size, (2, 150))).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


def test_positions_beyond_the_context_are_refused():
    config = dataclasses.replace(ODD, initial_context_length=64, rope_scaling_factor=2.0)
    model = torch_model(config, random_tensors(config, 13))
    model(torch.zeros(128, dtype=torch.long))
    with pytest.raises(ValueError, match="129 tokens do not fit the context of 128"):
        model(torch.zeros(129, dtype=torch.long))


def test_uninitialised_model_has_the_checkpoint_names():
    names = {name for name, _ in Transformer(ODD, "meta").named_parameters()}
    assert {
        "embedding.weight",
        "norm.scale",
        "unembedding.weight",
        "block.2.attn.sinks",
        "block.0.mlp.mlp2_bias",
    } <= names
    assert len(names) == 3 + 13 * ODD.num_hidden_layers

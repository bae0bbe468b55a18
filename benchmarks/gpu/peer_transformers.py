"""transformers' GptOss on the weights of a benchmark model: the peer that needs nothing from elsewhere.

In: packed random weights (random_weights.py). Out: the same numbers as a `GptOssForCausalLM`, and its times. It holds
the experts in the type of the dense weights, BF16 when it is timed: so gpt-oss-20b takes 42 GB.
"""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu.random_weights import RandomWeights
from benchmarks.gpu.timing import milliseconds
from gpt_oss.config import ModelConfig
from gpt_oss.mxfp4 import FP4_VALUES
from gpt_oss.triton.layout import FIELD_BITS, PAIR_ROTATIONS, PackedExperts
from gpt_oss.triton.weights import LayerWeights, ModelWeights

PROMPT = 1024
MODES = ("eager", "grouped_mm", "batched_mm")


def unpacked(packed: PackedExperts, expert: int, *, interleaved_rows: bool) -> torch.Tensor:
    """One expert as BF16 [rows, k], exactly: layout.py read backwards, bit by bit from its formulas."""
    words = packed.words[expert].view(packed.tiles, packed.steps, 8, 4, 2, 2)  # tile, step, g, t, b, r
    values = torch.tensor(FP4_VALUES, device=words.device)
    halves = []
    for rotations in PAIR_ROTATIONS:
        for half in (0, 1):
            code = torch.zeros_like(words)
            for target, rotation in zip(FIELD_BITS, rotations, strict=True):
                code = code << 1 | (words >> ((target + 16 * half - rotation) % 32)) & 1
            halves.append(values[code.long()])
    scales = packed.scales[expert].view(packed.tiles, packed.steps, 8, 1, 2, 2, 1)
    weights = torch.stack(halves, -1) * torch.exp2(scales.float() - 127)
    # Rows of mlp1 alternate gate and linear, which are the halves r of a tile; k runs over step, b, t and the word.
    order = (0, 2, 5, 1, 4, 3, 6) if interleaved_rows else (0, 5, 2, 1, 4, 3, 6)
    rows = weights.permute(order).reshape(packed.tiles * 16, packed.padded_k)
    return rows[: packed.rows, : packed.k].bfloat16()


def state_dict(config: ModelConfig, weights: ModelWeights) -> dict[str, torch.Tensor]:
    """Under transformers' names; dense tensors are shared, experts are new."""
    state = {
        "model.embed_tokens.weight": weights.embedding,
        "model.norm.weight": weights.norm.to(weights.embedding.dtype),
        "lm_head.weight": weights.unembedding,
    }
    for number, layer in enumerate(weights.layers):
        for name, tensor in _layer(config, layer):
            state[f"model.layers.{number}.{name}"] = tensor
    return state


def _layer(config: ModelConfig, layer: LayerWeights) -> Iterator[tuple[str, torch.Tensor]]:
    yield "input_layernorm.weight", layer.attention_norm.to(layer.qkv.dtype)
    heads = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]
    rows = [count * config.head_dim for count in heads]
    for kind, tensor in (("weight", layer.qkv), ("bias", layer.qkv_bias)):
        for name, part in zip("qkv", tensor.split(rows), strict=True):
            yield f"self_attn.{name}_proj.{kind}", part
    yield "self_attn.o_proj.weight", layer.out
    yield "self_attn.o_proj.bias", layer.out_bias
    yield "self_attn.sinks", layer.sinks
    yield "post_attention_layernorm.weight", layer.mlp_norm.to(layer.qkv.dtype)
    yield "mlp.router.weight", layer.router.t()[: config.num_experts].contiguous()
    yield "mlp.router.bias", layer.router_bias
    for name, packed, bias, interleaved in (
        ("gate_up_proj", layer.mlp1, layer.mlp1_bias, True),
        ("down_proj", layer.mlp2, layer.mlp2_bias, False),
    ):
        experts = torch.empty(config.num_experts, packed.k, packed.rows, dtype=bias.dtype, device=bias.device)
        for expert in range(config.num_experts):
            experts[expert] = unpacked(packed, expert, interleaved_rows=interleaved).t()
        yield f"mlp.experts.{name}", experts
        yield f"mlp.experts.{name}_bias", bias


def build(config: ModelConfig, weights: ModelWeights) -> Any:
    """A `GptOssForCausalLM` with these weights, on their device."""
    from transformers import GptOssConfig, GptOssForCausalLM
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding

    theirs = GptOssConfig(
        num_hidden_layers=config.num_hidden_layers, num_local_experts=config.num_experts,
        num_experts_per_tok=config.experts_per_token, vocab_size=config.vocab_size, hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size, head_dim=config.head_dim,
        num_attention_heads=config.num_attention_heads, num_key_value_heads=config.num_key_value_heads,
        sliding_window=config.sliding_window,
    )  # fmt: skip
    with torch.device("meta"):
        model = GptOssForCausalLM(theirs)
    model.load_state_dict(state_dict(config, weights), assign=True)
    model.model.rotary_emb = GptOssRotaryEmbedding(theirs).to(weights.embedding.device)  # not in the state
    return model.eval()


def measure(config: ModelConfig, device: torch.device) -> Iterator[tuple[str, dict[str, Any]]]:
    """Prefill of PROMPT tokens and decoding behind them, in each of its ways to run experts: milliseconds."""
    weights = RandomWeights(config, device).model()
    model = build(config, weights)
    del weights
    tokens = torch.randint(0, config.vocab_size, (1, PROMPT), device=device)
    for mode in MODES:
        model.set_experts_implementation(mode)
        for name, run in (("prefill", _prefill), ("decode", _decode)):
            try:
                yield f"{mode} {name} at {PROMPT}", run(model, tokens)
            except torch.cuda.OutOfMemoryError as error:
                yield f"{mode} {name} at {PROMPT}", {"error": str(error).splitlines()[0]}


def _prefill(model: Any, tokens: torch.Tensor) -> dict[str, float]:
    found = milliseconds(lambda: model(tokens, logits_to_keep=1), 3, 1)
    return found | {"tokens_per_second": tokens.shape[1] / found["median"] * 1e3}


def _decode(model: Any, tokens: torch.Tensor) -> dict[str, float]:
    cache = model(tokens, logits_to_keep=1).past_key_values
    found = milliseconds(lambda: model(tokens[:, :1], past_key_values=cache), 32, 4)
    return found | {"tokens_per_second": 1e3 / found["median"]}

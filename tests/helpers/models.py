"""Random models for tests: odd shapes, weights on which every trap of the architecture shows."""

import math

import numpy as np
import torch

from gpt_oss.config import ModelConfig
from gpt_oss.torch.model import Transformer

ODD = ModelConfig(
    num_hidden_layers=3,
    num_experts=6,
    experts_per_token=4,
    vocab_size=331,
    hidden_size=96,
    intermediate_size=160,
    head_dim=64,
    num_attention_heads=16,
    num_key_value_heads=4,
)


def random_tensors(config, seed):
    """Real-valued tensors under `original/` names, float32; MLP inputs large enough to pass the SwiGLU clamp."""
    generator = np.random.default_rng(seed)
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in Transformer(config, "meta").named_parameters()}
    result = {}
    for name, shape in shapes.items():
        scale = 1.0 if name.endswith(("sinks", "mlp1_bias")) else 1.5 / np.sqrt(shape[-1])
        if name.endswith("mlp1_weight"):
            scale *= 3
        if name == "embedding.weight":
            scale = 1.0
        value = generator.normal(0, scale, shape)
        result[name] = (1 + 0.2 * value if name.endswith("norm.scale") else value).astype(np.float32)
    return result


def torch_model(config, tensors, dtype=torch.float32):
    """The product's model holding `tensors`."""
    model = Transformer(config, "cpu", dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(tensors[name]))
    return model.requires_grad_(False)


def transformers_model(config, tensors, dtype=torch.float32, experts="eager"):
    """The same weights in transformers' implementation."""
    from transformers import GptOssConfig, GptOssForCausalLM

    values = config.to_hf_dict() | {"dtype": dtype}
    values.pop("torch_dtype")
    hf_config = GptOssConfig(**values, attn_implementation="eager", experts_implementation=experts)
    with torch.device("meta"):
        model = GptOssForCausalLM(hf_config)
    model = model.to_empty(device="cpu").to(dtype)
    rotary = model.model.rotary_emb
    fresh = type(rotary)(hf_config)
    rotary.inv_freq.copy_(fresh.inv_freq)
    rotary.inv_freq = fresh.inv_freq
    model.load_state_dict({k: torch.from_numpy(v).to(dtype) for k, v in hf_state(config, tensors).items()}, strict=True)
    return model.eval().requires_grad_(False)


def hf_state(config, tensors):
    """`original/` tensors under the names and in the orientation of `save_pretrained` without quantisation."""
    state = {
        "model.embed_tokens.weight": tensors["embedding.weight"],
        "model.norm.weight": tensors["norm.scale"],
        "lm_head.weight": tensors["unembedding.weight"],
    }
    d = config.head_dim
    bounds = np.cumsum([config.num_attention_heads * d, config.num_key_value_heads * d])
    for n in range(config.num_hidden_layers):
        source, target = f"block.{n}.", f"model.layers.{n}."
        state[target + "input_layernorm.weight"] = tensors[source + "attn.norm.scale"]
        state[target + "post_attention_layernorm.weight"] = tensors[source + "mlp.norm.scale"]
        state[target + "self_attn.sinks"] = tensors[source + "attn.sinks"]
        for part in ("weight", "bias"):
            split = np.split(tensors[f"{source}attn.qkv.{part}"], bounds)
            for letter, value in zip("qkv", split, strict=True):
                state[f"{target}self_attn.{letter}_proj.{part}"] = value
            state[f"{target}self_attn.o_proj.{part}"] = tensors[f"{source}attn.out.{part}"]
            state[f"{target}mlp.router.{part}"] = tensors[f"{source}mlp.gate.{part}"]
        for ours, theirs in (("mlp1", "gate_up_proj"), ("mlp2", "down_proj")):
            state[f"{target}mlp.experts.{theirs}"] = tensors[f"{source}mlp.{ours}_weight"].transpose(0, 2, 1).copy()
            state[f"{target}mlp.experts.{theirs}_bias"] = tensors[f"{source}mlp.{ours}_bias"]
    return state


def router_gap(model, tokens):
    """By how much the last expert that a router takes leads the first that it leaves: the least of all choices."""
    gaps, k = [math.inf], model.config.experts_per_token

    def look(mlp, arguments):
        logits = mlp.router_logits(mlp.norm(arguments[0]))
        if k < logits.shape[-1]:
            *_, last, first = logits.topk(k + 1).values.unbind(-1)
            gaps.append((last - first).min().item())

    hooks = [block.mlp.register_forward_pre_hook(look) for block in model.block]
    with torch.inference_mode():
        model(torch.as_tensor(tokens))
    for hook in hooks:
        hook.remove()
    return min(gaps)


def decided(model, draw, gap=1e-4, others=lambda tokens: ()):
    """The tokens that `draw` gives, drawn anew while rounding may decide in them, or in `others`, what a router takes.

    Either expert is right then, and the logits differ far beyond rounding. The routers' logits of `random_tensors`
    are off by up to 2e-5 in fp32, and their least gap in some hundred tokens is about 1e-3.
    """
    for _ in range(100):
        tokens = draw()
        if all(router_gap(model, each) > gap for each in (tokens, *others(tokens))):
            return tokens
    raise AssertionError("a router was undecided in each of a hundred draws")


def relative_error(actual, expected):
    """max|a - e| / max|e|: the one measure used by all parity tests."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert np.isfinite(actual).all()
    return np.abs(actual - expected).max() / np.abs(expected).max()

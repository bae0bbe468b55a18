"""An fp64 NumPy gpt-oss, written from spec/model.md alone: slow, obvious, shares no code with the product."""

import math

import numpy as np


def logits(config, tensors, tokens):
    """[n, vocab] float64 logits of token ids [n]. `tensors`: name -> array, experts already real-valued."""
    w = {name: np.asarray(value, dtype=np.float64) for name, value in tensors.items()}
    x = w["embedding.weight"][np.asarray(tokens)]
    for layer in range(config.num_hidden_layers):
        p = f"block.{layer}."
        window = config.sliding_window if layer % 2 == 0 else len(tokens)
        x = x + attention(config, {k[len(p) :]: v for k, v in w.items() if k.startswith(p)}, x, window)
        x = x + mixture(config, {k[len(p) :]: v for k, v in w.items() if k.startswith(p)}, x)
    return norm(x, w["norm.scale"]) @ w["unembedding.weight"].T


def norm(x, gain):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain


def attention(config, w, x, window):
    n, d = len(x), config.head_dim
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    qkv = norm(x, w["attn.norm.scale"]) @ w["attn.qkv.weight"].T + w["attn.qkv.bias"]
    q = qkv[:, : heads * d].reshape(n, heads, d)
    k = qkv[:, heads * d : (heads + kv) * d].reshape(n, kv, d)
    v = qkv[:, (heads + kv) * d :].reshape(n, kv, d)
    q, k = rope(config, q), rope(config, k)
    out = np.zeros((n, heads, d))
    for head in range(heads):
        group = head // (heads // kv)
        for i in range(n):
            first = max(0, i - window + 1)
            score = k[first : i + 1, group] @ q[i, head] / math.sqrt(d)
            sink = w["attn.sinks"][head]
            top = max(score.max(), sink)
            weight = np.exp(score - top)
            out[i, head] = weight @ v[first : i + 1, group] / (weight.sum() + np.exp(sink - top))
    return out.reshape(n, heads * d) @ w["attn.out.weight"].T + w["attn.out.bias"]


def rope(config, x):
    n, _, d = x.shape
    half = d // 2

    def bound(beta):
        return half * math.log(config.initial_context_length / (beta * 2 * math.pi)) / math.log(config.rope_theta)

    low, high = max(bound(config.rope_ntk_beta), 0), min(bound(config.rope_ntk_alpha), d - 1)
    out = np.empty_like(x)
    concentration = 0.1 * math.log(config.rope_scaling_factor) + 1
    for i in range(half):
        ramp = min(max((i - low) / (high - low), 0), 1)
        frequency = config.rope_theta ** (-2 * i / d)
        frequency = frequency * (1 - ramp) + frequency / config.rope_scaling_factor * ramp
        angle = np.arange(n) * frequency
        cos, sin = np.cos(angle)[:, None] * concentration, np.sin(angle)[:, None] * concentration
        out[..., i] = x[..., i] * cos - x[..., i + half] * sin
        out[..., i + half] = x[..., i + half] * cos + x[..., i] * sin
    return out


def mixture(config, w, x):
    t = norm(x, w["mlp.norm.scale"])
    gates = t @ w["mlp.gate.weight"].T + w["mlp.gate.bias"]
    out = np.zeros_like(x)
    for i in range(len(x)):
        chosen = np.argsort(-gates[i], kind="stable")[: config.experts_per_token]
        weight = np.exp(gates[i, chosen] - gates[i, chosen].max())
        weight /= weight.sum()
        for share, e in zip(weight, chosen, strict=True):
            h = w["mlp.mlp1_weight"][e] @ t[i] + w["mlp.mlp1_bias"][e]
            gate, linear = (
                np.minimum(h[0::2], config.swiglu_limit),
                np.clip(h[1::2], -config.swiglu_limit, config.swiglu_limit),
            )
            act = gate / (1 + np.exp(-1.702 * gate)) * (linear + 1)
            out[i] += share * (w["mlp.mlp2_weight"][e] @ act + w["mlp.mlp2_bias"][e])
    return out

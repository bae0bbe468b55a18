"""Naive twins of the kernels in float64, one formula each, and small random models to run both on."""

import numpy as np
import torch

from gpt_oss import mxfp4
from gpt_oss.config import ModelConfig
from gpt_oss.rope import cos_sin
from gpt_oss.triton.cache import KVCache
from gpt_oss.triton.decode import DecodeStep, SlotState
from gpt_oss.triton.layout import pack
from gpt_oss.triton.variants import choose_variant
from gpt_oss.triton.weights import LayerWeights, ModelWeights, padded_experts

SMALL = ModelConfig(
    num_hidden_layers=2, num_experts=6, experts_per_token=4, vocab_size=331, hidden_size=96, intermediate_size=32,
    head_dim=16, num_attention_heads=16, num_key_value_heads=4,
)  # fmt: skip


def tolerance(device, dtype=torch.float32):
    """Relative to the largest value: fp32 sums in another order, or one bf16 rounding of operands and results."""
    return 2e-5 if dtype == torch.float32 and device.type == "cpu" else 2e-2 if dtype == torch.bfloat16 else 1e-3


def assert_close(found, expected, relative):
    """|found - expected| ≤ relative · max |expected|, and no NaN anywhere."""
    found, expected = found.double().cpu(), expected.double().cpu()
    assert found.shape == expected.shape
    assert not found.isnan().any()
    worst = (found - expected).abs().max().item()
    assert worst <= relative * expected.abs().max().item(), f"off by {worst}, largest {expected.abs().max().item()}"


def rms_norm(x, gain, eps=1e-5):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain


def swiglu(h, limit=7.0):
    gate, linear = h[..., 0::2].clamp(max=limit), h[..., 1::2].clamp(-limit, limit)
    return gate * torch.sigmoid(1.702 * gate) * (linear + 1)


def rotate(x, cos, sin):
    """x [..., head] with cos and sin [head / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(q, keys, values, sinks, window):
    """q [q heads, head] at the last of the positions of keys and values [kv heads, n, head]."""
    if window:
        keys, values = keys[:, -window:], values[:, -window:]
    group = q.shape[0] // keys.shape[0]
    out = []
    for head in range(q.shape[0]):
        scores = torch.cat([keys[head // group] @ q[head] / q.shape[1] ** 0.5, sinks[head : head + 1]])
        out.append(scores.softmax(0)[:-1] @ values[head // group])
    return torch.stack(out)


class Experts:
    """A random MXFP4 projection: packed, and as float64."""

    def __init__(self, generator, experts, rows, k, interleaved, device, scales=(118, 124), codes=0xFF):
        """codes: the bits of each byte, two values, that may be set; 0xBB leaves values up to 1.5."""
        blocks = torch.randint(0, 256, (experts, rows, k // 32, 16), generator=generator, dtype=torch.uint8) & codes
        bytes_ = torch.randint(scales[0], scales[1], (experts, rows, k // 32), generator=generator, dtype=torch.uint8)
        powers = np.ldexp(1.0, bytes_.numpy().astype(int) - 127)  # float64 holds what float32 overflows on
        values = mxfp4.PAIR_VALUES[blocks.numpy()].astype(np.float64).reshape(*bytes_.shape, 32) * powers[..., None]
        self.values = torch.from_numpy(values.reshape(experts, rows, k))
        self.packed = pack(blocks.to(device), bytes_.to(device), interleaved_rows=interleaved)


class RandomModel:
    """Random weights of a small config on a device, and a decode step whose outputs are poisoned."""

    def __init__(self, generator, device, config=SMALL, dtype=torch.float32, scales=(118, 124)):
        self.config, self.device, self.dtype, self.generator = config, device, dtype, generator
        self.mlp1, self.mlp2 = (
            Experts(generator, config.num_experts, rows, k, interleaved, device, scales)
            for rows, k, interleaved in (
                (2 * config.intermediate_size, config.hidden_size, True),
                (config.hidden_size, config.intermediate_size, False),
            )
        )
        hidden, experts = config.hidden_size, config.num_experts
        router = torch.zeros(hidden, padded_experts(experts))
        router[:, :experts] = torch.randn(hidden, experts, generator=generator)
        heads = config.num_attention_heads
        self.layer = LayerWeights(
            # Queries and keys of a trained model's size; with larger ones a sink may take all of the softmax.
            attention_norm=self.normal(hidden).float(), qkv=self.normal(config.qkv_rows, hidden) / hidden**0.5,
            qkv_bias=self.normal(config.qkv_rows), sinks=self.normal(heads),
            out=self.normal(hidden, heads * config.head_dim), out_bias=self.normal(hidden),
            mlp_norm=self.normal(hidden).float(),
            router=router.to(device, dtype), router_bias=self.normal(experts),
            mlp1=self.mlp1.packed, mlp1_bias=self.normal(experts, 2 * config.intermediate_size),
            mlp2=self.mlp2.packed, mlp2_bias=self.normal(experts, hidden),
        )  # fmt: skip
        self.weights = ModelWeights(
            embedding=self.normal(config.vocab_size, hidden), layers=[self.layer], norm=self.normal(hidden).float(),
            unembedding=self.normal(config.vocab_size, hidden),
        )  # fmt: skip

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator).to(self.device, self.dtype)

    def wide(self, tensor):
        return tensor.double().cpu()

    def step(self, batch, context=1200, margin=2048, slots=None, variant=None):
        """A decode step of `batch` rows in which row i uses slot i; every floating-point buffer is NaN."""
        slots = slots or batch
        cache = KVCache(self.config, slots, context, self.device, self.dtype, margin)
        rope = tuple(torch.from_numpy(table).to(self.device) for table in cos_sin(self.config, context))
        state = SlotState(slots, self.device)
        variant = variant or choose_variant(self.device, self.dtype)
        step = DecodeStep(self.config, self.weights, rope, cache, state, variant, batch, splits=8)
        step.slots.copy_(torch.arange(batch))
        for name in (
            "x", "qkv_out", "attention_out", "partial", "stats", "squares", "shares", "expert_weights", "expert_out",
            "logits", "block_max", "block_sum", "block_mass", "logprobs", "log_totals",
        ):  # fmt: skip
            getattr(step, name).fill_(float("nan"))
        step.normed[:, : self.config.hidden_size] = float("nan")
        step.hidden[:, : self.config.intermediate_size] = float("nan")
        return step

    def experts(self, t, ids, weights):
        """Σ weight · expert(t) in float64, [tokens, hidden]."""
        out = torch.zeros(len(t), self.config.hidden_size, dtype=torch.float64)
        for token in range(len(t)):
            for expert, weight in zip(ids[token].tolist(), weights[token], strict=True):
                h = swiglu(self.mlp1.values[expert] @ t[token] + self.wide(self.layer.mlp1_bias)[expert])
                out[token] += weight * (self.mlp2.values[expert] @ h + self.wide(self.layer.mlp2_bias)[expert])
        return out

"""The transformer of `gpt_oss.torch.model`, arranged for training in large batches on a CPU.

`TrainingTransformer` *is* that class: same parameters, same names, same function (a test compares the logits). Only
`hidden_states` goes another way to the same sums: the work of all experts lies in one buffer, attention goes over all
rows of a batch at once, and elementwise work is compiled. It knows tokens by compact number, ties the unembedding to
the embedding, and can look at its expert weights through MXFP4.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt_oss.config import ModelConfig
from gpt_oss.torch.model import SWIGLU_ALPHA, Transformer

COMPUTE = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
"""Type of the products in training: BF16 where the processor multiplies it, else fp32, which is far faster there."""


def demo_config(vocab_size: int) -> ModelConfig:
    """The shape of the demo model; everything that is not a size is as in the released models."""
    return ModelConfig(
        num_hidden_layers=6,
        num_experts=8,
        experts_per_token=4,
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=96,
        head_dim=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=128,
    )


def through_mxfp4(weight: Tensor) -> Tensor:
    """The nearest MXFP4 values of a weight, with the gradient passed straight through (arXiv:1308.3432).

    Equal to `mxfp4.decode(*mxfp4.encode(weight))`; blocks of 32 along the last axis.
    """
    with torch.no_grad():
        grouped = weight.float().unflatten(-1, (-1, 32))
        exponent = torch.frexp(grouped.abs().amax(-1, keepdim=True))[1] - 3
        scaled = torch.ldexp(grouped, -exponent).abs()
        # Steps of 0.5 below 2, of 1 below 4, of 2 up to 6; round() takes ties to even, which is the even code.
        step = torch.where(scaled < 2, 0.5, torch.where(scaled < 4, 1.0, 2.0))
        rounded = ((scaled / step).round() * step).clamp(max=6)
        nearest = torch.ldexp(rounded * grouped.sign(), exponent).flatten(-2)
    return weight + (nearest - weight).detach()


def _norm(x: Tensor, scale: Tensor) -> Tensor:
    t = x.float()
    return (t * torch.rsqrt(t.square().mean(-1, keepdim=True) + 1e-5) * scale).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


@torch.compile(dynamic=False)
def _queries_keys_values(
    x: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, cos: Tensor, sin: Tensor, heads: int, kv: int
) -> tuple[Tensor, Tensor, Tensor]:
    """x [t, h] -> q [t, heads, d], already divided by sqrt(d), k and v [t, kv, d]."""
    d = 2 * cos.shape[-1]
    qkv = F.linear(_norm(x, scale), weight, bias).unflatten(-1, (-1, d))
    q, k, v = qkv.split((heads, kv, kv), dim=1)
    q, k = _rotate(q, cos[:, None], sin[:, None]) * d**-0.5, _rotate(k, cos[:, None], sin[:, None])
    return q.to(x.dtype), k.to(x.dtype), v.contiguous()


@torch.compile(dynamic=True)
def _softmax_with_sink(scores: Tensor, sinks: Tensor, first_row: int, window: int) -> Tensor:
    """Causal, windowed softmax of scores [b, heads, m, n] whose denominator has one more term, exp(sink).

    Row i of them is at the position of column first_row + i.
    """
    row, column = torch.arange(scores.shape[-2])[:, None] + first_row, torch.arange(scores.shape[-1])
    s = torch.where((column <= row) & (row - column < window), scores.float(), -torch.inf)
    sink = sinks[:, None, None]
    largest = torch.maximum(s.amax(-1, keepdim=True), sink)
    e = torch.exp(s - largest)
    return (e / (e.sum(-1, keepdim=True) + torch.exp(sink - largest))).to(scores.dtype)


@torch.compile(dynamic=True)
def _softmax_with_sink_backward(p: Tensor, dp: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the scores and of the sinks; hidden scores have p = 0 and so no gradient."""
    pf, dpf = p.float(), dp.float()
    inner = (pf * dpf).sum(-1, keepdim=True)
    sink_share = 1 - pf.sum(-1, keepdim=True)
    return (pf * (dpf - inner)).to(p.dtype), -(sink_share * inner).sum((0, 2, 3))


class _Attention(torch.autograd.Function):
    """Causal attention with sinks by blocks of queries, each with no other keys than it can see.

    q [b, kv, group, n, d], k and v [b, kv, n, d], sinks [kv · group] -> [b, kv, group, n, d]. Only the probabilities
    of the blocks are kept for the backward pass.
    """

    ROWS = 128

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int) -> Tensor:
        b, kv, group, n, d = q.shape
        mixed, kept = torch.empty_like(q), []
        for rows, seen in _Attention.blocks(n, window):
            # The query heads of a key-value head are rows of one product.
            scores = q[:, :, :, rows].reshape(b * kv, -1, d) @ k[:, :, seen].flatten(0, 1).mT
            scores = scores.view(b, kv * group, -1, scores.shape[-1])
            p = _softmax_with_sink(scores, sinks, rows.start - seen.start, window)
            product = p.view(b * kv, -1, p.shape[-1]) @ v[:, :, seen].flatten(0, 1)
            mixed[:, :, :, rows] = product.view(b, kv, group, -1, d)
            kept.append(p)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.window = window
        return mixed

    @staticmethod
    def backward(ctx: Any, dmixed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        b, kv, group, n, d = q.shape
        dq, dk, dv, dsinks = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), 0.0
        for (rows, seen), p in zip(_Attention.blocks(n, ctx.window), kept, strict=True):
            dm = dmixed[:, :, :, rows].reshape(b * kv, -1, d)
            dp = (dm @ v[:, :, seen].flatten(0, 1).mT).view_as(p)
            dscores, dsink = _softmax_with_sink_backward(p, dp)
            dsinks += dsink
            dscores, p = (t.view(b * kv, -1, t.shape[-1]) for t in (dscores, p))
            dq[:, :, :, rows] = (dscores @ k[:, :, seen].flatten(0, 1)).view(b, kv, group, -1, d)
            dk[:, :, seen] += (dscores.mT @ q[:, :, :, rows].reshape(b * kv, -1, d)).view(b, kv, -1, d)
            dv[:, :, seen] += (p.mT @ dm).view(b, kv, -1, d)
        return dq, dk, dv, dsinks, None

    @staticmethod
    def blocks(n: int, window: int) -> Iterator[tuple[slice, slice]]:
        """(queries, the keys they see) of each block."""
        for start in range(0, n, _Attention.ROWS):
            stop = min(start + _Attention.ROWS, n)
            yield slice(start, stop), slice(max(0, start - window + 1), stop)


@torch.compile(dynamic=False)
def _before_experts(
    x: Tensor, mixed: Tensor, out_w: Tensor, out_b: Tensor, scale: Tensor, gate_w: Tensor, gate_b: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output projection, norm and router: x, its norm, shares fp32 [t, e] with k of each row not 0, chosen [t, k]."""
    x = x + F.linear(mixed, out_w, out_b)
    t = _norm(x, scale)
    scores = F.linear(t, gate_w, gate_b).float()
    top = scores.topk(k, dim=-1)
    shares = torch.zeros_like(scores).scatter(1, top.indices, torch.softmax(top.values, dim=-1))
    return x, t, shares, top.indices


@torch.compile(dynamic=False)
def _swiglu(hidden: Tensor, share: Tensor) -> Tensor:
    """swiglu of [p, 2i], all gate columns before all linear ones, times share [p]; returns [p, i]."""
    gate, linear = hidden.float().chunk(2, dim=-1)
    gate, linear = gate.clamp(max=7.0), linear.clamp(-7.0, 7.0)
    return (gate * torch.sigmoid(SWIGLU_ALPHA * gate) * (linear + 1) * share[:, None]).to(hidden.dtype)


@torch.compile(dynamic=False)
def _swiglu_backward(hidden: Tensor, share: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The value again, and the gradients of hidden and share for the value's gradient d."""
    gate, linear = hidden.float().chunk(2, dim=-1)
    inside = torch.cat((gate <= 7.0, linear.abs() <= 7.0), dim=-1)
    gate, linear = gate.clamp(max=7.0), linear.clamp(-7.0, 7.0)
    sigmoid = torch.sigmoid(SWIGLU_ALPHA * gate)
    value = gate * sigmoid * (linear + 1)
    dshare = (d.float() * value).sum(-1)
    d = d.float() * share[:, None]
    dgate = d * (linear + 1) * sigmoid * (1 + SWIGLU_ALPHA * gate * (1 - sigmoid))
    dhidden = torch.where(inside, torch.cat((dgate, d * gate * sigmoid), dim=-1), 0.0)
    return (value * share[:, None]).to(hidden.dtype), dhidden.to(hidden.dtype), dshare


class _Experts(torch.autograd.Function):
    """The chosen experts' outputs, weighted and summed, without the second bias: [t, h] -> [t, h].

    t [t, h]; shares [t, e]; chosen [t, k]; w1 [e, 2i, h], gate rows first; b1 [e, 2i]; w2 [e, h, i]. Pairs of token and
    expert lie sorted by expert in a buffer of fixed size, each expert's in a piece that is a multiple of `ROWS` long,
    because every new shape costs the matrix library a new kernel. What fills up a piece has a share of 0.
    """

    ROWS = 128

    @staticmethod
    def forward(ctx: Any, t: Tensor, shares: Tensor, chosen: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
        n, k = chosen.shape
        order = chosen.flatten().argsort(stable=True)
        experts, tokens = chosen.flatten()[order], order // k
        counts = experts.bincount(minlength=len(w1))
        pieces = -(-counts // _Experts.ROWS) * _Experts.ROWS
        place = torch.arange(n * k) + ((pieces - counts).cumsum(0) - (pieces - counts))[experts]
        token_at = torch.zeros(n * k + len(w1) * _Experts.ROWS, dtype=torch.long)
        share = torch.zeros(len(token_at))
        place_of = torch.empty_like(order)
        token_at[place], share[place], place_of[order] = tokens, shares[tokens, experts], place
        rows = t.index_select(0, token_at)
        hidden, out = t.new_zeros(len(rows), w1.shape[1]), t.new_zeros(len(rows), t.shape[1])
        parts = _slices(pieces.tolist())
        for expert, part in enumerate(parts):
            torch.addmm(b1[expert], rows[part], w1[expert].T, out=hidden[part])
        active = _swiglu(hidden, share)
        for expert, part in enumerate(parts):
            torch.mm(active[part], w2[expert].T, out=out[part])
        ctx.save_for_backward(rows, hidden, share, token_at, place_of, tokens, experts, place, w1, w2)
        ctx.parts = parts
        return out.index_select(0, place_of).view(n, k, -1).sum(1)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, None, Tensor, Tensor, Tensor]:
        rows, hidden, share, token_at, place_of, tokens, experts, place, w1, w2 = ctx.saved_tensors
        dout_rows = dout.index_select(0, token_at)
        dactive, drows = hidden.new_zeros(len(rows), w2.shape[2]), torch.zeros_like(rows)
        for expert, part in enumerate(ctx.parts):
            torch.mm(dout_rows[part], w2[expert], out=dactive[part])
        active, dhidden, dshare = _swiglu_backward(hidden, share, dactive)
        dw1, db1, dw2 = torch.empty_like(w1), w1.new_empty(w1.shape[:2]), torch.empty_like(w2)
        for expert, part in enumerate(ctx.parts):
            torch.mm(dout_rows[part].T, active[part], out=dw2[expert])
            torch.mm(dhidden[part].T, rows[part], out=dw1[expert])
            torch.mm(dhidden[part], w1[expert], out=drows[part])
            torch.sum(dhidden[part], 0, out=db1[expert])
        dshares = torch.zeros(len(dout), len(w1))
        dshares[tokens, experts] = dshare[place]
        dt = drows.index_select(0, place_of).view(len(dout), -1, rows.shape[1]).sum(1)
        return dt, dshares, None, dw1, db1, dw2


def _slices(lengths: list[int]) -> list[slice]:
    """Neighbouring slices of these lengths."""
    ends = list(itertools.accumulate(lengths))
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


class TrainingTransformer(Transformer):
    """`Transformer` in fp32 with a batch-oriented BF16 `hidden_states`; `unembedding` is the embedding's tensor."""

    def __init__(self, config: ModelConfig):
        super().__init__(config, dtype=torch.float32)
        self.unembedding.weight = self.embedding.weight
        self.quantised = False

    def initialise(self, seed: int, embedding: Tensor) -> None:
        """Random weights; `embedding` [v, h] is the start of the token rows (see `embedding_start`)."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if name.endswith(("norm.scale", "norm.scale")):
                    parameter.fill_(1.0)
                elif parameter.ndim == 1 or name.endswith("_bias"):
                    parameter.zero_()
                else:
                    std = parameter.shape[-1] ** -0.5
                    if name.endswith(("out.weight", "mlp2_weight")):
                        std /= math.sqrt(2 * self.config.num_hidden_layers)
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        with torch.no_grad():
            # Long rows keep a token recognisable in the residual stream; the last gain makes up for it in the logits.
            self.embedding.weight.copy_(4 * embedding)
            self.norm.scale.fill_(0.4)
            self._wire_copying(generator)

    def pass_through(self, layers: Iterable[int]) -> None:
        """Make these layers add nothing to the residual stream, so that a deeper model starts as a shallower one."""
        with torch.no_grad():
            for layer in layers:
                block = self.block[layer]
                for output in (block.attn.out.weight, block.attn.out.bias, block.mlp.mlp2_weight, block.mlp.mlp2_bias):
                    output.zero_()

    def _wire_copying(self, generator: torch.Generator) -> None:
        """Start two layers as an induction circuit (Olsson et al., 2022), which training finds late by itself.

        Layer 0: heads 0 and 1 look one and two positions back and note what they see. Layer 1: heads 0 and 2 look for a
        position whose note equals the present token, and add the token found there to the prediction.
        """
        d, h = self.config.head_dim, self.config.hidden_size
        basis, copied = (torch.linalg.qr(torch.randn(h, h, generator=generator))[0] for _ in range(2))
        first, second = self.block[0].attn, self.block[1].attn
        frequencies = self.config.rope_theta ** (-2 * torch.arange(6) / d)  # YaRN leaves the fast ones alone
        fast, slow = range(6), [i + half for half in (0, d // 2) for i in range(13, d // 2)]
        slow_rows = torch.tensor(slow)
        # Notes lie outside of what layer 1 reads of the present token, and those of head 1 outside of those of head 0.
        notes = [basis[d : 2 * d].clone(), torch.zeros(d, h)]
        rest = [row for row in range(d) if row not in slow]
        notes[1][: 2 * len(rest)] = torch.cat((basis[rest], basis[d:][rest]))[:d]
        k0 = self.config.num_attention_heads * d
        v0 = k0 + self.config.num_key_value_heads * d
        for head, back in enumerate((1, 2)):
            first.qkv.weight[head * d : (head + 1) * d] *= 0.05
            for pair in fast:
                turn = back * frequencies[pair]
                first.qkv.bias[head * d + pair] = 4.5 * torch.cos(turn)
                first.qkv.bias[head * d + d // 2 + pair] = -4.5 * torch.sin(turn)
                first.qkv.bias[k0 + pair] = 4.5
            first.out.weight[:, head * d : (head + 1) * d] = (0.8 if back == 1 else 0.2) * notes[head].T
        first.qkv.weight[k0 : k0 + d] *= 0.05
        first.qkv.weight[v0 : v0 + d] = basis[:d]
        second.sinks.fill_(4.0)
        first.out.weight[:, 2 * d :] *= 0.2
        self.block[0].mlp.mlp2_weight *= 0.2
        for group, head in enumerate((0, 2)):
            second.qkv.weight[head * d : (head + 1) * d] *= 0.1
            second.qkv.weight[head * d + slow_rows] = 2.0 * basis[slow_rows]
            second.qkv.weight[k0 + group * d : k0 + (group + 1) * d] *= 0.1
            second.qkv.weight[k0 + group * d + slow_rows] = 2.0 * notes[0][slow_rows]
            mine = copied[group * d : (group + 1) * d]
            second.qkv.weight[v0 + group * d : v0 + (group + 1) * d] = mine
            second.out.weight[:, head * d : (head + 1) * d] = 2.0 * mine.T

    def hidden_states(self, tokens: Tensor, total: int) -> Tensor:
        """Normalised last hidden states, BF16 [total, h]; tokens [b, n] with b·n <= total, row-major, zeros after.

        `total` is fixed during a run, so that compiled code sees one shape only.
        """
        b, n = tokens.shape
        flat = F.pad(tokens.flatten(), (0, total - b * n))
        positions = F.pad(torch.arange(n).repeat(b), (0, total - b * n))
        cos, sin = self.cos[positions], self.sin[positions]
        x = F.embedding(flat, self.embedding.weight.to(COMPUTE))
        for block in self.block:
            x = self._block(block, x, cos, sin, (b, n))
        return _norm(x, self.norm.scale)

    def _block(self, block: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, shape: tuple[int, int]) -> Tensor:
        attn, mlp = block.attn, block.mlp
        q, k, v = _queries_keys_values(
            x, attn.norm.scale, attn.qkv.weight.to(COMPUTE), attn.qkv.bias.to(COMPUTE), cos, sin,
            attn.heads, attn.kv_heads,
        )  # fmt: skip
        mixed = _attend(q, k, v, attn.sinks, shape, attn.window or shape[1])
        w1, w2 = mlp.mlp1_weight, mlp.mlp2_weight
        if self.quantised:
            w1, w2 = through_mxfp4(w1), through_mxfp4(w2)
        half = (t.to(COMPUTE) for t in (attn.out.weight, attn.out.bias))
        gate = (t.to(COMPUTE) for t in (mlp.gate.weight, mlp.gate.bias))
        x, t, shares, chosen = _before_experts(x, mixed, *half, mlp.norm.scale, *gate, self.config.experts_per_token)
        gates_first = (torch.cat((p[:, ::2], p[:, 1::2]), dim=1).to(COMPUTE) for p in (w1, mlp.mlp1_bias))
        mixture = _Experts.apply(t, shares, chosen, *gates_first, w2.to(COMPUTE))
        return x + mixture + (shares @ mlp.mlp2_bias).to(COMPUTE)


def _attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, shape: tuple[int, int], window: int) -> Tensor:
    """Causal attention of b rows of n positions; [total, heads, d] -> [total, heads · d], zeros after b · n."""
    b, n = shape
    total, heads, d = q.shape
    kv = k.shape[1]
    q, k, v = (t[: b * n].view(b, n, -1, d).transpose(1, 2).contiguous() for t in (q, k, v))
    t = _Attention.apply(q.unflatten(1, (kv, heads // kv)), k, v, sinks, window).flatten(1, 2)
    return F.pad(t.transpose(1, 2).reshape(b * n, heads * d), (0, 0, 0, total - b * n))


@torch.compile(dynamic=True)
def _log_sums(logits: Tensor, unknown: float, rows: int) -> tuple[Tensor, Tensor]:
    """log-sum-exp and largest logit of each row; `rows` columns count, the last of them `unknown` more."""
    shifted = _shifted(logits, unknown, rows)
    largest = shifted.amax(-1)
    return torch.log(torch.exp(shifted - largest[:, None]).sum(-1)) + largest, largest


@torch.compile(dynamic=True)
def _probabilities(logits: Tensor, log_sums: Tensor, unknown: float, rows: int) -> Tensor:
    return torch.exp(_shifted(logits, unknown, rows) - log_sums[:, None]).to(logits.dtype)


def _shifted(logits: Tensor, unknown: float, rows: int) -> Tensor:
    column = torch.arange(logits.shape[1])
    shift = torch.where(column < rows - 1, 0.0, torch.where(column < rows, unknown, -torch.inf))
    return logits.float() + shift


class TokenLoss(torch.autograd.Function):
    """Mean cross-entropy of `hidden` [m, h] against `targets` [m] over the rows of `embedding` [v, h], and accuracy.

    `unknown` is log(how many ids share the last row): each of them takes probability of its own when the model
    speaks. Written out, because the logits are the largest tensors of a step.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor, unknown: float) -> tuple[Tensor, Tensor]:
        rows, count = len(embedding), len(targets)
        # Few different heights: every new shape costs the matrix library a new kernel, and memory for it.
        hidden = F.pad(hidden, (0, 0, 0, -count % 256))
        padded = F.pad(embedding.to(COMPUTE), (0, 0, 0, -rows % 64))
        logits = hidden @ padded.T
        log_sums, largest = _log_sums(logits, unknown, rows)
        log_sums, largest = log_sums[:count], largest[:count]
        wanted = logits[:count].gather(1, targets[:, None])[:, 0].float()
        ctx.save_for_backward(hidden, padded, targets, logits, log_sums)
        ctx.unknown, ctx.rows = unknown, rows
        right = (wanted >= largest).float().mean()
        ctx.mark_non_differentiable(right)
        return (log_sums - wanted).mean(), right

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, padded, targets, logits, log_sums = ctx.saved_tensors
        count = len(targets)
        log_sums = F.pad(log_sums, (0, len(hidden) - count), value=torch.inf)
        gradient = _probabilities(logits, log_sums, ctx.unknown, ctx.rows)
        gradient[torch.arange(count), targets] -= 1
        factor = scale / count
        return (gradient @ padded)[:count] * factor, (gradient.T @ hidden)[: ctx.rows].float() * factor, None, None

"""The gpt-oss transformer in plain PyTorch operators: the readable reference.

In: token ids, and optionally a `KVCache` whose slots they are appended to. Out: fp32 logits.
It knows nothing of text, sampling, requests or files; `weights.py` fills it from a checkpoint, `backend.py`
puts it behind the engine's seam. Facts: spec/model.md, "Forward pass", whose step numbers appear below.

Shapes: b rows (sequences), n new tokens per row, m visible keys, kv key-value heads, g query heads per key-value
head, d head_dim, h hidden_size, i intermediate_size, e experts, k experts per token, v vocabulary rows.
Parameters are named as in the `original/` checkpoint. BF16 weights by default; sums that matter (norms, scores,
softmax, expert mixture) are fp32 and rounded once. With dtype float32 or float64 nothing is rounded and the
model is differentiable, because people fine-tune from it.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt_oss.config import ModelConfig
from gpt_oss.errors import ContextOverflow, OutOfMemory
from gpt_oss.rope import cos_sin
from gpt_oss.torch import cpu
from gpt_oss.torch.backend import TokenGenerator, choose_device
from gpt_oss.torch.parallel import Parallel
from gpt_oss.torch.weights import Weights, free_memory, load_weights

__all__ = ["KVCache", "ModelConfig", "TokenGenerator", "Transformer", "attention", "swiglu"]

SWIGLU_ALPHA = 1.702
# Attention scores held at once: bounds the memory of a long prefill, and 4 MB stay in a processor's cache.
SCORE_ELEMENTS = 1 << 20
# Queries that share one block of keys under a window; more would read more keys that nobody sees.
WINDOW_ROWS = 128


def wide(x: Tensor) -> Tensor:
    """The type that sums are done in: fp32, or fp64 where the model is fp64 already."""
    return x if x.dtype == torch.float64 else x.float()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b. x: [..., k]; weight: [n, k]. Returns [..., n]."""
    return cpu.linear(x, weight, bias) if x.device.type == "cpu" else F.linear(x, weight, bias)


def wide_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ, of BF16 in fp32: logits that BF16 would round by up to 2^-9 of their size."""
    if x.device.type == "cpu":
        return cpu.wide_linear(x, weight)
    return cpu.widened(x, weight) if weight.dtype == torch.bfloat16 else F.linear(x, weight)


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, computed in fp32 and cast back (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.empty(size, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        t = wide(x)
        t = t * torch.rsqrt(t.square().mean(-1, keepdim=True) + self.eps)
        return (t * self.scale).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of half-split pairs (j, j + d/2). x: [..., d]; cos, sin: broadcastable to [..., d/2]."""
    first, second = wide(x).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
    """Causal grouped-query attention in which each query head owns a sink.

    q: [..., kv, g, n, d], the last n positions; k, v: [..., kv, m, d], m >= n; sinks: [kv, g]. Returns q's shape.
    The sink is one more logit of the softmax denominator and carries no value (step 3). Query j sees the keys up
    to its own position, the last `window` of them if there is a window. Queries go in blocks, so that no
    n x m matrix exists at long context, and a block reads only the keys that it can see.
    """
    n, m = q.shape[-2], k.shape[-2]
    row = q[..., 0, 0].numel() * (m if window is None else min(m, window + WINDOW_ROWS))
    rows = max(1, min(n if window is None else WINDOW_ROWS, SCORE_ELEMENTS // row))
    blocks = []
    for first in range(0, n, rows):
        last = min(first + rows, n)
        begin, end = 0 if window is None else max(0, m - n + first - window + 1), m - n + last
        visible = slice(begin, end)
        blocks.append(_attention_block(q[..., first:last, :], k[..., visible, :], v[..., visible, :], sinks, window))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)


def _attention_block(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
    g, n, d = q.shape[-3:]
    m = k.shape[-2]
    # One matrix product per key-value head: its g query heads are rows beside the n positions.
    scores = ((wide(q) * d**-0.5).flatten(-3, -2) @ wide(k).mT).unflatten(-2, (g, n))
    if n > 1:
        first = m - n if window is None else 0  # only the last n keys can come after a query
        query = torch.arange(m - n, m, device=q.device)[:, None]
        key = torch.arange(first, m, device=q.device)
        hidden = key > query
        if window is not None:
            hidden |= key <= query - window
        scores[..., first:].masked_fill_(hidden, -torch.inf)
    sink = wide(sinks)[:, :, None, None]
    # Any offset gives the same quotient; the largest logit, sink included, keeps exp() in range.
    offset = torch.maximum(scores.amax(-1, keepdim=True), sink).detach()
    weights = scores.sub_(offset).exp_()
    total = weights.sum(-1, keepdim=True) + torch.exp(sink - offset)
    return ((weights.flatten(-3, -2) @ wide(v)).unflatten(-2, (g, n)) / total).to(q.dtype)


class KVCache:
    """Keys and values of `slots` independent sequences of at most `context_length` tokens each.

    `lengths[s]` tokens of slot s are valid; what lies beyond is never read.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values = keys, values  # [layers, slots, kv, context_length, d]
        self.lengths = [0] * keys.shape[1]

    @property
    def context_length(self) -> int:
        """Tokens that fit one slot."""
        return self.keys.shape[3]

    def append(self, layer: int, slot: int, k: Tensor, v: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """Store k, v [kv, n, d] behind the slot's valid tokens; return all that the n queries may see, [kv, m, d]."""
        start = self.lengths[slot]
        end = start + k.shape[1]
        self.keys[layer, slot, :, start:end] = k
        self.values[layer, slot, :, start:end] = v
        begin = 0 if window is None else max(0, start - window + 1)
        return self.keys[layer, slot, :, begin:end], self.values[layer, slot, :, begin:end]


class AttentionBlock(nn.Module):
    """Steps 1 to 4: x + out(attention(rope(qkv(norm(x)))))."""

    def __init__(self, config: ModelConfig, layer: int, parallel: Parallel):
        super().__init__()
        self.layer, self.window, self.parallel = layer, config.window(layer), parallel
        self.head_dim = config.head_dim
        self.heads, self.kv_heads = parallel.heads(config)
        rows = (self.heads + 2 * self.kv_heads) * config.head_dim
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.qkv = nn.Linear(config.hidden_size, rows)
        self.sinks = nn.Parameter(torch.empty(self.heads))
        self.out = nn.Linear(self.heads * config.head_dim, config.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, slots: Sequence[int]) -> Tensor:
        """x: [b, n, h]; cos, sin: [b, n, d/2]; row j of x belongs to slot slots[j] of the cache."""
        kv, g = self.kv_heads, self.heads // self.kv_heads
        qkv = (
            linear(self.norm(x), self.qkv.weight, self.qkv.bias).unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)
        )  # [b, heads, n, d]
        qk, v = qkv.split((self.heads + kv, kv), dim=-3)
        q, k = rotate(qk, cos.unsqueeze(-3), sin.unsqueeze(-3)).split((self.heads, kv), dim=-3)
        q = q.unflatten(-3, (kv, g))
        sinks = self.sinks.view(kv, g)
        if cache is None:
            t = attention(q, k, v, sinks, self.window)
        else:
            rows = []
            for row, slot in enumerate(slots):
                keys, values = cache.append(self.layer, slot, k[row], v[row], self.window)
                rows.append(attention(q[row], keys, values, sinks, self.window))
            t = torch.stack(rows)
        t = t.flatten(-4, -3).transpose(-3, -2).flatten(-2)  # [b, n, heads * d]
        # The bias enters the sum over ranks once.
        t = linear(t, self.out.weight, self.out.bias if self.parallel.rank == 0 else None)
        return x + self.parallel.all_reduce(t)


def swiglu(x: Tensor, limit: float) -> Tensor:
    """gate * sigmoid(1.702 gate) * (linear + 1) of interleaved rows (even gate, odd linear). [..., 2i] -> [..., i].

    The gate is clamped above only, the linear part on both sides (step 6).
    """
    # Contiguous halves: CPUs read strided pairs one by one.
    gate = wide(x[..., ::2].contiguous()).clamp(max=limit)
    linear = wide(x[..., 1::2].contiguous()).clamp(-limit, limit)
    return (gate * torch.sigmoid(SWIGLU_ALPHA * gate) * (linear + 1)).to(x.dtype)


class MLPBlock(nn.Module):
    """Steps 5 and 6: x + the weighted sum of the top-k experts of norm(x).

    Tokens are grouped by expert, so that each chosen expert's weights are read once and none are copied.
    """

    def __init__(self, config: ModelConfig, parallel: Parallel):
        super().__init__()
        self.experts_per_token, self.limit, self.parallel = config.experts_per_token, config.swiglu_limit, parallel
        e, h, i = config.num_experts, config.hidden_size, parallel.share(config.intermediate_size)
        self.norm = RMSNorm(h, config.rms_norm_eps)
        self.gate = nn.Linear(h, e)
        self.mlp1_weight = nn.Parameter(torch.empty(e, 2 * i, h))
        self.mlp1_bias = nn.Parameter(torch.empty(e, 2 * i))
        self.mlp2_weight = nn.Parameter(torch.empty(e, h, i))
        self.mlp2_bias = nn.Parameter(torch.empty(e, h))

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., h]."""
        t = self.norm(x).flatten(0, -2)
        top, chosen = torch.topk(self.router_logits(t), self.experts_per_token, dim=-1)
        mixed = self.mixture(t, chosen, torch.softmax(wide(top), dim=-1))
        return x + self.parallel.all_reduce(mixed).to(x.dtype).view_as(x)

    def router_logits(self, t: Tensor) -> Tensor:
        """[n, h] -> [n, e].

        An fp32 model's are summed in fp64: experts with equal rows then have equal logits, and the same one is chosen
        however many tokens are computed at once. BF16 rounds such differences away.
        """
        weight, bias = self.gate.weight, self.gate.bias
        if t.dtype == torch.float32 and t.device.type != "mps":  # which knows no fp64
            return F.linear(t.double(), weight.double(), bias.double()).float()
        return linear(t, weight, bias)

    def mixture(self, t: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of the chosen experts' outputs. t: [n, h]; chosen, weights: [n, k]. Returns wide [n, h]."""
        # Pair p says that token p // k goes to expert chosen[p]; sorted, each expert's pairs are neighbours.
        pairs = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=self.gate.out_features).tolist()
        shares = weights.flatten()
        mixed = torch.zeros_like(wide(t))
        for expert, mine in enumerate(pairs.split(counts)):
            if len(mine):
                tokens = mine // self.experts_per_token
                y = wide(self.expert(expert, t[tokens])) * shares[mine, None]
                mixed = mixed.index_add(0, tokens, y) if y.requires_grad else mixed.index_add_(0, tokens, y)
        return mixed

    def expert(self, expert: int, t: Tensor) -> Tensor:
        """One expert's output for its tokens; under tensor parallelism this rank's summand. [n, h] -> [n, h]."""
        hidden = swiglu(linear(t, self.mlp1_weight[expert], self.mlp1_bias[expert]), self.limit)
        # The bias enters the sum over ranks once.
        return linear(hidden, self.mlp2_weight[expert], self.mlp2_bias[expert] if self.parallel.rank == 0 else None)


class TransformerBlock(nn.Module):
    """One layer: attention, then the mixture of experts, both with residuals."""

    def __init__(self, config: ModelConfig, layer: int, parallel: Parallel, mlp_block: type[MLPBlock]):
        super().__init__()
        self.attn = AttentionBlock(config, layer, parallel)
        self.mlp = mlp_block(config, parallel)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, slots: Sequence[int]) -> Tensor:
        return self.mlp(self.attn(x, cos, sin, cache, slots))


class Transformer(nn.Module):
    """The whole model. Parameters are uninitialised until a checkpoint or a training script fills them.

    On device "meta" nothing is allocated: the shapes alone, until `allocate`.
    """

    cos: Tensor  # [context_length, d/2] fp32, as is sin
    sin: Tensor

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        parallel: Parallel | None = None,
        mlp_block: type[MLPBlock] = MLPBlock,
    ):
        super().__init__()
        self.config, self.parallel = config, parallel or Parallel()
        with torch.device("meta"):
            # Made from a tensor: torch imports its compiler to initialise an embedding on "meta", at 2 s a start.
            rows = torch.empty(config.vocab_size, config.hidden_size)
            self.embedding = nn.Embedding.from_pretrained(rows, freeze=False)
            self.block = nn.ModuleList(
                TransformerBlock(config, layer, self.parallel, mlp_block) for layer in range(config.num_hidden_layers)
            )
            self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
            self.unembedding = nn.Linear(config.hidden_size, len(self.parallel.rows(config.vocab_size)), bias=False)
        for module in self.modules():
            if not isinstance(module, RMSNorm):  # gains stay fp32: step 1 multiplies in fp32
                for name, parameter in module.named_parameters(recurse=False):
                    setattr(module, name, nn.Parameter(parameter.to(dtype)))
        if torch.device(device).type != "meta":
            self.allocate(device)

    def allocate(self, device: torch.device | str) -> None:
        """Give the parameters of a model made on "meta" memory on `device`."""
        # Not by to_empty(): for what is like a tensor on "meta" torch imports its compiler, at 0.8 s a start.
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                memory = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                setattr(module, name, nn.Parameter(memory, parameter.requires_grad))
        # Buffers follow the module to another device; they are a function of the config, so no checkpoint has them.
        for name, table in zip(("cos", "sin"), cos_sin(self.config, self.config.context_length), strict=True):
            self.register_buffer(name, torch.from_numpy(table).to(device), persistent=False)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.bfloat16,
        parallel: Parallel | None = None,
        weights: Weights = "bf16",
    ) -> "Transformer":
        """Load either checkpoint layout.

        device: None takes CUDA, then MPS, then the CPU. weights: "bf16" decodes the experts to `dtype`; "mxfp4"
        leaves them packed in the memory-mapped file (CPU, BF16, one rank); "auto" takes what fits and is fast.
        Raises `CheckpointError` or `OutOfMemory` before anything is allocated.
        """
        return load_weights(cls, path, choose_device(device), dtype, parallel or Parallel(), weights)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def new_cache(self, slots: int = 1, context_length: int | None = None) -> KVCache:
        """An empty cache for `slots` sequences of up to `context_length` tokens (default: the model's context)."""
        _, kv_heads = self.parallel.heads(self.config)
        positions = min(context_length or self.config.context_length, self.config.context_length)
        shape = (self.config.num_hidden_layers, slots, kv_heads, positions, self.config.head_dim)
        weight = self.embedding.weight
        try:
            keys, values = (torch.empty(shape, dtype=weight.dtype, device=weight.device) for _ in range(2))
        except RuntimeError as error:  # a CPU gives its memory when it is written: only it knows what it can promise
            needed, free = 2 * math.prod(shape) * weight.element_size(), free_memory(weight.device)
            raise OutOfMemory(
                f"the cache of {slots} x {positions} tokens needs {needed / 2**30:.1f} GiB but {weight.device} has "
                f"{free / 2**30:.1f} GiB free; choose fewer slots or a shorter context"
            ) from error
        return KVCache(keys, values)

    def forward(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        slots: Sequence[int] | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits, fp32, of every position or of the last one only.

        tokens: integer [n] or [b, n]. Without a cache each row is a sequence of its own from position 0. With one,
        row j is appended to slot `slots[j]` (default: slots 0 … b-1), whatever its length so far.
        Returns [(b,) n, v], or [(b,) v] with `last_only`. Raises `ContextOverflow` before anything is written.
        """
        if tokens.ndim == 1:
            return self(tokens[None], cache, slots, last_only)[0]
        b, n = tokens.shape
        slots = range(b) if slots is None else slots
        starts = [0] * b if cache is None else [cache.lengths[slot] for slot in slots]
        limit = self.config.context_length if cache is None else cache.context_length
        if max(starts, default=0) + n > limit:
            raise ContextOverflow(f"{max(starts) + n} tokens do not fit the context of {limit}")
        positions = torch.tensor(starts, device=self.device)[:, None] + torch.arange(n, device=self.device)
        cos, sin = self.cos[positions], self.sin[positions]
        x = self.embedding(tokens)
        for block in self.block:
            x = block(x, cos, sin, cache, slots)
        if cache is not None:
            for slot in slots:
                cache.lengths[slot] += n
        x = self.norm(x[:, -1] if last_only else x)
        return self.parallel.all_gather(wide_linear(x, self.unembedding.weight), self.config.vocab_size)

"""One decode step: a token for each of `batch` sequences, five launches per layer for one sequence and six for more.

    1  qkv        rmsnorm(x)·Wᵀ + b
    2  attention  RoPE, cache write, split-KV attention, sink                 (attention_decode.py)
    3  out        x += attention·Wᵀ + b, and the router's partial sums        (linear.py)
    3b route      with more than one sequence: router, top-k, work items      (router.py)
    4  gate_up    MXFP4 product and SwiGLU                                    (experts.py)
    5  down       MXFP4 product, weighted sum, x +=

then the unembedding and the choice of the next token. `DecodeStep` owns the buffers between the stages; every
method is one launch on them. Nothing depends on the host, so the whole step can be one CUDA graph.
"""

import math
from typing import Any

import torch
import triton

from gpt_oss.config import ModelConfig
from gpt_oss.triton.attention_decode import decode_attention_kernel
from gpt_oss.triton.cache import KVCache, LayerCache
from gpt_oss.triton.experts import down_kernel, gate_up_kernel
from gpt_oss.triton.linear import out_kernel, qkv_kernel
from gpt_oss.triton.router import max_items, route_kernel
from gpt_oss.triton.unembedding import finish_kernel, top_logits, unembed_kernel
from gpt_oss.triton.variants import Variant
from gpt_oss.triton.weights import LayerWeights, ModelWeights, padded_experts

power = triton.next_power_of_2

ATTENTION_BLOCK_N = 64


def key_splits(processors: int, batch: int, kv_heads: int) -> int:
    """Most programs that share the keys of a kv head, a power of two.

    Two per processor of the card: while one sums over its warps the other has keys on their way. And no fewer than
    eight, however large the batch: one long sequence among short ones must not be left to one program per head.
    """
    return min(32, max(8, 1 << (max(1, 2 * processors // (batch * kv_heads)).bit_length() - 1)))


class SlotState:
    """What the device knows of each slot beside the cache: how to sample it."""

    def __init__(self, slots: int, device: torch.device):
        self.temperature = torch.zeros(slots, dtype=torch.float32, device=device)
        self.random = torch.zeros(slots, dtype=torch.int64, device=device)  # SplitMix64 counters


class DecodeStep:
    """Buffers and launches for one batch size.

    In: `tokens` and `slots`, int32 [batch], and `active` [1], how many of the rows are real. Out: `logits` fp32
    [batch, vocab], `next_tokens` (int32, -1 where the logits have no finite maximum), `logprobs` and `log_totals`,
    log Σ exp(logits); caches and lengths of the slots grow by one, and `tokens` holds the next tokens, ready for
    another step. The rows of padding repeat the first row: equal slots with equal tokens write equal values.
    """

    def __init__(
        self, config: ModelConfig, weights: ModelWeights, rope: tuple[torch.Tensor, torch.Tensor], cache: KVCache,
        state: SlotState, variant: Variant, batch: int, splits: int = 16,
    ):  # fmt: skip
        self.config, self.weights, self.rope, self.cache, self.state = config, weights, rope, cache, state
        self.variant, self.batch, self.splits = variant, batch, splits
        self._tokens_p = 1 if batch == 1 else max(16, power(batch))
        device = weights.embedding.device
        hidden, topk, pairs = config.hidden_size, config.experts_per_token, batch * config.experts_per_token
        group_p = max(16, power(config.query_groups))
        head_p = max(16, power(config.head_dim))

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.tokens, self.slots = zeros(batch), zeros(batch)
        self.active = torch.full((1,), batch, dtype=torch.int32, device=device)
        self.x = empty(batch, hidden, dtype=variant.activations)
        self.qkv_out = empty(batch, config.qkv_rows, dtype=variant.activations)
        self.attention_out = empty(batch, config.num_attention_heads * config.head_dim, dtype=variant.activations)
        self.partial = empty(batch * config.num_key_value_heads, splits, group_p, head_p)
        self.stats = empty(batch * config.num_key_value_heads, splits, group_p, 2)
        self._out_rows = variant.tiles.out_rows if batch == 1 else variant.tiles.out_rows_many
        self.parts = triton.cdiv(hidden, self._out_rows)
        self.squares = empty(self.parts, batch)
        self.shares = empty(self.parts, batch, padded_experts(config.num_experts))
        # Widths are padded to whole steps of 64 inputs: zeros that no kernel overwrites.
        self.normed = zeros(batch, weights.layers[0].mlp1.padded_k, dtype=variant.activations)
        self.hidden = zeros(pairs, weights.layers[0].mlp2.padded_k, dtype=variant.activations)
        self.expert_ids = zeros(batch, topk)
        self.expert_weights = empty(batch, topk)
        self.columns = variant.columns(batch)
        self.max_items = max_items(batch, topk, config.num_experts, self.columns)
        self.items, self.item_pairs = zeros(self.max_items), zeros(self.max_items, self.columns)
        self.item_count = zeros(1)
        if batch == 1:
            # One token's items differ in their experts only: item r is its pair r.
            self.items = self.expert_ids.view(-1)
            self.item_pairs.fill_(-1)[:, 0] = torch.arange(topk)
            self.item_count.fill_(topk)
        self.expert_out = empty(pairs, hidden)
        self.logits = empty(batch, config.vocab_size)
        self._unembed_rows = variant.tiles.vocab_rows if batch == 1 else variant.tiles.vocab_rows_many
        self.blocks = triton.cdiv(config.vocab_size, self._unembed_rows)
        self.block_max, self.block_sum, self.block_mass = (empty(self.blocks, batch) for _ in range(3))
        self.next_tokens, self.logprobs, self.log_totals = zeros(batch), empty(batch), empty(batch)
        # Arrival counters, one set per use; each use leaves zeros behind.
        self._route_counter = zeros(1)
        self._attention_counters = zeros(batch * config.num_key_value_heads)
        self._down_counters = zeros(weights.layers[0].mlp2.tiles)

    def run(self) -> None:
        """The whole step."""
        torch.index_select(self.weights.embedding, 0, self.tokens, out=self.x)
        for number, layer in enumerate(self.weights.layers):
            self.qkv(layer)
            self.attention(layer, self.cache.layers[number], self.config.window(number))
            self.out(layer)
            if self.batch > 1:
                self.route(layer)
            self.gate_up(layer)
            self.down(layer)
        self.unembed()
        self.finish()

    def qkv(self, layer: LayerWeights) -> None:
        """qkv_out [batch, rows] = rmsnorm(x)·Wᵀ + b. Source: spec/model.md, step 1."""
        rows = self.config.qkv_rows
        options = self._dense_options(self.variant.tiles.rows, self.variant.tiles.rows_many)
        qkv_kernel[(triton.cdiv(rows, options["BLOCK_R"]),)](
            self.x, layer.attention_norm, layer.qkv, layer.qkv_bias, self.qkv_out, rows, self.config.rms_norm_eps,
            TOKENS=self.batch, TOKENS_P=self._tokens_p, K=self.config.hidden_size, COMPUTE=self.variant.compute,
            **options,
        )  # fmt: skip

    def attention(self, layer: LayerWeights, cache: LayerCache, window: int | None) -> None:
        """attention_out [batch, q heads · head] over cached keys and the new one, which is stored. Steps 2 and 3."""
        config = self.config
        cos, sin = self.rope
        splits = self.splits if window is None else 1
        decode_attention_kernel[(self.batch, config.num_key_value_heads, splits)](
            self.qkv_out, cos, sin, layer.sinks, cache.keys, cache.values, self.slots, self.cache.device_lengths,
            self.attention_out, self.partial, self.stats, self._attention_counters,
            cache.capacity, 1 / math.sqrt(config.head_dim),
            Q_HEADS=config.num_attention_heads, KV_HEADS=config.num_key_value_heads, HEAD=config.head_dim,
            HALF_P=max(16, power(config.head_dim // 2)), HEAD_P=max(16, power(config.head_dim)),
            GROUP_P=max(16, power(config.query_groups)), WINDOW=window or 0, SPLITS=splits,
            BLOCK_N=ATTENTION_BLOCK_N, COMPUTE=self.variant.compute, num_warps=4, num_stages=3,
            **self.variant.launch_options,
        )  # fmt: skip

    def out(self, layer: LayerWeights) -> None:
        """x += attention·Wᵀ + b; the router's sums per block of rows, and with one sequence its routing. Step 4."""
        config, options = self.config, self._dense_options(self._out_rows, self._out_rows)
        out_kernel[(self.parts,)](
            self.attention_out, layer.out, layer.out_bias, self.x, layer.mlp_norm, layer.router, layer.router_bias,
            self.squares, self.shares, self.normed, self.expert_ids, self.expert_weights,
            self._route_counter, config.rms_norm_eps, self.variant.input_scale,
            TOKENS_P=self._tokens_p, K=config.num_attention_heads * config.head_dim, COMPUTE=self.variant.compute,
            **self._route_constants(), **options,
        )  # fmt: skip

    def route(self, layer: LayerWeights) -> None:
        """Finish the router for more than one sequence: experts, weights, normed activations, work items. Step 5."""
        topk = self.config.experts_per_token
        route_kernel[(self.batch,)](
            self.x, layer.mlp_norm, self.squares, self.shares, layer.router_bias, self.normed,
            self.expert_ids, self.expert_weights, self.items, self.item_pairs, self.item_count, self._route_counter,
            self.config.rms_norm_eps, self.variant.input_scale, PAIRS_P=power(self.batch * topk),
            MAX_ITEMS=self.max_items, COLUMNS=self.columns, **self._route_constants(), num_warps=8,
            **self.variant.launch_options,
        )  # fmt: skip

    def gate_up(self, layer: LayerWeights) -> None:
        """hidden [pairs, intermediate] = weight · swiglu(normed·W1ᵀ + b1), times the variant's input scale. Step 6."""
        config, mlp1 = self.config, layer.mlp1
        gate_up_kernel[(mlp1.tiles, self.max_items)](
            self.normed, mlp1.words, mlp1.scales, layer.mlp1_bias, self.expert_weights,
            self.items, self.item_pairs, self.hidden,
            config.swiglu_limit, self.variant.input_scale, self.variant.output_scale,
            INTERMEDIATE=config.intermediate_size, NORMED_WIDTH=self.normed.shape[1], HIDDEN_WIDTH=self.hidden.shape[1],
            TILES=mlp1.tiles, STEPS=mlp1.steps, **self._expert_constants(),
        )  # fmt: skip

    def down(self, layer: LayerWeights) -> None:
        """x += Σ over each token's experts of hidden·W2ᵀ + weight·b2. Step 6."""
        mlp2 = layer.mlp2
        down_kernel[(mlp2.tiles, self.max_items)](
            self.hidden, mlp2.words, mlp2.scales, layer.mlp2_bias, self.expert_weights,
            self.items, self.item_pairs, self.item_count, self.expert_out, self.x, self._down_counters,
            self.variant.output_scale, TOKENS=self.batch, TOKENS_P=power(self.batch), HIDDEN=self.config.hidden_size,
            HIDDEN_WIDTH=self.hidden.shape[1], TILES=mlp2.tiles, STEPS=mlp2.steps, **self._expert_constants(),
        )  # fmt: skip

    def unembed(self) -> None:
        """logits = rmsnorm(x)·Wᵀ in fp32, with each block's maximum and sums."""
        config, options = self.config, self._dense_options(self._unembed_rows, self._unembed_rows)
        unembed_kernel[(self.blocks,)](
            self.x, self.weights.norm, self.weights.unembedding, self.logits, self.block_max, self.block_sum,
            self.block_mass, self.slots, self.state.temperature, config.vocab_size, config.rms_norm_eps,
            TOKENS=self.batch, TOKENS_P=self._tokens_p, K=config.hidden_size, COMPUTE=self.variant.compute, **options,
        )  # fmt: skip

    def alternatives(self, rows: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and log-probabilities of the k most probable tokens of the first `rows` rows, [rows, k] both."""
        logits, ids = top_logits(self.logits[:rows], self.block_max[:, :rows], self._unembed_rows, k)
        return ids, logits - self.log_totals[:rows, None]

    def finish(self) -> None:
        """next_tokens, logprobs and log_totals; `tokens`, the slots' lengths and their random counters advance."""
        finish_kernel[(self.batch,)](
            self.logits, self.block_max, self.block_sum, self.block_mass, self.slots, self.active,
            self.cache.device_lengths, self.state.temperature, self.state.random, self.next_tokens, self.logprobs,
            self.log_totals, self.tokens, self.config.vocab_size, self.blocks, TOKENS=self.batch,
            BLOCK_R=self._unembed_rows, BLOCK=min(4096, max(16, power(self.blocks))), num_warps=8,
            **self.variant.launch_options,
        )  # fmt: skip

    def _dense_options(self, rows_one: int, rows_many: int) -> dict[str, Any]:
        tiles = self.variant.tiles
        return self.variant.launch_options | (tiles.one(rows_one) if self.batch == 1 else tiles.many(rows_many))

    def _route_constants(self) -> dict[str, int]:
        config = self.config
        return {
            "TOKENS": self.batch,
            "HIDDEN": config.hidden_size,
            "NORMED_WIDTH": self.normed.shape[1],
            "PARTS": self.parts,
            "PARTS_P": power(self.parts),
            "EXPERTS": config.num_experts,
            "EXPERTS_P": padded_experts(config.num_experts),
            "TOPK": config.experts_per_token,
            "TOPK_P": power(config.experts_per_token),
        }

    def _expert_constants(self) -> dict[str, Any]:
        variant = self.variant
        return {
            "TOPK": self.config.experts_per_token,
            "COLUMNS": self.columns,
            "VARIANT": variant.name,
            "WARPS": variant.expert_warps,
            "AHEAD": variant.ahead,
            **variant.expert_options,
            **variant.launch_options,
        }

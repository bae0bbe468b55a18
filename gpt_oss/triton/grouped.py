# mypy: disable-error-code="no-untyped-def"
"""The experts of a prefill: pairs sorted by expert, one grouped matrix product each, MXFP4 decoded on the way.

    plan      pairs (token·topk + rank) in order of their expert, cut into blocks of at most BLOCK_M rows of one expert
    gate_up   h[row] = swiglu(normed[token of row]·W1ᵀ + b1)               [pairs, intermediate], in sorted order
    down      y[pair] = h[row]·W2ᵀ + b2                                     [pairs, hidden], back in pair order
    combine   x[token] += Σ over ranks of weight[pair]·y[pair]

Weights are read in the tile order of layout.py and become BF16 (exactly) in registers only: two at once by assembly in
the "mma" variant, through fp32 in the other. Nothing here waits for the device: the plan stays there and the grid has
room for the worst case; unused programs return at once.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from gpt_oss.triton.layout import PackedExperts
from gpt_oss.triton.numerics import (
    dot,
    high_value,
    load_fp32,
    low_value,
    round_to,
    scale_pair,
    scale_value,
    swiglu,
    value_pair,
)
from gpt_oss.triton.tensor_core import SCALED_PAIR
from gpt_oss.triton.variants import Variant


@dataclass(frozen=True)
class Plan:
    """How the pairs of a chunk are dealt to programs."""

    order: torch.Tensor  # int32 [pairs]: pair at each sorted row
    blocks: torch.Tensor  # int32 [most blocks, 3]: expert (-1 in unused blocks), first row, row after the last
    topk: int


def plan(ids: torch.Tensor, experts: int, block_m: int) -> Plan:
    """Sort the pairs of ids [tokens, topk] by expert (stable) and cut them into blocks of `block_m` rows."""
    flat = ids.flatten()
    pairs, device = flat.numel(), ids.device
    order = torch.argsort(flat, stable=True).to(torch.int32)
    count = (flat[:, None] == torch.arange(experts, device=device)).sum(0)
    end_row = count.cumsum(0)
    block_count = (count + block_m - 1) // block_m
    end_block = block_count.cumsum(0)
    block = torch.arange(min(pairs, triton.cdiv(pairs, block_m) + experts), device=device)
    expert = torch.searchsorted(end_block, block, right=True)
    used = expert < experts
    expert = expert.clamp(max=experts - 1)
    first = (end_row - count)[expert] + (block - (end_block - block_count)[expert]) * block_m
    table = torch.stack([torch.where(used, expert, -1), first, end_row[expert]], dim=1)
    return Plan(order, table.to(torch.int32), ids.shape[1])


@triton.jit
def decode_tiles(
    p_words, p_scales, i_tile, step, TILES: tl.constexpr, STEPS: tl.constexpr, COUNT: tl.constexpr,
    STEPS_AT_ONCE: tl.constexpr, ASSEMBLY: tl.constexpr,
):  # fmt: skip
    """[16·COUNT (row slots), 64·STEPS_AT_ONCE]: COUNT tiles from i_tile on, zero beyond the last tile or step.

    bf16 with ASSEMBLY, else fp32.
    """
    o_tile = i_tile + tl.arange(0, COUNT)
    o_word = tl.arange(0, 128 * STEPS_AT_ONCE)
    m_words = (o_tile < TILES)[:, None] & (step + o_word // 128 < STEPS)[None, :]
    b_words = tl.load(p_words + o_tile[:, None] * (STEPS * 128) + step * 128 + o_word[None, :], mask=m_words, other=0)
    b_words = tl.reshape(b_words.to(tl.uint32, bitcast=True), (COUNT, STEPS_AT_ONCE, 8, 4, 2, 2))
    # The four scale bytes of a row group as one word: a pipeline copies no less than 4 bytes per thread.
    p_scales = p_scales.to(tl.pointer_type(tl.int32), bitcast=True) + o_tile[:, None] * (STEPS * 8) + step * 8
    o_scale = tl.arange(0, 8 * STEPS_AT_ONCE)
    m_scales = (o_tile < TILES)[:, None] & (step + o_scale // 8 < STEPS)[None, :]
    b_scales = tl.load(p_scales + o_scale[None, :], mask=m_scales, other=0).to(tl.uint32, bitcast=True)
    b_scales = tl.reshape(b_scales, (COUNT, STEPS_AT_ONCE, 8, 1, 1, 1))
    o_byte = tl.reshape(tl.arange(0, 4), (1, 1, 1, 1, 2, 2))  # b, r
    b_bytes = (b_scales >> (8 * o_byte)) & 0xFF
    b_scale = scale_pair(b_bytes) if ASSEMBLY else scale_value(b_bytes)
    b_01 = tl.join(_pair_values(b_words, b_scale, 0, ASSEMBLY), _pair_values(b_words, b_scale, 1, ASSEMBLY))
    b_23 = tl.join(_pair_values(b_words, b_scale, 2, ASSEMBLY), _pair_values(b_words, b_scale, 3, ASSEMBLY))
    b_all = tl.join(b_01, b_23)  # tile, step, g, t, b, r, half, low and high bit of the pair
    b_all = tl.permute(b_all, (0, 5, 2, 1, 4, 3, 8, 7, 6))
    return tl.reshape(b_all, (16 * COUNT, 64 * STEPS_AT_ONCE))


@triton.jit
def _pair_values(b_words, b_scale, PAIR: tl.constexpr, ASSEMBLY: tl.constexpr):
    b_pair = value_pair(b_words, PAIR)
    if ASSEMBLY:
        b_low, b_high = tl.inline_asm_elementwise(
            SCALED_PAIR, "=h,=h,r,r", [b_pair, b_scale], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=1
        )
    else:
        b_low, b_high = low_value(b_pair) * b_scale, high_value(b_pair) * b_scale
    return tl.join(b_low, b_high)


@triton.jit
def block_rows(p_block, BLOCK_M: tl.constexpr):
    """Sorted rows of a block of the plan and which of them are its own, both [BLOCK_M]."""
    o_row = tl.load(p_block + 1) + tl.arange(0, BLOCK_M)
    return o_row, o_row < tl.load(p_block + 2)


@triton.jit
def rows_times_tiles(
    p_rows, m_row, p_words, p_scales, i_expert, i_tile,
    K: tl.constexpr, TILES: tl.constexpr, STEPS: tl.constexpr,
    BLOCK_M: tl.constexpr, TILES_N: tl.constexpr, STEPS_K: tl.constexpr, COMPUTE: tl.constexpr, ASSEMBLY: tl.constexpr,
):  # fmt: skip
    """fp32 [BLOCK_M, 16·TILES_N]: rows of K values at p_rows [BLOCK_M, 1] times an expert's tiles from i_tile on."""
    o_expert = i_expert.to(tl.int64) * (TILES * STEPS)
    p_words += o_expert * 128
    p_scales += o_expert * 32
    b_acc = tl.zeros([BLOCK_M, 16 * TILES_N], tl.float32)
    for step in range(0, STEPS, STEPS_K):
        o_k = step * 64 + tl.arange(0, 64 * STEPS_K)
        b_x = load_fp32(p_rows + o_k[None, :], m_row[:, None] & (o_k < K)[None, :])
        b_w = decode_tiles(p_words, p_scales, i_tile, step, TILES, STEPS, TILES_N, STEPS_K, ASSEMBLY)
        b_acc += dot(b_x, tl.trans(b_w), COMPUTE)
    return b_acc


@triton.jit
def grouped_gate_up_kernel(
    p_normed, p_words, p_scales, p_bias, p_order, p_blocks, p_hidden, limit,
    HIDDEN: tl.constexpr, INTERMEDIATE: tl.constexpr, TILES: tl.constexpr, STEPS: tl.constexpr, TOPK: tl.constexpr,
    BLOCK_M: tl.constexpr, TILES_N: tl.constexpr, STEPS_K: tl.constexpr, COMPUTE: tl.constexpr, ASSEMBLY: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of TILES_N tiles, blocks of the plan): neighbouring programs share their input rows."""
    i_tile = tl.program_id(0) * TILES_N
    p_block = p_blocks + tl.program_id(1) * 3
    i_expert = tl.load(p_block)
    if i_expert >= 0:
        o_row, m_row = block_rows(p_block, BLOCK_M)
        b_token = tl.load(p_order + o_row, mask=m_row, other=0) // TOPK
        p_rows = p_normed + b_token.to(tl.int64)[:, None] * HIDDEN
        b_acc = rows_times_tiles(
            p_rows, m_row, p_words, p_scales, i_expert, i_tile, HIDDEN, TILES, STEPS, BLOCK_M, TILES_N, STEPS_K,
            COMPUTE, ASSEMBLY,
        )  # fmt: skip
        b_halves = tl.permute(tl.reshape(b_acc, (BLOCK_M, TILES_N, 2, 8)), (0, 1, 3, 2))
        b_gate, b_linear = tl.split(tl.reshape(b_halves, (BLOCK_M, 8 * TILES_N, 2)))
        o_inter = i_tile * 8 + tl.arange(0, 8 * TILES_N)
        m_inter = o_inter < INTERMEDIATE
        p_bias_rows = p_bias + i_expert * (2 * INTERMEDIATE) + 2 * o_inter
        b_gate += load_fp32(p_bias_rows, m_inter)[None, :]
        b_linear += load_fp32(p_bias_rows + 1, m_inter)[None, :]
        b_hidden = round_to(swiglu(b_gate, b_linear, limit), p_hidden.dtype.element_ty)
        p_out = p_hidden + o_row.to(tl.int64)[:, None] * INTERMEDIATE + o_inter[None, :]
        tl.store(p_out, b_hidden, mask=m_row[:, None] & m_inter[None, :])


@triton.jit
def grouped_down_kernel(
    p_hidden, p_words, p_scales, p_bias, p_order, p_blocks, p_out,
    INTERMEDIATE: tl.constexpr, HIDDEN: tl.constexpr, TILES: tl.constexpr, STEPS: tl.constexpr,
    BLOCK_M: tl.constexpr, TILES_N: tl.constexpr, STEPS_K: tl.constexpr, COMPUTE: tl.constexpr, ASSEMBLY: tl.constexpr,
):  # fmt: skip
    """Grid as above; rows are read in sorted order and written in pair order."""
    i_tile = tl.program_id(0) * TILES_N
    p_block = p_blocks + tl.program_id(1) * 3
    i_expert = tl.load(p_block)
    if i_expert >= 0:
        o_row, m_row = block_rows(p_block, BLOCK_M)
        p_rows = p_hidden + o_row.to(tl.int64)[:, None] * INTERMEDIATE
        b_acc = rows_times_tiles(
            p_rows, m_row, p_words, p_scales, i_expert, i_tile, INTERMEDIATE, TILES, STEPS, BLOCK_M, TILES_N, STEPS_K,
            COMPUTE, ASSEMBLY,
        )  # fmt: skip
        o_column = i_tile * 16 + tl.arange(0, 16 * TILES_N)
        m_column = o_column < HIDDEN
        b_acc += load_fp32(p_bias + i_expert * HIDDEN + o_column, m_column)[None, :]
        b_pair = tl.load(p_order + o_row, mask=m_row, other=0)
        p_result = p_out + b_pair.to(tl.int64)[:, None] * HIDDEN + o_column[None, :]
        tl.store(p_result, round_to(b_acc, p_out.dtype.element_ty), mask=m_row[:, None] & m_column[None, :])


@triton.jit
def combine_kernel(
    p_y, p_weights, p_x, HIDDEN: tl.constexpr, TOPK: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One program per token and BLOCK columns."""
    i_token = tl.program_id(0).to(tl.int64)
    o_hidden = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m_hidden = o_hidden < HIDDEN
    b_x = load_fp32(p_x + i_token * HIDDEN + o_hidden, m_hidden)
    for rank in tl.static_range(TOPK):
        weight = tl.load(p_weights + i_token * TOPK + rank)
        b_x += weight * load_fp32(p_y + (i_token * TOPK + rank) * HIDDEN + o_hidden, m_hidden)
    tl.store(p_x + i_token * HIDDEN + o_hidden, round_to(b_x, p_x.dtype.element_ty), mask=m_hidden)


@dataclass(frozen=True)
class Tiling:
    """Block shapes of the grouped products: rows, tiles of 16 weight rows, steps of 64 inputs, warps, stages."""

    block_m: int = 128
    tiles_n: int = 8
    steps_k: int = 1
    warps: int = 8
    stages: int = 3

    @staticmethod
    def for_pairs(pairs: int, experts: int) -> "Tiling":
        """Rows per block that an average expert fills: wider blocks reuse decoded weights more."""
        mean = pairs / experts
        return Tiling(block_m=128) if mean > 64 else Tiling(block_m=64 if mean > 16 else 16, warps=4)


def gate_up(
    normed: torch.Tensor, weights: PackedExperts, bias: torch.Tensor, work: Plan, limit: float, tiling: Tiling,
    variant: Variant,
) -> torch.Tensor:  # fmt: skip
    """swiglu(normed·W1ᵀ + b1) for every pair, sorted by expert: [pairs, intermediate] in the type of `normed`.

    normed [tokens, hidden]; weights packed with interleaved rows; bias [experts, 2·intermediate], even = gate.
    Source: spec/model.md, step 6.
    """
    intermediate = weights.rows // 2
    hidden = torch.empty(work.order.numel(), intermediate, dtype=normed.dtype, device=normed.device)
    grouped_gate_up_kernel[(triton.cdiv(weights.tiles, tiling.tiles_n), len(work.blocks))](
        normed, weights.words, weights.scales, bias, work.order, work.blocks, hidden, limit, weights.k, intermediate,
        weights.tiles, weights.steps, work.topk, tiling.block_m, tiling.tiles_n, tiling.steps_k, variant.compute,
        variant.name == "mma", num_warps=tiling.warps, num_stages=tiling.stages,
    )  # fmt: skip
    return hidden


def down(
    hidden: torch.Tensor, weights: PackedExperts, bias: torch.Tensor, work: Plan, tiling: Tiling, variant: Variant
) -> torch.Tensor:
    """hidden·W2ᵀ + b2: rows sorted by expert in, [pairs, hidden] in pair order out. bias [experts, hidden]."""
    out = torch.empty(len(hidden), weights.rows, dtype=hidden.dtype, device=hidden.device)
    grouped_down_kernel[(triton.cdiv(weights.tiles, tiling.tiles_n), len(work.blocks))](
        hidden, weights.words, weights.scales, bias, work.order, work.blocks, out, weights.k, weights.rows,
        weights.tiles, weights.steps, tiling.block_m, tiling.tiles_n, tiling.steps_k, variant.compute,
        variant.name == "mma", num_warps=tiling.warps, num_stages=tiling.stages,
    )  # fmt: skip
    return out


def combine(y: torch.Tensor, weights: torch.Tensor, x: torch.Tensor) -> None:
    """x [tokens, hidden] += Σ_rank weights [tokens, topk]·y [tokens·topk, hidden], one rounding per element."""
    tokens, hidden = x.shape
    block = min(1024, triton.next_power_of_2(hidden))
    combine_kernel[(tokens, triton.cdiv(hidden, block))](y, weights, x, hidden, weights.shape[1], block)

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005 (Triton's front end cannot unpack tuples)
"""The experts of a decode step, straight from their MXFP4 tiles; every weight of a chosen expert is read once.

For each work item (`router`: one expert, up to COLUMNS pairs) and each tile of 16 row slots:

    gate_up   h[pair] = weight[pair] · swiglu(normed[token]·W1ᵀ + b1)      [pairs, intermediate]
    down      y[pair] = h[pair]·W2ᵀ + weight[pair] · b2                    [pairs, hidden] fp32, and the last program
                                                                           of a tile adds its y's to x: x += Σ y

The warps of a program share a tile and take every WARPSth step of 64 values of k. Two variants of the product have
one meaning: `mma_products` (tensor_core.py; NVIDIA, bf16) and `portable_products` (plain fp32 arithmetic).
"""

import triton
import triton.language as tl

from gpt_oss.triton.numerics import (
    high_value,
    last_to_arrive,
    load_fp32,
    low_value,
    round_to,
    scale_value,
    swiglu,
    value_pair,
    wait_for_previous,
)
from gpt_oss.triton.tensor_core import LOAD_CONSTRAINTS, LOAD_INPUTS, LOAD_WORDS, STEP, STEP_CONSTRAINTS


@triton.jit
def portable_products(
    p_words, p_scales, p_inputs, m_columns,
    STEPS: tl.constexpr, COLUMNS: tl.constexpr, STEPS_AT_ONCE: tl.constexpr,
):  # fmt: skip
    """[COLUMNS, 8 (g), 2 (r)] fp32: one tile times the input rows at p_inputs [COLUMNS]."""
    WORDS: tl.constexpr = STEPS_AT_ONCE * 128
    o_word = tl.arange(0, WORDS)  # step, g, t, b, r
    o_k = (o_word // 128) * 64 + ((o_word // 2) % 2) * 32 + ((o_word // 4) % 4) * 8
    o_scale = (o_word // 16) * 4 + o_word % 4
    b_acc = tl.zeros([COLUMNS, WORDS], tl.float32)
    for first in range(0, STEPS, STEPS_AT_ONCE):
        m_word = first + o_word // 128 < STEPS
        b_words = tl.load(p_words + first * 128 + o_word, mask=m_word, other=0).to(tl.uint32, bitcast=True)
        b_scale = scale_value(tl.load(p_scales + first * 32 + o_scale, mask=m_word, other=0))
        b_sum = tl.zeros([COLUMNS, WORDS], tl.float32)
        for pair in tl.static_range(4):
            b_pair = value_pair(b_words, pair)
            p_pair = p_inputs[:, None] + (first * 64 + o_k + 2 * pair)[None, :]
            m_pair = m_columns[:, None] & m_word[None, :]
            b_sum += low_value(b_pair)[None, :] * load_fp32(p_pair, m_pair)
            b_sum += high_value(b_pair)[None, :] * load_fp32(p_pair + 1, m_pair)
        b_acc += b_sum * b_scale[None, :]
    b_tile = tl.reshape(b_acc, (COLUMNS, STEPS_AT_ONCE, 8, 4, 2, 2))
    return tl.sum(tl.sum(tl.sum(b_tile, axis=1), axis=2), axis=2)


@triton.jit
def load_16_bytes(p_from, ASM: tl.constexpr):
    """Four 32-bit registers per thread. Not "pure", so that a load stays where it stands, ahead of its use."""
    return tl.inline_asm_elementwise(
        ASM, LOAD_CONSTRAINTS, [p_from.to(tl.int64)],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32), is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def mma_step(b_words, b_scales, p_inputs, b_acc):
    """The four accumulators after one step. Blocks are [threads]; p_inputs is the lane's first input of block 0."""
    b_x = load_16_bytes(p_inputs, LOAD_INPUTS)
    b_y = load_16_bytes(p_inputs + 32, LOAD_INPUTS)
    return tl.inline_asm_elementwise(
        STEP, STEP_CONSTRAINTS,
        [b_words[0], b_words[1], b_words[2], b_words[3], b_x[0], b_x[1], b_x[2], b_x[3],
         b_y[0], b_y[1], b_y[2], b_y[3], b_scales, b_acc[0], b_acc[1], b_acc[2], b_acc[3]],
        dtype=(tl.float32, tl.float32, tl.float32, tl.float32), is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def mma_products(
    p_words, p_scales, p_lane_inputs, STEPS: tl.constexpr, WARPS: tl.constexpr, AHEAD: tl.constexpr, WAIT: tl.constexpr
):  # fmt: skip
    """[8 (column), 8 (g), 2 (r)] fp32, as `portable_products`, times 2^-14 (tensor_core.OUTPUT_SCALE).

    p_lane_inputs [threads] is the input row of each lane's column, g = lane // 4. Weights are requested AHEAD steps
    before their use: AHEAD · 512 bytes in flight per warp, with WAIT before the kernel that writes the inputs has
    ended. Thread i of the program is element i of every block: what a
    1-D block of `threads` elements means in Triton, and what the tests assert once compiled.
    """
    ROUNDS: tl.constexpr = (STEPS + WARPS - 1) // WARPS
    o_thread = tl.arange(0, 32 * WARPS)
    o_lane = o_thread % 32
    i_warp = o_thread // 32
    # The last round may have fewer steps than warps; idle warps repeat its first step and drop the result.
    m_last = (ROUNDS - 1) * WARPS + i_warp < STEPS
    o_idle = tl.where(m_last, 0, i_warp)
    p_words = p_words + (i_warp * 128 + o_lane * 4)
    p_scales = p_scales + (i_warp * 8 + o_lane // 4)
    p_inputs = p_lane_inputs + (i_warp * 64 + (o_lane % 4) * 8)
    b_zero = tl.zeros([32 * WARPS], tl.float32)
    b_acc = (b_zero, b_zero, b_zero, b_zero)
    b_words = ()
    b_scales = ()
    for i in tl.static_range(ROUNDS + AHEAD):
        if i < ROUNDS - 1:
            b_words = b_words + (load_16_bytes(p_words + i * WARPS * 128, LOAD_WORDS),)
            b_scales = b_scales + (tl.load(p_scales + i * WARPS * 8),)
        elif i == ROUNDS - 1:
            b_words = b_words + (load_16_bytes(p_words + (i * WARPS - o_idle) * 128, LOAD_WORDS),)
            b_scales = b_scales + (tl.load(p_scales + (i * WARPS - o_idle) * 8),)
        if i == AHEAD:
            wait_for_previous(WAIT)
        if i >= AHEAD:
            if i - AHEAD < ROUNDS - 1 or STEPS % WARPS == 0:
                b_acc = mma_step(b_words[i - AHEAD], b_scales[i - AHEAD], p_inputs + (i - AHEAD) * WARPS * 64, b_acc)
            else:
                p_step = p_inputs + ((i - AHEAD) * WARPS - o_idle) * 64
                b_last = mma_step(b_words[i - AHEAD], b_scales[i - AHEAD], p_step, b_acc)
                b_acc = (
                    tl.where(m_last, b_last[0], b_acc[0]),
                    tl.where(m_last, b_last[1], b_acc[1]),
                    tl.where(m_last, b_last[2], b_acc[2]),
                    tl.where(m_last, b_last[3], b_acc[3]),
                )
    # One sum over warps for all four: [threads, 2 (r), 2 (column 2t or 2t + 1)] is [WARPS, 8 (g), 4 (t), 2, 2].
    b_all = tl.join(tl.join(b_acc[0], b_acc[2]), tl.join(b_acc[1], b_acc[3]))
    b_sum = tl.sum(tl.reshape(b_all, (WARPS, 8, 4, 2, 2)), axis=0)
    return tl.reshape(tl.permute(b_sum, (1, 3, 0, 2)), (8, 8, 2))


@triton.jit
def tile_products(
    p_words, p_scales, p_inputs, p_pairs, i_expert, i_tile, TILES, input_width, pair_divisor,
    STEPS: tl.constexpr, COLUMNS: tl.constexpr, VARIANT: tl.constexpr, WARPS: tl.constexpr, AHEAD: tl.constexpr,
    WAIT: tl.constexpr,
):  # fmt: skip
    """[COLUMNS, 8 (g), 2 (r)]: one tile of an expert times the input rows pair // pair_divisor of an item's pairs.

    With WAIT the inputs are those of the kernel before this one.
    """
    o_tile = i_expert.to(tl.int64) * TILES + i_tile
    p_words += o_tile * (STEPS * 128)
    if VARIANT == "mma":
        o_lane = tl.arange(0, 32 * WARPS) % 32
        # Unused columns (-1) multiply row 0: columns do not mix, and nobody reads theirs.
        b_row = tl.maximum(tl.load(p_pairs + o_lane // 4, cache_modifier=".cg"), 0) // pair_divisor
        p_scales = p_scales.to(tl.pointer_type(tl.int32), bitcast=True) + o_tile * (STEPS * 8)
        b_acc = mma_products(p_words, p_scales, p_inputs + b_row * input_width, STEPS, WARPS, AHEAD, WAIT)
    else:
        wait_for_previous(WAIT)
        b_pair = tl.load(p_pairs + tl.arange(0, COLUMNS))
        p_rows = p_inputs + (tl.maximum(b_pair, 0) // pair_divisor) * input_width
        b_acc = portable_products(p_words, p_scales + o_tile * (STEPS * 32), p_rows, b_pair >= 0, STEPS, COLUMNS, AHEAD)
    return b_acc


@triton.jit
def gate_up_kernel(
    p_normed, p_words, p_scales, p_bias, p_weights, p_items, p_item_pairs, p_hidden,
    limit, input_scale, output_scale,
    INTERMEDIATE: tl.constexpr, NORMED_WIDTH: tl.constexpr, HIDDEN_WIDTH: tl.constexpr, TILES: tl.constexpr,
    STEPS: tl.constexpr, TOPK: tl.constexpr, COLUMNS: tl.constexpr,
    VARIANT: tl.constexpr, WARPS: tl.constexpr, AHEAD: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """h = weight · swiglu(normed·W1ᵀ + b1); grid (tiles of mlp1, most items)."""
    i_tile = tl.program_id(0)
    i_item = tl.program_id(1)
    wait_for_previous(DEPENDENT)
    i_expert = tl.load(p_items + i_item)
    if i_expert >= 0:
        p_pairs = p_item_pairs + i_item * COLUMNS
        b_pair = tl.load(p_pairs + tl.arange(0, COLUMNS))
        # What the epilogue needs is on its way while the products are made.
        o_inter = i_tile * 8 + tl.arange(0, 8)
        m_inter = o_inter < INTERMEDIATE
        p_bias_rows = p_bias + i_expert * (2 * INTERMEDIATE) + 2 * o_inter
        b_gate_bias = load_fp32(p_bias_rows, m_inter)
        b_linear_bias = load_fp32(p_bias_rows + 1, m_inter)
        b_weight = tl.load(p_weights + b_pair, mask=b_pair >= 0, other=0.0)
        b_acc = tile_products(
            p_words, p_scales, p_normed, p_pairs, i_expert, i_tile, TILES, NORMED_WIDTH, TOPK,
            STEPS, COLUMNS, VARIANT, WARPS, AHEAD, False,
        )  # fmt: skip
        b_gate, b_linear = tl.split(b_acc * output_scale)  # [COLUMNS, 8]
        b_gate += b_gate_bias[None, :]
        b_linear += b_linear_bias[None, :]
        b_hidden = swiglu(b_gate, b_linear, limit) * b_weight[:, None] * input_scale
        m_hidden = (b_pair >= 0)[:, None] & m_inter[None, :]
        p_out = p_hidden + b_pair[:, None] * HIDDEN_WIDTH + o_inter[None, :]
        tl.store(p_out, round_to(b_hidden, p_hidden.dtype.element_ty), mask=m_hidden)


@triton.jit
def down_kernel(
    p_hidden, p_words, p_scales, p_bias, p_weights, p_items, p_item_pairs, p_item_count, p_partial, p_x, p_counters,
    output_scale,
    TOKENS: tl.constexpr, TOKENS_P: tl.constexpr, HIDDEN: tl.constexpr, HIDDEN_WIDTH: tl.constexpr, TILES: tl.constexpr,
    STEPS: tl.constexpr, TOPK: tl.constexpr, COLUMNS: tl.constexpr,
    VARIANT: tl.constexpr, WARPS: tl.constexpr, AHEAD: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """x += Σ over a token's experts of (h·W2ᵀ + weight·b2); grid (tiles of mlp2, most items).

    The sum runs over ranks in order, in the last program of each tile: the same bits on every run.
    """
    i_tile = tl.program_id(0)
    i_item = tl.program_id(1)
    # The router ran two kernels ago: only the hidden values are waited for.
    i_expert = tl.load(p_items + i_item, cache_modifier=".cg")
    if i_expert >= 0:
        p_pairs = p_item_pairs + i_item * COLUMNS
        b_pair = tl.load(p_pairs + tl.arange(0, COLUMNS), cache_modifier=".cg")
        # What the epilogue needs is on its way while the products are made.
        item_count = tl.load(p_item_count, cache_modifier=".cg")
        o_row = i_tile * 16 + tl.arange(0, 16)
        m_row = o_row < HIDDEN
        b_bias = load_fp32(p_bias + i_expert * HIDDEN + o_row, m_row)
        b_weight = tl.load(p_weights + b_pair, mask=b_pair >= 0, other=0.0, cache_modifier=".cg")
        b_acc = tile_products(
            p_words, p_scales, p_hidden, p_pairs, i_expert, i_tile, TILES, HIDDEN_WIDTH, 1,
            STEPS, COLUMNS, VARIANT, WARPS, AHEAD, DEPENDENT,
        )  # fmt: skip
        b_acc = tl.reshape(tl.permute(b_acc, (0, 2, 1)), (COLUMNS, 16)) * output_scale  # row slot = 8·r + g
        b_acc += b_weight[:, None] * b_bias[None, :]
        p_out = p_partial + b_pair[:, None] * HIDDEN + o_row[None, :]
        tl.store(p_out, b_acc, mask=(b_pair >= 0)[:, None] & m_row[None, :])
        if last_to_arrive(p_counters + i_tile, item_count):
            o_token = tl.arange(0, TOKENS_P)
            m_x = (o_token < TOKENS)[:, None] & m_row[None, :]
            p_x_block = p_x + o_token[:, None] * HIDDEN + o_row[None, :]
            b_x = load_fp32(p_x_block, m_x)
            for rank in tl.static_range(TOPK):
                p_rank = p_partial + (o_token * TOPK + rank)[:, None] * HIDDEN + o_row[None, :]
                b_x += tl.load(p_rank, mask=m_x, other=0.0, cache_modifier=".cg")
            tl.store(p_x_block, round_to(b_x, p_x.dtype.element_ty), mask=m_x)

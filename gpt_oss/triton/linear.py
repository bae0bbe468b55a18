# mypy: disable-error-code="no-untyped-def"
"""Dense BF16 projections of a decode step, each with what stands around it in the layer fused in.

    qkv     = rmsnorm(x)·Wᵀ + b            [tokens, rows]
    x      += attention·Wᵀ + b             and each block of rows adds its share of the router's logits, which are
                                            linear in x: no second pass over x, and the last block finishes the token

(`unembedding.py` is the third.) The norm is applied after the product, rmsnorm(x)·Wᵀ = (x∘gain)·Wᵀ / rms(x), so
that the weights stream from the first cycle on. One token uses fp32 multiply-adds (memory-bound, 16-byte loads);
more use the matrix units, rows as the long side. Shapes: x [tokens, k] contiguous, weights [rows, k] contiguous.
"""

import triton
import triton.language as tl

from gpt_oss.triton.numerics import dot, last_to_arrive, load_fp32, round_to, wait_for_previous
from gpt_oss.triton.router import route_token


@triton.jit
def row_products(
    p_x, p_gain, p_weight, o_rows, m_rows,
    TOKENS: tl.constexpr, TOKENS_P: tl.constexpr, K: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
    NORM: tl.constexpr, COMPUTE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """(x∘gain)·Wᵀ [TOKENS_P, BLOCK_R] in fp32 and Σ x² [TOKENS_P]; gain and Σ only with NORM. TOKENS_P is 1 or ≥ 16.

    Waits for the previous kernel, with one token only after it has requested its first weights.
    """
    o_k = tl.arange(0, BLOCK_K)
    p_rows = p_weight + o_rows.to(tl.int64)[:, None] * K
    if TOKENS_P == 1:
        # Each thread sums the neighbouring values of one 16-byte load at once: few registers, so many loads in flight.
        b_sums = tl.zeros([BLOCK_R, BLOCK_K // 8], tl.float32)
        b_square = tl.zeros([BLOCK_K // 8], tl.float32)
        for i_k in tl.static_range((K + BLOCK_K - 1) // BLOCK_K):
            o_now = i_k * BLOCK_K + o_k
            m_k = o_now < K
            b_w = load_fp32(p_rows + o_now[None, :], m_rows[:, None] & m_k[None, :])  # [BLOCK_R, BLOCK_K]
            if i_k == 0:
                wait_for_previous(DEPENDENT)
            b_x = load_fp32(p_x + o_now, m_k)  # [BLOCK_K]
            if NORM:
                b_square += tl.sum(tl.reshape(b_x * b_x, (BLOCK_K // 8, 8)), axis=1)
                b_x = b_x * load_fp32(p_gain + o_now, m_k)
            b_sums += tl.sum(tl.reshape(b_w * b_x[None, :], (BLOCK_R, BLOCK_K // 8, 8)), axis=2)
        b_acc = tl.sum(b_sums, axis=1)[None, :]
        b_squares = tl.sum(b_square, axis=0)[None]
    else:
        wait_for_previous(DEPENDENT)
        o_token = tl.arange(0, TOKENS_P)
        b_acc_rows = tl.zeros([BLOCK_R, TOKENS_P], tl.float32)
        b_square = tl.zeros([BLOCK_K, TOKENS_P], tl.float32)
        for first in range(0, K, BLOCK_K):
            o_now = first + o_k
            m_k = o_now < K
            b_w = load_fp32(p_rows + o_now[None, :], m_rows[:, None] & m_k[None, :])  # [BLOCK_R, BLOCK_K]
            m_x = m_k[:, None] & (o_token < TOKENS)[None, :]
            b_x = load_fp32(p_x + o_token[None, :] * K + o_now[:, None], m_x)  # [BLOCK_K, TOKENS_P]
            if NORM:
                b_square += b_x * b_x
                b_x = b_x * load_fp32(p_gain + o_now, m_k)[:, None]
            b_acc_rows += dot(b_w, b_x, COMPUTE)
        b_acc = tl.trans(b_acc_rows)
        b_squares = tl.sum(b_square, axis=0)  # over threads, so once
    return b_acc, b_squares


@triton.jit
def qkv_kernel(
    p_x, p_gain, p_weight, p_bias, p_out, rows, eps,
    TOKENS: tl.constexpr, TOKENS_P: tl.constexpr, K: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, COMPUTE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """out = rmsnorm(x)·Wᵀ + b, one program per BLOCK_R rows."""
    o_rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    m_rows = o_rows < rows
    b_bias = load_fp32(p_bias + o_rows, m_rows)
    b_acc, b_squares = row_products(
        p_x, p_gain, p_weight, o_rows, m_rows, TOKENS, TOKENS_P, K, BLOCK_R, BLOCK_K, True, COMPUTE, DEPENDENT
    )
    b_out = b_acc / tl.sqrt(b_squares / K + eps)[:, None] + b_bias[None, :]
    o_token = tl.arange(0, TOKENS_P)
    m_out = (o_token < TOKENS)[:, None] & m_rows[None, :]
    tl.store(p_out + o_token[:, None] * rows + o_rows[None, :], round_to(b_out, p_out.dtype.element_ty), mask=m_out)


@triton.jit
def out_kernel(
    p_attention, p_weight, p_bias, p_x, p_gain, p_router, p_router_bias,
    p_squares, p_partials, p_normed, p_ids, p_weights, p_counter, eps, input_scale,
    TOKENS: tl.constexpr, TOKENS_P: tl.constexpr, K: tl.constexpr, HIDDEN: tl.constexpr, NORMED_WIDTH: tl.constexpr,
    PARTS: tl.constexpr, PARTS_P: tl.constexpr, EXPERTS: tl.constexpr, EXPERTS_P: tl.constexpr,
    TOPK: tl.constexpr, TOPK_P: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, COMPUTE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """x += attention·Wᵀ + b for BLOCK_R rows, then these rows' share of Σ x² and of (x∘gain)·router.

    p_router is [hidden, EXPERTS_P]: transposed and zero-padded when loaded. With one token the last program to arrive
    routes it; with more, `router.route_kernel` follows.
    """
    i_part = tl.program_id(0)
    o_rows = i_part * BLOCK_R + tl.arange(0, BLOCK_R)
    m_rows = o_rows < HIDDEN
    o_token = tl.arange(0, TOKENS_P)
    m_token = o_token < TOKENS
    m_x = m_token[:, None] & m_rows[None, :]
    p_x_block = p_x + o_token[:, None] * HIDDEN + o_rows[None, :]
    o_expert = tl.arange(0, EXPERTS_P)
    # What follows the product is on its way while it is made; x too, which the kernel before this one does not write.
    b_bias = load_fp32(p_bias + o_rows, m_rows)
    b_gain = load_fp32(p_gain + o_rows, m_rows)
    b_router = load_fp32(p_router + o_rows[:, None] * EXPERTS_P + o_expert[None, :], m_rows[:, None])
    b_residual = tl.load(p_x_block, mask=m_x, other=0.0, cache_modifier=".cg").to(tl.float32)
    b_acc, _ = row_products(
        p_attention, p_gain, p_weight, o_rows, m_rows, TOKENS, TOKENS_P, K, BLOCK_R, BLOCK_K, False, COMPUTE, DEPENDENT
    )
    b_rounded = round_to(b_residual + b_acc + b_bias[None, :], p_x.dtype.element_ty)
    tl.store(p_x_block, b_rounded, mask=m_x)
    b_x = tl.where(m_x, b_rounded.to(tl.float32), 0.0)  # [TOKENS_P, BLOCK_R]
    tl.store(p_squares + i_part * TOKENS + o_token, tl.sum(b_x * b_x, axis=1), mask=m_token)
    b_x = b_x * b_gain[None, :]
    if TOKENS_P == 1:  # noqa: SIM108 a compile-time branch
        b_share = tl.sum(tl.trans(b_x) * b_router, axis=0)[None, :]
    else:
        b_share = dot(b_x, b_router, tl.float32)
    p_share = p_partials + (i_part * TOKENS + o_token[:, None]) * EXPERTS_P + o_expert[None, :]
    tl.store(p_share, b_share, mask=m_token[:, None])
    if TOKENS == 1:  # noqa: SIM102 a compile-time branch
        if last_to_arrive(p_counter, PARTS):
            route_token(
                0, p_x, p_gain, p_squares, p_partials, p_router_bias, p_normed, p_ids, p_weights, eps, input_scale,
                1, HIDDEN, NORMED_WIDTH, PARTS, PARTS_P, EXPERTS, EXPERTS_P, TOPK, TOPK_P,
            )  # fmt: skip

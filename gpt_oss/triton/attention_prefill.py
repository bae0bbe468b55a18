# mypy: disable-error-code="no-untyped-def"
"""Attention of a prefill chunk: tokens at positions start … start + tokens - 1 of one sequence, over its whole cache.

`rope_and_store` rotates the chunk's queries and keys and writes keys and values to the cache; `attend` reads every
key it may see from there, whether an earlier chunk wrote it or this one, so any start position is right. Windowed
layers skip the blocks of keys outside the window. The cache of a windowed layer is a ring: position n lies at
n % capacity, and a chunk may hold at most capacity - window + 1 tokens (`cache.py` sees to that).
"""

import math

import torch
import triton
import triton.language as tl

from gpt_oss.triton.attention_decode import ring_place, rotate_halves
from gpt_oss.triton.numerics import dot, load_fp32, round_to


# Sizes that change from call to call must not each compile a kernel of their own.
@triton.jit(do_not_specialize=["start"])
def rope_and_store_kernel(
    p_qkv, p_cos, p_sin, p_keys, p_values, start, capacity,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD: tl.constexpr, HALF_P: tl.constexpr, HEAD_P: tl.constexpr,
    HEADS_P: tl.constexpr, KV_HEADS_P: tl.constexpr,
):  # fmt: skip
    """One program per token: queries rotated in place, keys rotated into the cache, values copied there."""
    i_token = tl.program_id(0)
    position = start + i_token
    o_half = tl.arange(0, HALF_P)
    m_half = o_half < HEAD // 2
    p_row = p_qkv + i_token.to(tl.int64) * ((Q_HEADS + 2 * KV_HEADS) * HEAD)
    p_cos += position * (HEAD // 2)
    p_sin += position * (HEAD // 2)
    o_head = tl.arange(0, HEADS_P)
    m_head = o_head < Q_HEADS
    b_q1, b_q2 = rotate_halves(p_row, p_cos, p_sin, o_head * HEAD, m_head, HEAD, HALF_P)
    p_query = p_row + o_head[:, None] * HEAD + o_half[None, :]
    m_query = m_head[:, None] & m_half[None, :]
    tl.store(p_query, round_to(b_q1, p_qkv.dtype.element_ty), mask=m_query)
    tl.store(p_query + HEAD // 2, round_to(b_q2, p_qkv.dtype.element_ty), mask=m_query)
    o_kv = tl.arange(0, KV_HEADS_P)
    m_kv = o_kv < KV_HEADS
    o_place = o_kv[:, None] * (capacity * HEAD) + (position % capacity) * HEAD
    b_k1, b_k2 = rotate_halves(p_row, p_cos, p_sin, (Q_HEADS + o_kv) * HEAD, m_kv, HEAD, HALF_P)
    m_key = m_kv[:, None] & m_half[None, :]
    tl.store(p_keys + o_place + o_half[None, :], round_to(b_k1, p_keys.dtype.element_ty), mask=m_key)
    tl.store(p_keys + o_place + o_half[None, :] + HEAD // 2, round_to(b_k2, p_keys.dtype.element_ty), mask=m_key)
    o_dim = tl.arange(0, HEAD_P)
    m_value = m_kv[:, None] & (o_dim < HEAD)[None, :]
    b_value = load_fp32(p_row + (Q_HEADS + KV_HEADS + o_kv[:, None]) * HEAD + o_dim[None, :], m_value)
    tl.store(p_values + o_place + o_dim[None, :], round_to(b_value, p_values.dtype.element_ty), mask=m_value)


@triton.jit
def attend_keys(
    b_q, p_keys, p_values, o_query, begin, end, ring_first, capacity, log2_scale, b_max, b_sum, b_acc,
    HEAD: tl.constexpr, HEAD_P: tl.constexpr, WINDOW: tl.constexpr, MASKED: tl.constexpr, BLOCK_N: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    """The running softmax of `prefill_attention_kernel` over keys begin … end - 1: (b_max, b_sum, b_acc) after them.

    MASKED compares positions; without it every query sees every key, and end - begin is a multiple of BLOCK_N.
    """
    o_dim = tl.arange(0, HEAD_P)
    m_dim = o_dim < HEAD
    for now in range(begin, end, BLOCK_N):
        o_key = now + tl.arange(0, BLOCK_N)
        o_place = ring_place(o_key, ring_first, capacity) if WINDOW > 0 else o_key
        p_key = p_keys + o_place[None, :] * HEAD + o_dim[:, None]
        p_value = p_values + o_place[:, None] * HEAD + o_dim[None, :]
        if MASKED:
            m_key = o_key < end
            b_scores = dot(b_q, load_fp32(p_key, m_dim[:, None] & m_key[None, :]), COMPUTE)
            b_v = load_fp32(p_value, m_key[:, None] & m_dim[None, :])
            o_distance = o_query[:, None] - o_key[None, :]
            m_score = (o_distance >= 0) & m_key[None, :]
            if WINDOW > 0:
                m_score &= o_distance < WINDOW
            b_scores = tl.where(m_score, b_scores, float("-inf"))
        else:
            b_scores = dot(b_q, load_fp32(p_key, m_dim[:, None]), COMPUTE)
            b_v = load_fp32(p_value, m_dim[None, :])
        b_new_max = tl.maximum(b_max, tl.max(b_scores, axis=1) * log2_scale)  # never -inf: it starts at the sink
        b_p = tl.exp2(b_scores * log2_scale - b_new_max[:, None])  # one multiply-add
        b_keep = tl.exp2(b_max - b_new_max)
        b_acc = b_acc * b_keep[:, None] + dot(b_p, b_v, COMPUTE)
        b_sum = b_sum * b_keep + tl.sum(b_p, axis=1)
        b_max = b_new_max
    return b_max, b_sum, b_acc


@triton.jit(do_not_specialize=["tokens", "start"])
def prefill_attention_kernel(
    p_qkv, p_sinks, p_keys, p_values, p_out, tokens, start, capacity, scale,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD: tl.constexpr, HEAD_P: tl.constexpr,
    WINDOW: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks, query heads). The running maximum starts at the sink and the denominator at its exp(0).

    Powers are of two (scores are multiplied by log2 e with their scale): that is what the hardware computes.
    """
    LOG2_E: tl.constexpr = 1.4426950408889634
    i_block = tl.program_id(0)
    i_head = tl.program_id(1)
    row_width = (Q_HEADS + 2 * KV_HEADS) * HEAD
    o_dim = tl.arange(0, HEAD_P)
    m_dim = o_dim < HEAD
    o_token = i_block * BLOCK_M + tl.arange(0, BLOCK_M)
    m_token = o_token < tokens
    p_query = p_qkv + o_token.to(tl.int64)[:, None] * row_width + i_head * HEAD + o_dim[None, :]
    b_q = load_fp32(p_query, m_token[:, None] & m_dim[None, :])  # [BLOCK_M, HEAD_P]
    o_cache = (i_head // (Q_HEADS // KV_HEADS)) * capacity * HEAD
    b_max = tl.zeros([BLOCK_M], tl.float32) + tl.load(p_sinks + i_head).to(tl.float32) * LOG2_E
    b_sum = tl.full([BLOCK_M], 1.0, tl.float32)
    b_acc = tl.zeros([BLOCK_M, HEAD_P], tl.float32)
    position = start + i_block * BLOCK_M  # of the block's first query
    end = start + tl.minimum((i_block + 1) * BLOCK_M, tokens)
    first = 0
    if WINDOW > 0:
        first = tl.maximum(position - WINDOW + 1, 0)
        everybody_sees = first
    else:
        everybody_sees = (position + 1) // BLOCK_N * BLOCK_N
        b_max, b_sum, b_acc = attend_keys(
            b_q, p_keys + o_cache, p_values + o_cache, start + o_token, 0, everybody_sees, 0, capacity, scale * LOG2_E,
            b_max, b_sum, b_acc, HEAD, HEAD_P, WINDOW, False, BLOCK_N, COMPUTE,
        )  # fmt: skip
    b_max, b_sum, b_acc = attend_keys(
        b_q, p_keys + o_cache, p_values + o_cache, start + o_token, everybody_sees, end, first, capacity,
        scale * LOG2_E, b_max, b_sum, b_acc, HEAD, HEAD_P, WINDOW, True, BLOCK_N, COMPUTE,
    )  # fmt: skip
    p_result = p_out + (o_token.to(tl.int64)[:, None] * Q_HEADS + i_head) * HEAD + o_dim[None, :]
    b_out = round_to(b_acc / b_sum[:, None], p_out.dtype.element_ty)
    tl.store(p_result, b_out, mask=m_token[:, None] & m_dim[None, :])


def rope_and_store(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int
) -> None:
    """Rotate a chunk and extend the cache of one sequence.

    qkv [tokens, (q + 2·kv heads)·head] in order q, k, v: its queries are rotated in place; cos and sin
    [positions, head/2] fp32; keys and values [kv heads, capacity, head] of one slot. Token i is at position start + i.
    RoPE: pairs (j, j + head/2); source: spec/model.md, step 2.
    """
    kv_heads, capacity, head = keys.shape
    q_heads = qkv.shape[1] // head - 2 * kv_heads
    power = triton.next_power_of_2
    rope_and_store_kernel[(qkv.shape[0],)](
        qkv, cos, sin, keys, values, start, capacity, q_heads, kv_heads, head, max(power(head // 2), 16),
        max(power(head), 16), power(q_heads), power(kv_heads),
    )  # fmt: skip


def attend(
    qkv: torch.Tensor, sinks: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int, window: int,
    compute: tl.dtype, block_m: int = 64, block_n: int = 64, stages: int = 3,
) -> torch.Tensor:  # fmt: skip
    """softmax over (q·kᵀ/√head, sink) times v, causal: [tokens, q heads · head] in the type of qkv.

    qkv holds rotated queries (its key and value columns are not read), keys and values are one slot's cache with the
    chunk stored; window 0 sees everything, else each query sees `window` keys, its own included. Source: spec/model.md,
    step 3.
    """
    tokens = qkv.shape[0]
    kv_heads, capacity, head = keys.shape
    q_heads = sinks.shape[0]
    out = torch.empty(tokens, q_heads * head, dtype=qkv.dtype, device=qkv.device)
    prefill_attention_kernel[(triton.cdiv(tokens, block_m), q_heads)](
        qkv, sinks, keys, values, out, tokens, start, capacity, 1 / math.sqrt(head), q_heads, kv_heads, head,
        max(triton.next_power_of_2(head), 16), window, block_m, block_n, compute, num_stages=stages,
    )  # fmt: skip
    return out

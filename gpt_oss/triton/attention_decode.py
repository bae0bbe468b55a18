# mypy: disable-error-code="no-untyped-def"
"""Attention of a decode step: one new token per sequence, rotated, stored and attended to in a single launch.

    q, k  = rope(q, k at the sequence's position);  the cache gains k, v
    out_h = Σ_n softmax(q_h·k_n / √d, sink_h)_n · v_n      n in the window, or all; the sink joins the denominator only

Grid (sequences, kv heads, splits). The query heads of a kv head share a program. The keys of a sequence are cut into
as many splits as its true length fills (one for windowed layers); each leaves (Σ p·v, max, Σ p) and the last one to
arrive combines them, where the sink is added once. Positions come from the device, so the grid never depends on them.
"""

import triton
import triton.language as tl

from gpt_oss.triton.numerics import dot, last_to_arrive, load_fp32, round_to, wait_for_previous

MIN_SPLIT_KEYS = tl.constexpr(256)  # below this a second split costs more than it saves,
MANY_SPLIT_KEYS = tl.constexpr(512)  # and below this more than half of all splits
MOST_AT_ONCE = tl.constexpr(8)  # splits that the combining program holds: 32 of them would not fit its registers


@triton.jit
def rotate_halves(p_from, p_cos, p_sin, o_rows, m_rows, HEAD: tl.constexpr, HALF_P: tl.constexpr):
    """RoPE on rows of HEAD values at p_from + o_rows: both rotated halves, [rows, HALF_P] each, zero in the padding."""
    o_half = tl.arange(0, HALF_P)
    m_half = o_half < HEAD // 2
    m_both = m_rows[:, None] & m_half[None, :]
    b_first = load_fp32(p_from + o_rows[:, None] + o_half[None, :], m_both)
    b_second = load_fp32(p_from + o_rows[:, None] + o_half[None, :] + HEAD // 2, m_both)
    b_cos = load_fp32(p_cos + o_half, m_half)[None, :]
    b_sin = load_fp32(p_sin + o_half, m_half)[None, :]
    return b_first * b_cos - b_second * b_sin, b_second * b_cos + b_first * b_sin


@triton.jit
def ring_place(o_position, first, capacity):
    """o_position % capacity for positions of first … first + capacity - 1, by one division for all of them."""
    o_place = o_position - first + first % capacity
    return tl.where(o_place < capacity, o_place, o_place - capacity)


@triton.jit
def decode_attention_kernel(
    p_qkv, p_cos, p_sin, p_sinks, p_keys, p_values, p_slots, p_lengths, p_out, p_partial, p_stats, p_counters,
    capacity, scale,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD: tl.constexpr, HALF_P: tl.constexpr, HEAD_P: tl.constexpr,
    GROUP_P: tl.constexpr, WINDOW: tl.constexpr, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr,
    COMPUTE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Caches are [slots, KV_HEADS, capacity, HEAD]. WINDOW 0 sees all keys; else position n lies at n % capacity."""
    GROUP: tl.constexpr = Q_HEADS // KV_HEADS
    SPLITS_AT_ONCE: tl.constexpr = MOST_AT_ONCE if SPLITS > MOST_AT_ONCE else SPLITS
    i_sequence = tl.program_id(0)
    i_head = tl.program_id(1)
    i_split = tl.program_id(2)
    # Of the step before this one; only the projection is waited for.
    slot = tl.load(p_slots + i_sequence, cache_modifier=".cg")
    position = tl.load(p_lengths + slot, cache_modifier=".cg")
    wait_for_previous(DEPENDENT)
    first = 0
    if WINDOW > 0:
        first = tl.maximum(position - WINDOW + 1, 0)
    count = position + 1 - first
    few = tl.minimum((count + MIN_SPLIT_KEYS - 1) // MIN_SPLIT_KEYS, (SPLITS + 1) // 2)
    wanted = tl.minimum(tl.maximum(few, (count + MANY_SPLIT_KEYS - 1) // MANY_SPLIT_KEYS), SPLITS)
    per_split = ((count + wanted - 1) // wanted + BLOCK_N - 1) // BLOCK_N * BLOCK_N
    splits = (count + per_split - 1) // per_split
    if i_split < splits:
        o_dim = tl.arange(0, HEAD_P)
        m_dim = o_dim < HEAD
        o_half = tl.arange(0, HALF_P)
        m_half = o_half < HEAD // 2
        p_row = p_qkv + i_sequence * ((Q_HEADS + 2 * KV_HEADS) * HEAD)
        o_cache = (slot.to(tl.int64) * KV_HEADS + i_head) * capacity * HEAD
        p_cos += position * (HEAD // 2)
        p_sin += position * (HEAD // 2)
        start = first + i_split * per_split
        end = tl.minimum(start + per_split, position + 1)
        if end == position + 1:
            b_one = tl.zeros([1], tl.int32)
            b_k1, b_k2 = rotate_halves(p_row, p_cos, p_sin, b_one + (Q_HEADS + i_head) * HEAD, b_one == 0, HEAD, HALF_P)
            p_new = p_keys + o_cache + (position % capacity) * HEAD + o_half[None, :]
            tl.store(p_new, round_to(b_k1, p_keys.dtype.element_ty), mask=m_half[None, :])
            tl.store(p_new + HEAD // 2, round_to(b_k2, p_keys.dtype.element_ty), mask=m_half[None, :])
            b_v = load_fp32(p_row + (Q_HEADS + KV_HEADS + i_head) * HEAD + o_dim, m_dim)
            p_new_value = p_values + o_cache + (position % capacity) * HEAD + o_dim
            tl.store(p_new_value, round_to(b_v, p_values.dtype.element_ty), mask=m_dim)
            tl.debug_barrier()  # this program, and only this one, reads them back below
        o_group = tl.arange(0, GROUP_P)
        m_group = o_group < GROUP
        o_query = i_head * GROUP + o_group
        b_sink = load_fp32(p_sinks + o_query, m_group)  # here, so that the end need not wait for it
        b_q1, b_q2 = rotate_halves(p_row, p_cos, p_sin, o_query * HEAD, m_group, HEAD, HALF_P)
        # The reference keeps rotated queries in the activation type.
        b_q1 = round_to(b_q1, p_qkv.dtype.element_ty).to(tl.float32)
        b_q2 = round_to(b_q2, p_qkv.dtype.element_ty).to(tl.float32)
        b_max = tl.full([GROUP_P], float("-inf"), tl.float32)
        b_sum = tl.zeros([GROUP_P], tl.float32)
        b_acc = tl.zeros([GROUP_P, HEAD_P], tl.float32)
        for now in range(start, end, BLOCK_N):
            o_key = now + tl.arange(0, BLOCK_N)
            m_key = o_key < end
            o_place = ring_place(o_key, first, capacity) if WINDOW > 0 else o_key
            p_key = p_keys + o_cache + o_place[None, :] * HEAD + o_half[:, None]
            m_half_key = m_half[:, None] & m_key[None, :]
            b_scores = dot(b_q1, load_fp32(p_key, m_half_key), COMPUTE)  # [GROUP_P, BLOCK_N]
            b_scores += dot(b_q2, load_fp32(p_key + HEAD // 2, m_half_key), COMPUTE)
            b_scores = tl.where(m_key[None, :], b_scores * scale, float("-inf"))
            b_new_max = tl.maximum(b_max, tl.max(b_scores, axis=1))
            b_p = tl.exp(b_scores - b_new_max[:, None])
            b_keep = tl.exp(b_max - b_new_max)
            b_value = load_fp32(
                p_values + o_cache + o_place[:, None] * HEAD + o_dim[None, :], m_key[:, None] & m_dim[None, :]
            )
            b_acc = b_acc * b_keep[:, None] + dot(b_p, b_value, COMPUTE)
            b_sum = b_sum * b_keep + tl.sum(b_p, axis=1)
            b_max = b_new_max
        p_result = p_out + (i_sequence * Q_HEADS + o_query[:, None]) * HEAD + o_dim[None, :]
        m_result = m_group[:, None] & m_dim[None, :]
        if splits == 1:
            b_top = tl.maximum(b_max, b_sink)
            b_total = b_sum * tl.exp(b_max - b_top) + tl.exp(b_sink - b_top)
            b_out = b_acc * (tl.exp(b_max - b_top) / b_total)[:, None]
            tl.store(p_result, round_to(b_out, p_out.dtype.element_ty), mask=m_result)
        else:
            i_pair = i_sequence * KV_HEADS + i_head
            o_part = (i_pair * SPLITS + i_split) * GROUP_P + o_group
            tl.store(p_partial + o_part[:, None] * HEAD_P + o_dim[None, :], b_acc)
            tl.store(p_stats + 2 * o_part, b_max)
            tl.store(p_stats + 2 * o_part + 1, b_sum)
            if last_to_arrive(p_counters + i_pair, splits):
                o_split = tl.arange(0, SPLITS)
                m_split = (o_split < splits)[:, None]
                o_parts = (i_pair * SPLITS + o_split[:, None]) * GROUP_P + o_group[None, :]  # [SPLITS, GROUP_P]
                b_maxes = tl.load(p_stats + 2 * o_parts, mask=m_split, other=float("-inf"), cache_modifier=".cg")
                b_sums = tl.load(p_stats + 2 * o_parts + 1, mask=m_split, other=0.0, cache_modifier=".cg")
                b_top = tl.maximum(tl.max(b_maxes, axis=0), b_sink)
                b_total = tl.sum(b_sums * tl.exp(b_maxes - b_top[None, :]), axis=0) + tl.exp(b_sink - b_top)
                b_out = tl.zeros([GROUP_P, HEAD_P], tl.float32)
                for first_split in range(0, splits, SPLITS_AT_ONCE):
                    o_now = first_split + tl.arange(0, SPLITS_AT_ONCE)
                    m_now = (o_now < splits)[:, None]
                    o_some = (i_pair * SPLITS + o_now[:, None]) * GROUP_P + o_group[None, :]
                    b_some = tl.load(p_stats + 2 * o_some, mask=m_now, other=float("-inf"), cache_modifier=".cg")
                    b_factor = tl.exp(b_some - b_top[None, :])  # an absent split has weight exp(-inf) = 0
                    p_parts = p_partial + o_some[:, :, None] * HEAD_P + o_dim[None, None, :]
                    b_parts = tl.load(p_parts, mask=m_now[:, :, None], other=0.0, cache_modifier=".cg")
                    b_out += tl.sum(b_parts * b_factor[:, :, None], axis=0)
                b_out = b_out / b_total[:, None]
                tl.store(p_result, round_to(b_out, p_out.dtype.element_ty), mask=m_result)

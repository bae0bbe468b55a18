# mypy: disable-error-code="no-untyped-def"
"""Router: which experts a token visits, with which weights, and how the visits become work for the expert kernels.

Formula: g = rmsnorm(x)·Wᵀ + b over the experts; the `TOPK` largest (the lower index on a tie), softmax over those.
A *pair* is one visit, numbered token·TOPK + rank. An *item* is up to `COLUMNS` pairs of one expert: the unit of work
of `experts`, so that an expert's weights are read once for all of its tokens.
"""

import torch
import triton
import triton.language as tl

from gpt_oss.triton.numerics import last_to_arrive, load_fp32, round_to, wait_for_previous


@triton.jit
def top_k_softmax(b_logits, TOPK: tl.constexpr, TOPK_P: tl.constexpr, EXPERTS: tl.constexpr, EXPERTS_P: tl.constexpr):
    """[EXPERTS_P] logits (-inf in the padding) to expert ids and weights, both [TOPK_P]."""
    o_expert = tl.arange(0, EXPERTS_P)
    o_rank = tl.arange(0, TOPK_P)
    b_ids = tl.zeros([TOPK_P], tl.int32)
    b_values = tl.full([TOPK_P], float("-inf"), tl.float32)
    for rank in tl.static_range(TOPK):
        largest = tl.max(b_logits, axis=0)
        # NaN equals nothing: without the bound a broken checkpoint would read past the experts.
        chosen = tl.minimum(tl.min(tl.where(b_logits == largest, o_expert, EXPERTS_P), axis=0), EXPERTS - 1)
        b_ids = tl.where(o_rank == rank, chosen, b_ids)
        b_values = tl.where(o_rank == rank, largest, b_values)
        b_logits = tl.where(o_expert == chosen, float("-inf"), b_logits)
    b_exp = tl.exp(b_values - tl.max(b_values, axis=0))
    return b_ids, b_exp / tl.sum(b_exp, axis=0)


@triton.jit
def route_token(
    i_token, p_x, p_gain, p_squares, p_partials, p_bias, p_normed, p_ids, p_weights, eps, input_scale,
    TOKENS: tl.constexpr, HIDDEN: tl.constexpr, NORMED_WIDTH: tl.constexpr, PARTS: tl.constexpr, PARTS_P: tl.constexpr,
    EXPERTS: tl.constexpr, EXPERTS_P: tl.constexpr, TOPK: tl.constexpr, TOPK_P: tl.constexpr,
):  # fmt: skip
    """Finish one token from the sums that `linear.out_kernel` left: its experts, weights and normed activations."""
    CHUNK: tl.constexpr = 32
    o_part = tl.arange(0, PARTS_P)
    o_chunk = tl.arange(0, CHUNK)
    o_expert = tl.arange(0, EXPERTS_P)
    o_hidden = tl.arange(0, triton.next_power_of_2(HIDDEN))
    m_hidden = o_hidden < HIDDEN
    # All is requested before anything is reduced: for one token this program runs alone on the card.
    b_squares = tl.load(p_squares + o_part * TOKENS + i_token, mask=o_part < PARTS, other=0.0, cache_modifier=".cg")
    b_x = tl.load(p_x + i_token * HIDDEN + o_hidden, mask=m_hidden, other=0.0, cache_modifier=".cg").to(tl.float32)
    b_gain = load_fp32(p_gain + o_hidden, m_hidden)
    m_expert = o_expert < EXPERTS
    b_bias = load_fp32(p_bias + o_expert, m_expert)
    b_shares = tl.zeros([CHUNK, EXPERTS_P], tl.float32)
    for i_chunk in tl.static_range((PARTS + CHUNK - 1) // CHUNK):
        o_rows = i_chunk * CHUNK + o_chunk
        p_chunk = p_partials + (o_rows[:, None] * TOKENS + i_token) * EXPERTS_P + o_expert[None, :]
        b_shares += tl.load(p_chunk, mask=(o_rows < PARTS)[:, None], other=0.0, cache_modifier=".cg")
    norm = 1 / tl.sqrt(tl.sum(b_squares, axis=0) / HIDDEN + eps)
    b_logits = tl.sum(b_shares, axis=0) * norm + b_bias
    b_logits = tl.where(m_expert, b_logits, float("-inf"))
    b_ids, b_weights = top_k_softmax(b_logits, TOPK, TOPK_P, EXPERTS, EXPERTS_P)
    o_rank = tl.arange(0, TOPK_P)
    tl.store(p_ids + i_token * TOPK + o_rank, b_ids, mask=o_rank < TOPK)
    tl.store(p_weights + i_token * TOPK + o_rank, b_weights, mask=o_rank < TOPK)
    # Rounded before the power of two, which changes no digit: what the reference rounds is what is multiplied.
    b_normed = round_to(b_x * norm * b_gain, p_normed.dtype.element_ty).to(tl.float32) * input_scale
    tl.store(p_normed + i_token * NORMED_WIDTH + o_hidden, b_normed.to(p_normed.dtype.element_ty), mask=m_hidden)


@triton.jit
def group_pairs(
    p_ids, p_items, p_item_pairs, p_item_count,
    PAIRS: tl.constexpr, PAIRS_P: tl.constexpr, MAX_ITEMS: tl.constexpr, COLUMNS: tl.constexpr,
    EXPERTS_P: tl.constexpr,
):  # fmt: skip
    """Work items of all pairs: their experts (-1 in unused items), their pairs (-1 in unused columns), their number."""
    ITEMS_P: tl.constexpr = triton.next_power_of_2(MAX_ITEMS)
    o_item = tl.arange(0, ITEMS_P)
    tl.store(p_items + o_item, tl.full([ITEMS_P], -1, tl.int32), mask=o_item < MAX_ITEMS)
    SLOTS_P: tl.constexpr = triton.next_power_of_2(MAX_ITEMS * COLUMNS)
    o_slot = tl.arange(0, SLOTS_P)
    tl.store(p_item_pairs + o_slot, tl.full([SLOTS_P], -1, tl.int32), mask=o_slot < MAX_ITEMS * COLUMNS)
    o_pair = tl.arange(0, PAIRS_P)
    o_expert = tl.arange(0, EXPERTS_P)
    m_pair = o_pair < PAIRS
    b_ids = tl.load(p_ids + o_pair, mask=m_pair, other=-1, cache_modifier=".cg")  # [PAIRS_P]
    b_count = tl.sum((b_ids[:, None] == o_expert[None, :]).to(tl.int32), axis=0)  # [EXPERTS_P]
    b_items = (b_count + COLUMNS - 1) // COLUMNS
    b_first_item = tl.sum(tl.where(o_expert[None, :] < b_ids[:, None], b_items[None, :], 0), axis=1)  # [PAIRS_P]
    m_earlier = (b_ids[:, None] == b_ids[None, :]) & (o_pair[None, :] < o_pair[:, None])
    b_rank = tl.sum(m_earlier.to(tl.int32), axis=1)  # [PAIRS_P] among the pairs of the same expert
    b_item = b_first_item + b_rank // COLUMNS
    tl.debug_barrier()  # after the -1
    tl.store(p_item_pairs + b_item * COLUMNS + b_rank % COLUMNS, o_pair, mask=m_pair)
    tl.store(p_items + b_item, b_ids, mask=m_pair & (b_rank % COLUMNS == 0))
    tl.store(p_item_count, tl.sum(b_items, axis=0))


@triton.jit
def route_kernel(
    p_x, p_gain, p_squares, p_partials, p_bias, p_normed, p_ids, p_weights,
    p_items, p_item_pairs, p_item_count, p_counter, eps, input_scale,
    TOKENS: tl.constexpr, HIDDEN: tl.constexpr, NORMED_WIDTH: tl.constexpr, PARTS: tl.constexpr, PARTS_P: tl.constexpr,
    EXPERTS: tl.constexpr, EXPERTS_P: tl.constexpr, TOPK: tl.constexpr, TOPK_P: tl.constexpr,
    PAIRS_P: tl.constexpr, MAX_ITEMS: tl.constexpr, COLUMNS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program per token; the last one groups the pairs of all. One token alone is routed by `linear.out_kernel`."""
    wait_for_previous(DEPENDENT)
    route_token(
        tl.program_id(0), p_x, p_gain, p_squares, p_partials, p_bias, p_normed, p_ids, p_weights, eps, input_scale,
        TOKENS, HIDDEN, NORMED_WIDTH, PARTS, PARTS_P, EXPERTS, EXPERTS_P, TOPK, TOPK_P,
    )  # fmt: skip
    if last_to_arrive(p_counter, TOKENS):
        group_pairs(p_ids, p_items, p_item_pairs, p_item_count, TOKENS * TOPK, PAIRS_P, MAX_ITEMS, COLUMNS, EXPERTS_P)


@triton.jit
def top_k_kernel(
    p_logits, p_ids, p_weights,
    EXPERTS: tl.constexpr, EXPERTS_P: tl.constexpr, TOPK: tl.constexpr, TOPK_P: tl.constexpr,
):  # fmt: skip
    """One program per token of a prefill."""
    i_token = tl.program_id(0).to(tl.int64)
    o_expert = tl.arange(0, EXPERTS_P)
    b_logits = tl.load(p_logits + i_token * EXPERTS + o_expert, mask=o_expert < EXPERTS, other=float("-inf"))
    b_ids, b_weights = top_k_softmax(b_logits.to(tl.float32), TOPK, TOPK_P, EXPERTS, EXPERTS_P)
    o_rank = tl.arange(0, TOPK_P)
    tl.store(p_ids + i_token * TOPK + o_rank, b_ids, mask=o_rank < TOPK)
    tl.store(p_weights + i_token * TOPK + o_rank, b_weights, mask=o_rank < TOPK)


def top_k(logits: torch.Tensor, topk: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Experts of each token of a prefill: logits [tokens, experts] to ids int32 and weights fp32, both [tokens, topk].

    Ranks are in falling order of the logit; the lower expert wins a tie. Source: spec/model.md, step 5.
    """
    tokens, experts = logits.shape
    ids = torch.empty(tokens, topk, dtype=torch.int32, device=logits.device)
    weights = torch.empty(tokens, topk, dtype=torch.float32, device=logits.device)
    top_k_kernel[(tokens,)](
        logits, ids, weights, experts, triton.next_power_of_2(experts), topk, triton.next_power_of_2(topk), num_warps=1
    )
    return ids, weights


def max_items(tokens: int, topk: int, experts: int, columns: int) -> int:
    """Most work items that `tokens` tokens can make: every expert's last item may be part full."""
    pairs = tokens * topk
    return min(pairs, min(experts, pairs) + pairs // columns)

# mypy: disable-error-code="no-untyped-def"
"""From the last hidden state to a token: logits, log-sum-exp and the sampled token, all on the device.

    logits  = rmsnorm(x)·Wᵀ                              fp32 [tokens, vocab]
    token   = arg-max of the logits (the lowest id wins) at temperature 0; else the id at which the cumulative sum of
              exp((logit - max) / temperature), in id order, passes uniform(seed, step) times its total
    logprob = logits[token] - log Σ exp(logits)          of the model's own distribution, whatever the temperature

The random number is that of `gpt_oss.sampling.uniform`, so a seed gives the same answer here and there (they may
differ where the number falls within fp32 rounding of a boundary). `unembed_kernel` leaves each block's maximum and
sums; `finish_kernel` looks for the block and then only into it.
"""

import torch
import triton
import triton.language as tl

from gpt_oss.triton.linear import row_products
from gpt_oss.triton.numerics import wait_for_previous


@triton.jit
def unembed_kernel(
    p_x, p_gain, p_weight, p_logits, p_max, p_sum, p_mass, p_slots, p_temperature, vocab, eps,
    TOKENS: tl.constexpr, TOKENS_P: tl.constexpr, K: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, COMPUTE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program per BLOCK_R rows. p_max, p_sum = Σ exp(logit - max), p_mass (at temperature): [blocks, TOKENS]."""
    i_block = tl.program_id(0)
    o_rows = i_block * BLOCK_R + tl.arange(0, BLOCK_R)
    m_rows = o_rows < vocab
    o_token = tl.arange(0, TOKENS_P)
    m_token = o_token < TOKENS
    # No kernel of a step writes slots or temperatures, so these need not wait for the one before.
    b_slot = tl.load(p_slots + o_token, mask=m_token, other=0, cache_modifier=".cg")
    b_temperature = tl.maximum(tl.load(p_temperature + b_slot, cache_modifier=".cg"), 1e-30)
    b_acc, b_squares = row_products(
        p_x, p_gain, p_weight, o_rows, m_rows, TOKENS, TOKENS_P, K, BLOCK_R, BLOCK_K, True, COMPUTE, DEPENDENT
    )
    b_logits = b_acc / tl.sqrt(b_squares / K + eps)[:, None]  # [TOKENS_P, BLOCK_R]
    p_out = p_logits + o_token.to(tl.int64)[:, None] * vocab + o_rows[None, :]
    tl.store(p_out, b_logits, mask=m_token[:, None] & m_rows[None, :])
    b_logits = tl.where(m_rows[None, :], b_logits, float("-inf"))
    b_max = tl.max(b_logits, axis=1)
    b_below = b_logits - b_max[:, None]
    o_stat = i_block * TOKENS + o_token
    tl.store(p_max + o_stat, b_max, mask=m_token)
    tl.store(p_sum + o_stat, tl.sum(tl.exp(b_below), axis=1), mask=m_token)
    tl.store(p_mass + o_stat, tl.sum(tl.exp(b_below / b_temperature[:, None]), axis=1), mask=m_token)


@triton.jit
def uniform(state):
    """SplitMix64's output function on a counter (uint64), as float64 in [0, 1): see gpt_oss.sampling.uniform."""
    x = state.to(tl.uint64)
    x = (x ^ (x >> 30)).to(tl.int64) * -4658895280553007687
    x = x.to(tl.uint64)
    x = (x ^ (x >> 27)).to(tl.int64) * -7723592293110705685
    x = x.to(tl.uint64)
    x = x ^ (x >> 31)
    return (x >> 11).to(tl.int64).to(tl.float64) * 1.1102230246251565e-16


@triton.jit
def finish_kernel(
    p_logits, p_max, p_sum, p_mass, p_slots, p_active, p_lengths, p_temperature, p_random,
    p_chosen, p_logprobs, p_log_totals, p_tokens, vocab, blocks,
    TOKENS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program per sequence: its token (-1 without a finite maximum), log-probability and log Σ exp(logits).

    The token also becomes the next input, the slot's length grows by one and its random counter moves on. Rows from
    the number at p_active on are padding: they repeat row 0, its next token included, and change nothing else.
    """
    wait_for_previous(DEPENDENT)
    i_token = tl.program_id(0)
    active = tl.load(p_active)
    if i_token < active:
        _finish_row(
            i_token, active, p_logits, p_max, p_sum, p_mass, p_slots, p_lengths, p_temperature, p_random,
            p_chosen, p_logprobs, p_log_totals, p_tokens, vocab, blocks, TOKENS, BLOCK_R, BLOCK,
        )  # fmt: skip


@triton.jit
def _finish_row(
    i_token, active, p_logits, p_max, p_sum, p_mass, p_slots, p_lengths, p_temperature, p_random,
    p_chosen, p_logprobs, p_log_totals, p_tokens, vocab, blocks,
    TOKENS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    slot = tl.load(p_slots + i_token)
    temperature = tl.load(p_temperature + slot)
    o_block = tl.arange(0, BLOCK)
    b_top = tl.full([BLOCK], float("-inf"), tl.float32)
    b_best = tl.zeros([BLOCK], tl.int32)
    for first in range(0, blocks, BLOCK):
        m_block = first + o_block < blocks
        b_max = tl.load(p_max + (first + o_block) * TOKENS + i_token, mask=m_block, other=float("-inf"))
        b_best = tl.where(b_max > b_top, first + o_block, b_best)
        b_top = tl.maximum(b_top, b_max)
    top = tl.max(b_top, axis=0)
    best_block = tl.min(tl.where(b_top == top, b_best, blocks - 1), axis=0)
    bounded = tl.maximum(temperature, 1e-30)
    b_total = tl.zeros([BLOCK], tl.float64)
    b_all_mass = tl.zeros([BLOCK], tl.float64)
    for first in range(0, blocks, BLOCK):
        o_stat = (first + o_block) * TOKENS + i_token
        m_block = first + o_block < blocks
        b_below = tl.load(p_max + o_stat, mask=m_block, other=float("-inf")) - top
        b_sum = tl.load(p_sum + o_stat, mask=m_block, other=0.0) * tl.exp(b_below)
        b_mass = tl.load(p_mass + o_stat, mask=m_block, other=0.0) * tl.exp(b_below / bounded)
        b_total += b_sum.to(tl.float64)
        b_all_mass += b_mass.to(tl.float64)
    total = tl.sum(b_total, axis=0)
    mass = tl.sum(b_all_mass, axis=0)
    counter = tl.load(p_random + slot)
    block = best_block
    point = tl.zeros([], tl.float64) + float("inf")  # greedy: beyond everything, hence the block's largest logit
    if temperature > 0:
        point = uniform(counter) * mass
        block, point = _block_at(p_max, p_mass, point, top, bounded, i_token, blocks, best_block, TOKENS, BLOCK)
    o_row = block * BLOCK_R + tl.arange(0, BLOCK_R)
    b_logits = tl.load(p_logits + i_token.to(tl.int64) * vocab + o_row, mask=o_row < vocab, other=float("-inf"))
    b_cumulative = tl.cumsum(tl.exp((b_logits - top) / bounded).to(tl.float64), axis=0)
    m_beyond = (b_cumulative > point) & (o_row < vocab)
    # Rounding may leave nothing beyond the point; then too it is the block's largest logit.
    found = tl.max(m_beyond.to(tl.int32), axis=0) > 0
    m_chosen = tl.where(found, m_beyond, b_logits == tl.max(b_logits, axis=0))
    token = tl.min(tl.where(m_chosen, o_row, vocab), axis=0)
    logit = tl.sum(tl.where(o_row == token, b_logits, 0.0), axis=0)
    finite = (top > float("-inf")) & (top < float("inf")) & (total == total)
    token = tl.where(finite, token, -1)
    tl.store(p_chosen + i_token, token)
    o_token = tl.arange(0, triton.next_power_of_2(TOKENS))
    m_repeats = (o_token == i_token) | ((i_token == 0) & (o_token >= active) & (o_token < TOKENS))
    tl.store(p_tokens + o_token, tl.maximum(token, 0), mask=m_repeats)
    log_total = top + tl.log(total).to(tl.float32)
    tl.store(p_log_totals + i_token, log_total)
    tl.store(p_logprobs + i_token, logit - log_total)
    length = tl.load(p_lengths + slot)
    tl.debug_barrier()
    tl.store(p_lengths + slot, length + 1)
    tl.store(p_random + slot, counter - 7046029254386353131)


@triton.jit
def _block_at(
    p_max, p_mass, point, top, temperature, i_token, blocks, best_block, TOKENS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The first block whose cumulative mass passes `point`, and how far into its mass that lies."""
    o_block = tl.arange(0, BLOCK)
    before = tl.zeros([], tl.float64)
    block = best_block
    offset = point
    searching = point == point
    for first in range(0, blocks, BLOCK):
        o_stat = (first + o_block) * TOKENS + i_token
        m_block = first + o_block < blocks
        b_below = tl.load(p_max + o_stat, mask=m_block, other=float("-inf")) - top
        b_mass = tl.load(p_mass + o_stat, mask=m_block, other=0.0) * tl.exp(b_below / temperature)
        b_mass = b_mass.to(tl.float64)
        b_after = before + tl.cumsum(b_mass, axis=0)
        m_beyond = (b_after > point) & m_block
        here = searching & (tl.max(m_beyond.to(tl.int32), axis=0) > 0)
        candidate = tl.min(tl.where(m_beyond, first + o_block, blocks - 1), axis=0)
        reached = tl.sum(tl.where(first + o_block == candidate, b_after - b_mass, 0.0), axis=0)
        block = tl.where(here, candidate, block)
        offset = tl.where(here, point - reached, offset)
        searching = searching & (here == 0)
        before += tl.sum(b_mass, axis=0)
    return block, offset


def top_logits(
    logits: torch.Tensor, block_max: torch.Tensor, block_rows: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest logits and their ids, [tokens, k] both, largest first, without a pass over the vocabulary.

    The k largest lie in the k blocks with the largest maxima. logits [tokens, vocab]; block_max [blocks, tokens] and
    block_rows as `unembed_kernel` left them. Of a vocabulary smaller than k all are given.
    """
    tokens, vocab = logits.shape
    k = min(k, vocab)
    blocks = block_max.t().topk(min(k, len(block_max)), dim=1).indices
    ids = (blocks[:, :, None] * block_rows + torch.arange(block_rows, device=logits.device)).reshape(tokens, -1)
    candidates = logits.gather(1, ids.clamp(max=vocab - 1)).masked_fill(ids >= vocab, float("-inf"))
    values, index = candidates.topk(k, dim=1)
    return values, ids.gather(1, index)

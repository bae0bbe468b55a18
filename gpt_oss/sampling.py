"""Logits in, token ids out: temperature, top-k, top-p and masks, a whole batch at once on the logits' device.

Each row carries its own settings and its own random number, so a row's token depends on that row alone. The
random number is a pure function of (seed, step), a hashed counter and not a generator with a state, and it
picks the token by inverting the cumulative distribution: that takes one number per token where the Gumbel
trick takes one per vocabulary entry (201,088), and the number is made of integers on the host, hence equal on
every device.

Order of the filters: mask, then top-k, then the temperature, then top-p of what is left (as in transformers).
Among equal logits the lowest id is preferred, by argmax and by both filters. Temperature 0 is argmax and
looks at nothing else.

Shape suffixes: N rows, V vocabulary, K candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

INVALID = -1
"""In place of an id where a row has no distribution: a NaN, a +inf, or nothing above -inf."""

_MASK64 = (1 << 64) - 1
_CPU_ENTRIES = 1 << 17


@dataclass(frozen=True, slots=True)
class RowSettings:
    """How to sample one row. `allowed`: bool [V] of the ids that may be taken, None for all."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    step: int = 0
    allowed: torch.Tensor | None = None


def uniform(seed: int, step: int) -> float:
    """A random number in [0, 1) with 53 bits that depends on nothing but the two integers.

    SplitMix64 (Steele, Lea, Flood 2014): a finaliser over an arithmetic sequence. The seed goes through the
    finaliser first, so that neighbouring seeds begin at unrelated points of the sequence.
    """
    return (_mix64(counter(seed, step)) >> 11) * 2.0**-53


def counter(seed: int, step: int) -> int:
    """The 64-bit number that `uniform` hashes; a step later it is 0x9E3779B97F4A7C15 more (mod 2^64)."""
    return (_mix64(seed) + (step + 1) * 0x9E3779B97F4A7C15) & _MASK64


def _mix64(x: int) -> int:
    x &= _MASK64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK64
    return x ^ (x >> 31)


@torch.no_grad()
def sample(logits_NV: torch.Tensor, rows: Sequence[RowSettings]) -> torch.Tensor:
    """Pick one id per row: int64 [N] on the logits' device, INVALID where a row has no distribution.

    logits_NV: fp32 [N, V], left unchanged; `rows` are the N rows' settings.
    """
    logits_NV = _mask(_where_float64_is(logits_NV), rows)
    best_N, ids_N = logits_NV.max(dim=-1)  # the first of equal maxima
    drawn = [n for n, row in enumerate(rows) if row.temperature > 0 and row.top_k != 1]
    filtered = [n for n in drawn if rows[n].top_p < 1 or 0 < rows[n].top_k < logits_NV.shape[-1]]
    plain = [n for n in drawn if n not in filtered]
    # On a CPU a few rows at a time: their float64 sums stay in its cache (32 large rows at once: 3 times slower).
    rows_at_once = max(1, _CPU_ENTRIES // logits_NV.shape[-1]) if logits_NV.device.type == "cpu" else len(rows)
    for indices, draw in ((plain, _draw), (filtered, _draw_filtered)):
        for start in range(0, len(indices), rows_at_once):
            chunk = indices[start : start + rows_at_once]
            ids_N[chunk] = draw(_rows(logits_NV, chunk), best_N[chunk, None], [rows[n] for n in chunk])
    return torch.where(best_N.isfinite(), ids_N, INVALID)


def _where_float64_is(logits_NV: torch.Tensor) -> torch.Tensor:
    """On a device that has float64, which the sums over a vocabulary need: MPS has not."""
    return logits_NV.cpu() if logits_NV.device.type == "mps" else logits_NV


def _rows(logits_NV: torch.Tensor, chunk: list[int]) -> torch.Tensor:
    """These rows; without a copy where they are neighbours."""
    if chunk[-1] - chunk[0] + 1 == len(chunk):
        return logits_NV[chunk[0] : chunk[-1] + 1]
    return logits_NV[chunk]


def _mask(logits_NV: torch.Tensor, rows: Sequence[RowSettings]) -> torch.Tensor:
    if all(row.allowed is None for row in rows):
        return logits_NV
    logits_NV = logits_NV.clone()
    for n, row in enumerate(rows):
        if row.allowed is not None:
            logits_NV[n].masked_fill_(~row.allowed.to(logits_NV.device), -torch.inf)
    return logits_NV


def _draw(logits_NV: torch.Tensor, best_N1: torch.Tensor, rows: Sequence[RowSettings]) -> torch.Tensor:
    """Sample the whole vocabulary, in id order."""
    weights_NV = _weights(logits_NV, best_N1, _temperatures(logits_NV, rows))
    return _invert(weights_NV.double(), rows)[:, 0]


def _weights(logits_NK: torch.Tensor, best_N1: torch.Tensor, temperature_N1: torch.Tensor) -> torch.Tensor:
    """Probabilities but for a factor: 1 for the best token."""
    return logits_NK.sub(best_N1).div_(temperature_N1).exp_()


def _draw_filtered(logits_NV: torch.Tensor, best_N1: torch.Tensor, rows: Sequence[RowSettings]) -> torch.Tensor:
    """Sample what top-k and top-p leave, in order of rank, without sorting the vocabulary.

    Only tokens at or above a floor are sorted, few for the peaked distributions of language models. Floor of
    top-k: the k-th largest logit. Of top-p alone: the V-th part of what top-p may leave out, because all
    tokens lighter than that weigh less together than what may be left out, so none of them is needed.
    """
    vocab = logits_NV.shape[-1]
    temperature_N1 = _temperatures(logits_NV, rows)
    top_k_N1 = _column(logits_NV, [min(row.top_k or vocab, vocab) for row in rows], torch.int64)
    top_p_N1 = _column(logits_NV, [row.top_p for row in rows], torch.float64)
    total_N1 = _weights(logits_NV, best_N1, temperature_N1).sum(dim=-1, keepdim=True, dtype=torch.float64)
    spare_N1 = 0.5 * (1 - top_p_N1) * total_N1 / vocab  # half: room for rounding
    floor_N1 = best_N1 + temperature_N1 * spare_N1.log().float()
    limited = [n for n, row in enumerate(rows) if 0 < row.top_k < vocab]
    if limited:
        k_largest = logits_NV[limited].topk(max(rows[n].top_k for n in limited)).values
        floor_N1[limited] = k_largest.gather(1, top_k_N1[limited] - 1)

    candidates = int((logits_NV >= floor_N1).sum(dim=-1).max().clamp(min=1))
    ids_NK = logits_NV.topk(candidates).indices.sort(dim=-1).values
    logits_NK, order_NK = logits_NV.gather(1, ids_NK).sort(dim=-1, descending=True, stable=True)
    ids_NK = ids_NK.gather(1, order_NK)  # by logit, equal ones by id

    weights_NK = _weights(logits_NK, best_N1, temperature_N1).double()
    weights_NK *= torch.arange(candidates, device=logits_NV.device) < top_k_N1
    mass_NK = weights_NK.cumsum(dim=-1)
    total_N1 = torch.where(top_k_N1 < vocab, mass_NK[:, -1:], total_N1)
    # A token is needed while those before it have not reached top_p; the first always is.
    needed_NK = mass_NK - weights_NK < top_p_N1 * total_N1
    return ids_NK.gather(1, _invert(weights_NK * (needed_NK | (top_p_N1 == 1)), rows))[:, 0]


def _invert(weights_NK: torch.Tensor, rows: Sequence[RowSettings]) -> torch.Tensor:
    """int64 [N, 1]: where each row's random number falls among its weights (float64, any sum; overwritten)."""
    mass_NK = weights_NK.cumsum_(dim=-1)
    total_N1 = mass_NK[:, -1:]
    point_N1 = _column(weights_NK, [uniform(row.seed, row.step) for row in rows], torch.float64) * total_N1
    # The product may round up to the total, which lies beyond the last entry of any weight.
    point_N1 = torch.minimum(point_N1, torch.nextafter(total_N1, torch.zeros_like(total_N1)))
    # A row of NaN (its result is not used) must still point into the vocabulary.
    return torch.searchsorted(mass_NK, point_N1, right=True).clamp(max=weights_NK.shape[-1] - 1)


def _temperatures(logits_NV: torch.Tensor, rows: Sequence[RowSettings]) -> torch.Tensor:
    # Beyond these bounds a float32 quotient would be 0/0 or inf/inf; the result is argmax or flat anyway.
    return _column(logits_NV, [min(max(row.temperature, 1e-30), 1e30) for row in rows], torch.float32)


def _column(like: torch.Tensor, values: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]


@torch.no_grad()
def log_probabilities(logits_NV: torch.Tensor) -> torch.Tensor:
    """Natural log of the model's own distribution, fp32 [N, V]: before temperature, filters and masks."""
    logits_NV = _where_float64_is(logits_NV)
    below_NV = logits_NV.float() - logits_NV.amax(dim=-1, keepdim=True)
    # In float32 the errors of many small terms, which may all be equal, add up to 5e-4 of their sum.
    total_N1 = below_NV.exp().sum(dim=-1, keepdim=True, dtype=torch.float64)
    return below_NV.sub_(total_N1.log().float())


def token_logprobs(
    logits_NV: torch.Tensor, ids: Sequence[int], alternatives: int = 0
) -> list[tuple[float, tuple[tuple[int, float], ...]]]:
    """For each row the log probability of its id and the `alternatives` most probable (id, logprob) pairs."""
    logprobs_NV = log_probabilities(logits_NV)
    chosen = logprobs_NV.gather(1, torch.tensor(ids, device=logprobs_NV.device)[:, None])[:, 0].tolist()
    if not alternatives:
        return [(logprob, ()) for logprob in chosen]
    top = logprobs_NV.topk(min(alternatives, logprobs_NV.shape[-1]))
    pairs = (
        tuple(zip(row_ids, row, strict=True))
        for row_ids, row in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    )
    return list(zip(chosen, pairs, strict=True))

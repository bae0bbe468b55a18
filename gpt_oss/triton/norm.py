# mypy: disable-error-code="no-untyped-def"
"""RMSNorm of a prefill chunk; the decode kernels fuse it into what follows (linear.py)."""

import torch
import triton
import triton.language as tl

from gpt_oss.triton.numerics import load_fp32, round_to


@triton.jit
def rms_norm_kernel(p_x, p_gain, p_out, eps, HIDDEN: tl.constexpr, HIDDEN_P: tl.constexpr):
    """One program per token."""
    o_hidden = tl.arange(0, HIDDEN_P)
    m_hidden = o_hidden < HIDDEN
    p_row = tl.program_id(0).to(tl.int64) * HIDDEN + o_hidden
    b_x = load_fp32(p_x + p_row, m_hidden)
    b_norm = 1 / tl.sqrt(tl.sum(b_x * b_x, axis=0) / HIDDEN + eps)
    b_out = b_x * b_norm * load_fp32(p_gain + o_hidden, m_hidden)
    tl.store(p_out + p_row, round_to(b_out, p_out.dtype.element_ty), mask=m_hidden)


def rms_norm(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    """x / √(mean x² + eps) · gain over the last axis of x [tokens, hidden], in fp32, rounded to x's type at the end."""
    out = torch.empty_like(x)
    hidden = x.shape[1]
    rms_norm_kernel[(len(x),)](x, gain, out, eps, hidden, triton.next_power_of_2(hidden))
    return out

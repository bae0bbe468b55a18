# mypy: disable-error-code="no-untyped-def"
"""Helpers shared by the kernels: rounding on store, MXFP4 decode, matrix products, block-to-block hand-over.

Kernel conventions, in every module: `p_` pointers, `b_` blocks in registers, `o_` offsets, `m_` masks, `i_` program
indices; the shape of a block stands in its comment. Activations may be fp32 or bf16; every load is cast to fp32 at
once, because Triton's interpreter computes garbage in bf16.
"""

import triton
import triton.language as tl

# Tritons without knobs are refused by `variants`, in a sentence; importing must get that far.
INTERPRETED = tl.constexpr(hasattr(triton, "knobs") and bool(triton.knobs.runtime.interpret))


@triton.jit
def round_to(b_value, dtype: tl.constexpr):
    """fp32 to `dtype`, to nearest, ties to even; spelled out for the interpreter, whose bf16 cast truncates."""
    if INTERPRETED:  # noqa: SIM102 compile-time branches
        if dtype == tl.bfloat16:
            b_bits = b_value.to(tl.uint32, bitcast=True)
            b_bits = (b_bits + 0x7FFF + ((b_bits >> 16) & 1)) & 0xFFFF0000
            b_value = b_bits.to(tl.float32, bitcast=True)
    return b_value.to(dtype)


@triton.jit
def load_fp32(p_from, mask=None):
    """Load, zero where masked off, as fp32."""
    if mask is None:
        return tl.load(p_from).to(tl.float32)
    return tl.load(p_from, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def dot(b_left, b_right, COMPUTE: tl.constexpr):
    """fp32 [m, k] · [k, n], operands rounded to COMPUTE: bf16 on a GPU, fp32 (not tf32) for oracles and on CPUs."""
    return tl.dot(b_left.to(COMPUTE), b_right.to(COMPUTE), input_precision="ieee")


@triton.jit
def value_pair(b_words, PAIR: tl.constexpr):
    """Register `pair(PAIR)` of layout.py: two values, each times 2^-126, as bf16 bits in the halves of a uint32."""
    if PAIR == 0:
        return (b_words & 0x81808180) | ((b_words >> 8) & 0x00400040)
    if PAIR == 1:
        return (b_words << 2) & 0x81C081C0
    if PAIR == 2:
        return (b_words << 6) & 0x81C081C0
    return ((b_words << 12) | (b_words >> 20)) & 0x81C081C0


@triton.jit
def low_value(b_pair):
    """The even value of a pair, fp32, exact; 2^126 undoes the bias."""
    return (b_pair << 16).to(tl.float32, bitcast=True) * 8.507059173023462e37


@triton.jit
def high_value(b_pair):
    """The odd value of a pair, fp32, exact."""
    return (b_pair & 0xFFFF0000).to(tl.float32, bitcast=True) * 8.507059173023462e37


@triton.jit
def scale_value(b_bytes):
    """E8M0 to fp32: 2^(byte - 127), subnormal for 0. Byte 255, NaN, is refused when weights are loaded."""
    b_wide = b_bytes.to(tl.uint32)
    b_bits = tl.where(b_wide == 0, 0x00400000, b_wide << 23)
    return b_bits.to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def scale_pair(b_bytes):
    """The same as bf16 bits in both halves of a uint32."""
    return tl.maximum(b_bytes.to(tl.uint32) * 0x00800080, 0x00400040)


@triton.jit
def swiglu(b_gate, b_linear, LIMIT: tl.constexpr):
    """gate·sigmoid(1.702·gate)·(linear + 1), gate clamped to ≤ LIMIT and linear to ±LIMIT; NaN stays NaN."""
    b_gate = tl.minimum(b_gate, LIMIT, propagate_nan=tl.PropagateNan.ALL)
    b_linear = tl.maximum(b_linear, -LIMIT, propagate_nan=tl.PropagateNan.ALL)
    b_linear = tl.minimum(b_linear, LIMIT, propagate_nan=tl.PropagateNan.ALL)
    return b_gate / (1 + tl.exp(-1.702 * b_gate)) * (b_linear + 1)


@triton.jit
def wait_for_previous(DEPENDENT: tl.constexpr):
    """With dependent launch: what follows may read what earlier kernels wrote, and overwrite what they read.

    A kernel so launched starts while the one before it still runs; before this line it may read what that one does not
    write: weights, and with ".cg", past L1, what is older. The next kernel may start from here on, not earlier, so no
    more than two overlap and every wait covers all before it.
    """
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def last_to_arrive(p_counter, count):
    """True in exactly one of `count` programs: the one that finds all others' stores visible. Resets the counter.

    The barrier puts every thread's stores before the atomic; what others stored must be loaded with ".cg", past L1.
    """
    tl.debug_barrier()
    i_arrival = tl.atomic_add(p_counter, 1, sem="acq_rel")
    if i_arrival == count - 1:
        tl.store(p_counter, 0)
    return i_arrival == count - 1

"""Inline assembly for MXFP4 on NVIDIA's matrix units, compute capability 8.0 and later.

One `mma.m16n8k16` multiplies a tile's 16 row slots with up to 8 columns (pairs of `router`) over 16 values of k. Lane
4·g + t of a warp feeds rows g and g + 8 and column g, and receives rows g and g + 8 of columns 2t and 2t + 1. The
weights go in as they are decoded, 2^-126 times their value: no instruction is spent on the bias. So that products
keep their digits the inputs are stored times `INPUT_SCALE`, a power of two, and the epilogue multiplies by
`OUTPUT_SCALE`; between them the block scale 2^(byte - 127) is one fp32 multiply-add per accumulator and 32 values.
Inputs must stay below 65536 in magnitude (a normed activation and a SwiGLU output, at most 56, do).
"""

import triton.language as tl

from gpt_oss.triton.layout import MASK

INPUT_SCALE = 2.0**112
OUTPUT_SCALE = 2.0**14

# $0, $1 ← the two values of $2, a decoded pair (layout.py), times $3, their scale 2^(byte - 127) in both halves:
# bf16, exact, subnormal or not. The addend is -0, which changes nothing, not even the sign of a zero: a product alone
# needs capability 9.0, this instruction 8.0.
SCALED_PAIR = tl.constexpr(
    """{
.reg .b32 bias, zero, v;
mov.b32 bias, 0x7E807E80;
mov.b32 zero, 0x80008000;
fma.rn.bf16x2 v, $2, bias, zero;
fma.rn.bf16x2 v, v, $3, zero;
mov.b32 {$0, $1}, v;
}"""
)

# $0…$3 ← one lane's 16 bytes: the words (block 0, row g), (block 0, row g + 8), (block 1, row g), (block 1, row g + 8).
# Weights are read once per step of the model, so they must not push anything out of L1.
LOAD_WORDS = tl.constexpr("ld.global.nc.L1::no_allocate.v4.u32 {$0, $1, $2, $3}, [$4];")
# $0…$3 ← 16 bytes of activations, four pairs of bf16. Not ".nc": with dependent launch the kernel before this one may
# still have been writing them when this one began.
LOAD_INPUTS = tl.constexpr("ld.global.v4.u32 {$0, $1, $2, $3}, [$4];")


def _decode(word: str, out: str) -> list[str]:
    """Registers {out}0…3 ← the four value pairs of a word (layout.py)."""
    return [
        f"and.b32 {out}0, {word}, 0x81808180;",
        f"shr.u32 q, {word}, 8;",
        f"lop3.b32 {out}0, q, 0x00400040, {out}0, 0xEA;",  # (q & mask) | out
        f"shl.b32 q, {word}, 2;",
        f"and.b32 {out}1, q, {MASK:#x};",
        f"shl.b32 q, {word}, 6;",
        f"and.b32 {out}2, q, {MASK:#x};",
        f"shf.l.wrap.b32 q, {word}, {word}, 12;",
        f"and.b32 {out}3, q, {MASK:#x};",
    ]


def _scale(byte: int, scales: str, out: str) -> list[str]:
    """Register {out} ← 2^(byte - 127) as fp32 bits; byte 0 is the subnormal 2^-127."""
    shift = f"shl.b32 q, {scales}, {23 - 8 * byte};" if byte < 3 else f"shr.u32 q, {scales}, 1;"
    return [shift, "and.b32 q, q, 0x7F800000;", "max.u32 q, q, 0x00400000;", f"mov.b32 {out}, q;"]


def _block(block: int, words: tuple[str, str], inputs: list[str], scales: str, acc: list[str]) -> list[str]:
    """acc (rows g, g, g + 8, g + 8; columns 2t, 2t + 1, 2t, 2t + 1) += scale · weights · inputs over 32 values of k."""
    mma = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
    return [
        *_decode(words[0], "u"),
        *_decode(words[1], "v"),
        f"{mma} {{d0, d1, d2, d3}}, {{u0, v0, u1, v1}}, {{{inputs[0]}, {inputs[1]}}}, {{zero, zero, zero, zero}};",
        f"{mma} {{d0, d1, d2, d3}}, {{u2, v2, u3, v3}}, {{{inputs[2]}, {inputs[3]}}}, {{d0, d1, d2, d3}};",
        *_scale(2 * block, scales, "s0"),
        *_scale(2 * block + 1, scales, "s1"),
        *(f"fma.rn.f32 {acc[i]}, d{i}, {'s0' if i < 2 else 's1'}, {acc[i]};" for i in range(4)),
    ]


def _step() -> str:
    """The product of one tile and one step of 64 values of k.

    Out: $0…$3 accumulators fp32. In: $4…$7 words, $8…$15 inputs, $16 the rows' four scale bytes, $17…$20 accumulators.
    """
    acc = ["$0", "$1", "$2", "$3"]
    body = [
        "{",
        ".reg .b32 q, u0, u1, u2, u3, v0, v1, v2, v3;",
        ".reg .f32 zero, d0, d1, d2, d3, s0, s1;",
        "mov.f32 zero, 0f00000000;",
        *(f"mov.f32 ${i}, ${17 + i};" for i in range(4)),
        *_block(0, ("$4", "$5"), ["$8", "$9", "$10", "$11"], "$16", acc),
        *_block(1, ("$6", "$7"), ["$12", "$13", "$14", "$15"], "$16", acc),
        "}",
    ]
    return "\n".join(body)


STEP = tl.constexpr(_step())
# Early-clobber outputs ("=&"): the block writes accumulators before it has read its last input.
STEP_CONSTRAINTS = tl.constexpr(",".join(["=&f"] * 4 + ["r"] * 13 + ["f"] * 4))
LOAD_CONSTRAINTS = tl.constexpr("=r,=r,=r,=r,l")

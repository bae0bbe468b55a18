"""The instructions of the MXFP4 step on 32 lanes in NumPy: an oracle for inline assembly that needs no GPU.

`run` executes a text; `create_inline_asm` lets Triton's interpreter run kernels that contain such texts, each element
of a block being a thread. Semantics and the fragments of `mma.m16n8k16` are written from the PTX ISA (9.7.14.5.8,
figures of the A, B and C fragments), not from the code under test. Lanes run in lock step; a register is an array of
32.
"""

import re
from types import SimpleNamespace

import numpy as np
from triton._C.libtriton import interpreter as memory
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

LANES = np.arange(32)
GROUP, THREAD = LANES // 4, LANES % 4  # "groupID" and "threadID_in_group" of the ISA


def run(source: str, operands: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Execute the asm text; operands[n] is `$n`, uint32 [32] bits (None for outputs). Returns all registers."""
    registers = {f"${n}": value.astype(np.uint32) for n, value in enumerate(operands) if value is not None}
    for line in source.replace("{\n", "").rsplit("\n}", 1)[0].splitlines():
        statement = line.strip().rstrip(";")
        if statement and not statement.startswith(".reg") and statement not in "{}":
            _execute(statement, registers)
    return registers


def _execute(statement: str, registers: dict[str, np.ndarray]) -> None:
    opcode, rest = statement.split(None, 1)
    if opcode.startswith("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"):
        groups = [[name.strip() for name in group.split(",")] for group in re.findall(r"\{([^}]*)\}", rest)]
        _mma(registers, *groups)
        return
    if halves := re.fullmatch(r"\{(\S+), (\S+)\}, (\S+)", rest):  # mov.b32 from a register into its 16-bit halves
        low, high, source = halves.groups()
        registers[low], registers[high] = registers[source] & 0xFFFF, registers[source] >> 16
        return
    target, *names = [name.strip() for name in rest.split(",")]
    a, *others = [registers[n] if n in registers else np.full(32, _literal(n), np.uint32) for n in names]
    with np.errstate(over="ignore", invalid="ignore"):
        registers[target] = _scalar(opcode, a, others)


def _literal(text: str) -> int:
    return int(text[2:], 16) if text.startswith(("0f", "0x")) else int(text)


def _scalar(opcode: str, a: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    if opcode == "lop3.b32":
        b, c, table = others
        result = np.zeros(32, np.uint32)
        for index in range(8):  # bit `index` of the table answers (a, b, c) = the bits of `index`
            if int(table[0]) >> index & 1:
                terms = [value if index >> shift & 1 else ~value for value, shift in ((a, 2), (b, 1), (c, 0))]
                result |= terms[0] & terms[1] & terms[2]
        return result
    if opcode == "fma.rn.f32":
        b, c = (other.view(np.float32).astype(np.float64) for other in others)
        return (a.view(np.float32).astype(np.float64) * b + c).astype(np.float32).view(np.uint32)
    if opcode == "fma.rn.bf16x2":
        b, c = others
        halves = [_to_bf16(_bf16(a, half) * _bf16(b, half) + _bf16(c, half)) for half in (0, 1)]
        return halves[0] | halves[1] << np.uint32(16)
    if opcode == "shf.l.wrap.b32":
        b, shift = others
        wide = (b.astype(np.uint64) << np.uint64(32) | a) << (shift & 31).astype(np.uint64)
        return (wide >> np.uint64(32)).astype(np.uint32)
    simple = {
        "mov.b32": lambda: a,
        "mov.f32": lambda: a,
        "and.b32": lambda: a & others[0],
        "shl.b32": lambda: a << others[0],
        "shr.u32": lambda: a >> others[0],
        "max.u32": lambda: np.maximum(a, others[0]),
    }
    return simple[opcode]()


def _mma(registers: dict[str, np.ndarray], d: list[str], a: list[str], b: list[str], c: list[str]) -> None:
    """d = a·b + c; a 16×16 and b 16×8 bf16, c and d 16×8 fp32."""
    left, right, add = np.zeros((16, 16)), np.zeros((16, 8)), np.zeros((16, 8))
    for half in (0, 1):
        for number, name in enumerate(a):  # a0 (g, 2t), a1 (g + 8, 2t), a2 (g, 2t + 8), a3 (g + 8, 2t + 8)
            left[GROUP + 8 * (number % 2), 2 * THREAD + half + 8 * (number // 2)] = _bf16(registers[name], half)
        for number, name in enumerate(b):  # b0 (2t, g), b1 (2t + 8, g)
            right[2 * THREAD + half + 8 * number, GROUP] = _bf16(registers[name], half)
    for number, name in enumerate(c):
        add[GROUP + 8 * (number // 2), 2 * THREAD + number % 2] = registers[name].view(np.float32)
    product = (left @ right + add).astype(np.float32)
    for number, name in enumerate(d):
        registers[name] = product[GROUP + 8 * (number // 2), 2 * THREAD + number % 2].view(np.uint32)


def _bf16(register: np.ndarray, half: int) -> np.ndarray:
    return ((register >> np.uint32(16 * half)) << np.uint32(16)).view(np.float32).astype(np.float64)


def _to_bf16(values: np.ndarray) -> np.ndarray:
    """Bits in a uint32's low half, to nearest even; exact values in fp32's range, as products of two bf16 are."""
    single = values.astype(np.float32)
    assert np.array_equal(single.astype(np.float64), values) or np.abs(values).max() >= 2.0**128
    bits = single.view(np.uint32)
    return bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)) >> np.uint32(16)


def create_inline_asm(builder, source, constraints, values, types, is_pure, pack):
    """What `InterpreterBuilder` lacks: results for `tl.inline_asm_elementwise`, blocks of whole warps in, same out."""
    shape = values[0].data.shape
    if source.startswith("ld.global"):
        results = _load(values[0].data.astype(np.uint64), len(types))
    else:
        warps = values[0].data.size // len(LANES)
        bits = [np.ascontiguousarray(value.data).view(np.uint32).reshape(warps, -1) for value in values]
        rows = [run(source, [None] * len(types) + [operand[warp] for operand in bits]) for warp in range(warps)]
        results = [np.concatenate([row[f"${n}"] for row in rows]) for n in range(len(types))]
    handles = [
        TensorHandle(_as_data(bits, kind.scalar).reshape(shape), kind.scalar)
        for bits, kind in zip(results, types, strict=True)
    ]
    return SimpleNamespace(get_result=handles.__getitem__)


_cast = InterpreterBuilder.cast_impl


def cast_impl(builder, source, target):
    """The interpreter's own casts, but bf16 widens to fp32 as it is: theirs loses digits of subnormal numbers."""
    if source.dtype.scalar.is_bf16() and target.scalar.is_fp32():
        return TensorHandle((source.data.astype(np.uint32) << 16).view(np.float32), target.scalar)
    return _cast(builder, source, target)


def _as_data(bits, kind):
    """How the interpreter holds such values: bf16 as its bits."""
    if kind.is_bf16():
        return bits.astype(np.uint16)
    return bits.view(np.float32 if kind.is_floating() else np.int32)


def _load(addresses, count):
    """`count` consecutive 32-bit words from each address."""
    everywhere, nothing = np.ones(len(addresses), bool), np.zeros(len(addresses), np.uint32)
    words = [addresses + np.uint64(4 * n) for n in range(count)]
    return [memory.load(at, everywhere, nothing, np.dtype(np.uint32)) for at in words]

"""A stand-in for `native.Library` whose calls run in another process (driver.c): sanitised, or emulated."""

import ctypes
import struct
import subprocess
from pathlib import Path

from gpt_oss import native

ISAS = ("avx512bf16", "avx2", "neon", "portable")
_SOURCES = Path(native.__file__).parent


def build(folder: Path, compiler: str, *flags: str) -> Path:
    """Compile the library and the driver into one program."""
    program = folder / "driver"
    sources = [*sorted((_SOURCES / "src").glob("*.c")), Path(__file__).with_name("driver.c")]
    command = [compiler, "-std=c11", "-O2", "-g", "-ffp-contract=off", f"-I{_SOURCES / 'include'}", *flags]
    subprocess.run([*command, *map(str, sources), "-o", str(program), "-ldl", "-lpthread", "-lm"], check=True)
    return program


class RemoteLibrary(native.Library):
    """The same methods; what they point to is copied to the other process, and its result back."""

    def __init__(self, command: list[str]):
        self._command, self._isa, self._arrays = command, "portable", {}

    @property
    def isa(self) -> str:
        return self._isa

    def select(self, isa: str) -> bool:
        if isa not in ISAS:
            return False
        status, _ = self._call(0, isa, 1, [])
        if status == 0:
            self._isa = isa
        return status == 0

    def experts(self, layer, tokens, per_token, x, chosen, weights, out, threads):
        e, h, i = layer.experts, layer.hidden, layer.intermediate
        arrays = [
            (layer.mlp1_blocks, e * i * h), (layer.mlp1_scales, e * i * h // 16), (layer.mlp1_bias, e * i * 4),
            (layer.mlp2_blocks, e * h * i // 2), (layer.mlp2_scales, e * h * i // 32), (layer.mlp2_bias, e * h * 2),
            (x, tokens * h * 2), (chosen, tokens * per_token * 8), (weights, tokens * per_token * 4),
        ]  # fmt: skip
        limit = struct.unpack("<I", struct.pack("<f", layer.swiglu_limit))[0]
        self._run(1, threads, arrays, out, (tokens, per_token, e, h, i), limit=limit)

    def matmul_bf16(self, w, bias, rows, k, x, tokens, y, threads, rounded=True):
        arrays = [(w, rows * k * 2), (x, tokens * k * 2)]
        if bias is not None:
            arrays.insert(1, (bias, rows * 2))
        self._run(2, threads, arrays, y, (rows, k, tokens, rounded), has_bias=bias is not None)

    def decode(self, blocks, scales, out, threads):
        arrays = [(blocks.ctypes.data, blocks.nbytes), (scales.ctypes.data, scales.nbytes)]
        self._run(3, threads, arrays, out, (scales.size,))

    def _run(self, operation, threads, arrays, out, sizes, has_bias=False, limit=0):
        status, result = self._call(operation, self._isa, threads, arrays, sizes, has_bias, limit)
        self._check(status)
        ctypes.memmove(out, result, len(result))

    def _call(self, operation, isa, threads, arrays, sizes=(), has_bias=False, limit=0):
        header = (operation, ISAS.index(isa), threads, *sizes, *[0] * (5 - len(sizes)), int(has_bias), limit)
        request = struct.pack("<10Q", *header) + b"".join(ctypes.string_at(*array) for array in arrays)
        done = subprocess.run(self._command, input=request, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()  # a sanitiser's report
        return struct.unpack("<i", done.stdout[:4])[0], done.stdout[4:]

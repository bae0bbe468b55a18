"""Native CPU kernels by ctypes: MXFP4 experts and BF16 products for few tokens at a time.

The library (include/gptoss_native.h) is optional: `load()` gives None where it was not built. Arrays go in by
address, so NumPy memory maps of a checkpoint are read in place; nothing here knows torch.
"""

import ctypes
import functools
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gpt_oss.errors import GenerationError

logger = logging.getLogger(__name__)

VERSION: Final = 2
HOW_TO_BUILD: Final = 'run "make native" in a checkout, or install from source with GPTOSS_BUILD_NATIVE=1'
_MESSAGES: Final = {1: "an argument is not what the kernel can compute", 2: "no memory for activations"}


@dataclass(frozen=True)
class ExpertLayer:
    """One layer's experts, as stored: uint8 blocks and scales, BF16 biases as uint16; all contiguous.

    mlp1_blocks [e, 2i, h/32, 16], mlp1_scales [e, 2i, h/32], mlp1_bias [e, 2i]; mlp2 likewise with [e, h, i/32, …].
    """

    mlp1_blocks: np.ndarray
    mlp1_scales: np.ndarray
    mlp1_bias: np.ndarray
    mlp2_blocks: np.ndarray
    mlp2_scales: np.ndarray
    mlp2_bias: np.ndarray
    swiglu_limit: float


class _Experts(ctypes.Structure):
    """struct gptoss_experts."""

    _fields_ = (
        *[(name, ctypes.c_size_t) for name in ("experts", "hidden", "intermediate")],
        *[(name, ctypes.c_void_p) for name in ("mlp1_blocks", "mlp1_scales", "mlp1_bias")],
        *[(name, ctypes.c_void_p) for name in ("mlp2_blocks", "mlp2_scales", "mlp2_bias")],
        ("swiglu_limit", ctypes.c_float),
    )


_SIZE, _ADDRESS, _THREADS = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
_DENSE: Final = (_ADDRESS, _ADDRESS, _SIZE, _SIZE, _ADDRESS, _SIZE, _ADDRESS, _THREADS)
# Declared, ctypes converts plain numbers itself, at a fraction of the cost of doing it here.
_ARGUMENTS: Final = {
    "experts": (_ADDRESS, _SIZE, _SIZE, *[_ADDRESS] * 4, _THREADS),
    "matmul_bf16": _DENSE,
    "matmul_bf16_unrounded": _DENSE,
    "decode": (_ADDRESS, _ADDRESS, _SIZE, _ADDRESS, _THREADS),
}


class Library:
    """The loaded library. Methods release the interpreter lock; addresses must stay valid while they run."""

    def __init__(self, path: Path):
        """Raises OSError for a file that is no library of this machine and this interface."""
        self._c = ctypes.CDLL(str(path))
        self._c.gptoss_native_isa.restype = ctypes.c_char_p
        found = self._c.gptoss_native_version()
        if found != VERSION:
            raise OSError(f"{path} has interface version {found}, expected {VERSION}")
        for name, types in _ARGUMENTS.items():
            getattr(self._c, f"gptoss_native_{name}").argtypes = types

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._c.gptoss_native_isa().decode()

    def select(self, isa: str) -> bool:
        """Use another instruction set; False where it is not compiled in or this processor lacks it."""
        return self._c.gptoss_native_select(isa.encode()) == 0

    def describe(self, layer: ExpertLayer) -> ctypes.Structure:
        """The layer as the C functions take it. The caller keeps `layer` alive as long as this is used."""
        experts, hidden = layer.mlp2_bias.shape
        arrays = {name: getattr(layer, name) for name in layer.__dataclass_fields__ if name != "swiglu_limit"}
        for name, array in arrays.items():
            if not array.flags.c_contiguous:
                raise ValueError(f"{name} must be contiguous")
        return _Experts(
            experts,
            hidden,
            layer.mlp1_bias.shape[1] // 2,
            *(array.ctypes.data for array in arrays.values()),
            layer.swiglu_limit,
        )

    def experts(
        self, layer: ctypes.Structure, tokens: int, per_token: int, x: int, chosen: int, weights: int, out: int,
        threads: int,
    ) -> None:  # fmt: skip
        """`gptoss_native_experts`; x, chosen, weights and out are addresses of contiguous arrays."""
        self._check(
            self._c.gptoss_native_experts(
                ctypes.byref(layer), tokens, per_token, x, chosen, weights, out, threads,
            )
        )  # fmt: skip

    def matmul_bf16(
        self, w: int, bias: int | None, rows: int, k: int, x: int, tokens: int, y: int, threads: int,
        rounded: bool = True,
    ) -> None:  # fmt: skip
        """`gptoss_native_matmul_bf16`, or with y in fp32 `gptoss_native_matmul_bf16_unrounded`.

        w, bias, x and y are addresses of contiguous arrays, BF16 but for that y.
        """
        multiply = self._c.gptoss_native_matmul_bf16 if rounded else self._c.gptoss_native_matmul_bf16_unrounded
        self._check(multiply(w, bias, rows, k, x, tokens, y, threads))

    def decode(self, blocks: np.ndarray, scales: np.ndarray, out: int, threads: int) -> None:
        """`gptoss_native_decode` of contiguous blocks [..., 16] and scales [...] to BF16 at address `out`."""
        self._check(self._c.gptoss_native_decode(blocks.ctypes.data, scales.ctypes.data, scales.size, out, threads))

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise GenerationError(f"the native kernels failed: {_MESSAGES.get(status, f'status {status}')}")


@functools.cache
def load() -> Library | None:
    """The library beside this file, or None where it was not built or does not fit this machine."""
    name = "libgptoss_native.dylib" if sys.platform == "darwin" else "libgptoss_native.so"
    path = Path(__file__).parent / name
    if not path.exists():
        return None
    try:
        library = Library(path)
    except OSError as error:
        logger.warning("going on without the native CPU kernels (%s); %s", error, HOW_TO_BUILD)
        return None
    logger.info("native CPU kernels: %s", library.isa)
    return library

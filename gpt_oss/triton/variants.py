"""Which kernels a device gets: decided here, once, and logged.

"mma" decodes MXFP4 by inline assembly and multiplies on NVIDIA's matrix units in BF16 (tensor_core.py); "portable"
computes the same in plain fp32 arithmetic, for AMD, for fp32 activations and for Triton's interpreter on a CPU.
"""

import ctypes
import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl

from gpt_oss.errors import BackendUnavailable
from gpt_oss.triton.norm import rms_norm
from gpt_oss.triton.tensor_core import INPUT_SCALE, OUTPUT_SCALE

logger = logging.getLogger(__name__)

OLDEST_TRITON = (3, 6)
OLDEST_CAPABILITY = (8, 0)
# From this driver on CUDA graphs keep the edges of dependent launch (edge data came with CUDA 12.3).
DEPENDENT_LAUNCH_DRIVER = 12030
MMA_COLUMNS = 8


@dataclass(frozen=True)
class DenseTiles:
    """How a decode step's dense products are cut: launch options of a projection for one sequence and for more."""

    rows: int
    rows_many: int
    out_rows: int  # of the out projection: its blocks are also the router's partial sums
    out_rows_many: int
    vocab_rows: int
    vocab_rows_many: int
    inputs: int = 1024  # per iteration, for one sequence

    def one(self, rows: int) -> dict[str, int]:
        """Multiply-adds: every thread keeps several 16-byte loads in flight."""
        return {"BLOCK_R": rows, "BLOCK_K": self.inputs, "num_warps": 4}

    @staticmethod
    def many(rows: int) -> dict[str, int]:
        """Matrix units, fed through a pipeline in shared memory."""
        return {"BLOCK_R": rows, "BLOCK_K": 128, "num_warps": 4, "num_stages": 4}


# On a GPU many small programs fill the card; interpreted, each program costs milliseconds whatever its size.
GPU_TILES = DenseTiles(rows=8, rows_many=32, out_rows=8, out_rows_many=16, vocab_rows=16, vocab_rows_many=64)
INTERPRETER_TILES = DenseTiles(512, 512, 64, 64, vocab_rows=128, vocab_rows_many=128, inputs=128)


@dataclass(frozen=True)
class Variant:
    """The numbers that kernels are specialised on."""

    name: str  # "mma" or "portable"
    activations: torch.dtype
    compute: tl.dtype  # operands of matrix products
    input_scale: float  # powers of two around the MXFP4 products of a decode step (tensor_core.py)
    output_scale: float
    expert_warps: int  # per program of a decode step's MXFP4 products
    ahead: int  # mma: steps of 64 inputs requested before use; portable: steps per iteration
    max_registers: int | None
    tiles: DenseTiles = GPU_TILES
    attention_stages: int = 3  # of a prefill's pipeline over keys
    dependent_launch: bool = False  # decode kernels start while the one before them ends

    @property
    def launch_options(self) -> dict[str, bool]:
        """Of every kernel of a decode step; `numerics.wait_for_previous` is their other half."""
        # Only NVIDIA's compiler knows the option.
        return {"DEPENDENT": self.dependent_launch} | ({"launch_pdl": True} if self.dependent_launch else {})

    def columns(self, tokens: int) -> int:
        """Most pairs in a work item: what one matrix instruction takes, or what is there."""
        return MMA_COLUMNS if self.name == "mma" else min(MMA_COLUMNS, triton.next_power_of_2(tokens))

    @property
    def expert_options(self) -> dict[str, int]:
        """Launch options of the decode step's MXFP4 kernels."""
        options = {"num_warps": self.expert_warps}
        return options | ({"maxnreg": self.max_registers} if self.max_registers else {})


def mma_variant(capability: tuple[int, int]) -> Variant:
    """For NVIDIA GPUs of this compute capability, 8.0 or later."""
    return Variant(
        "mma",
        torch.bfloat16,
        tl.bfloat16,
        INPUT_SCALE,
        OUTPUT_SCALE,
        expert_warps=4,
        ahead=3,
        # Left alone the assembler keeps registers few and moves loads down to their use: one in flight, not four.
        # The first Blackwell assemblers spill below 144 (benchmarks/results/triton_targets.json).
        max_registers=128 if capability < (10, 0) else 144,
        # The consumer Blackwells have 99 KB of shared memory: two blocks in flight, so that more programs fit.
        attention_stages=2 if capability[0] == 12 else 3,
        dependent_launch=capability >= (9, 0),
    )


def portable_variant(activations: torch.dtype, compute: tl.dtype, tiles: DenseTiles = GPU_TILES) -> Variant:
    """For everything else that Triton runs on."""
    ahead = 8 if tiles is GPU_TILES else 16  # 8: 16 bytes of words for each of AMD's 256 threads
    return Variant(
        "portable", activations, compute, 1.0, 1.0, 4, ahead, max_registers=None, tiles=tiles, attention_stages=2
    )


def current(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the calling thread's own: Triton launches there, wherever its arguments lie."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def interpreting() -> bool:
    """Whether TRITON_INTERPRET was set when the kernels were imported: then they run on CPUs, slowly, for tests."""
    return bool(triton.knobs.runtime.interpret)


def choose_device(device: torch.device | str | None) -> torch.device:
    """The CUDA device to use. Raises `BackendUnavailable` where the backend cannot run, naming what is missing."""
    found = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if found < OLDEST_TRITON:
        wanted = ".".join(map(str, OLDEST_TRITON))
        raise BackendUnavailable(
            f"Triton {wanted} or later is needed, found {triton.__version__}; run: pip install -U triton"
        )
    try:
        chosen = torch.device("cuda" if device is None else device)
    except RuntimeError:
        raise BackendUnavailable(f"{str(device)!r} is no device; give cuda, or cuda:1 for the second card") from None
    if interpreting():
        return torch.device("cpu") if device is None else chosen
    if chosen.type != "cuda":
        raise BackendUnavailable(f"the triton backend runs on CUDA devices, not on {chosen}; choose --backend torch")
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "no CUDA device was found; choose --backend torch, or check the driver with nvidia-smi"
        )
    index = torch.cuda.current_device() if chosen.index is None else chosen.index
    if index >= torch.cuda.device_count():
        raise BackendUnavailable(
            f"{chosen} does not exist; this machine has {torch.cuda.device_count()} CUDA device(s)"
        )
    _check_capability(index)
    return torch.device("cuda", index)


def _check_capability(index: int) -> None:
    if torch.version.hip is not None:
        return
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST_CAPABILITY:
        raise BackendUnavailable(
            f"{torch.cuda.get_device_name(index)} has compute capability {capability[0]}.{capability[1]}; "
            "8.0 (Ampere) or later is needed, choose --backend torch"
        )


def driver_version() -> int:
    """Newest CUDA that NVIDIA's driver supports: 1000 · major + 10 · minor. For machines that have the driver."""
    version = ctypes.c_int()
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value


def check_compiler(device: torch.device) -> None:
    """Run the smallest kernel. Raises `BackendUnavailable` where kernels cannot be built or the driver refuses them.

    The compiler of kernels is in Triton's wheel, that of their launcher is the machine's; both write to a cache.
    """
    x = torch.ones(1, 16, device=device)
    try:
        rms_norm(x, x[0], 0.0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:  # Triton's own, the C compiler's, the file system's, the driver's
        said = str(error).partition("\n")[0].rstrip(".")
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise BackendUnavailable(
            f"Triton cannot build kernels here ({reason}); it needs a C compiler, Python's header files (python3-dev) "
            "and a folder to write to (TRITON_CACHE_DIR), or choose --backend torch"
        ) from error


def choose_variant(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Variant:
    """The kernels for a device and an activation type (bfloat16, or float32 for oracles)."""
    if dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"activations are bfloat16 or float32, got {dtype}")
    if interpreting():
        variant, reason = portable_variant(dtype, tl.float32, INTERPRETER_TILES), "interpreted on a CPU"
    elif dtype == torch.float32:
        variant, reason = portable_variant(dtype, tl.float32), "fp32 activations"
    elif torch.version.hip is not None:
        variant, reason = portable_variant(dtype, tl.bfloat16), "AMD"
    else:
        variant = mma_variant(torch.cuda.get_device_capability(device))
        reason = torch.cuda.get_device_name(device)
        if variant.dependent_launch and driver_version() < DEPENDENT_LAUNCH_DRIVER:
            variant = replace(variant, dependent_launch=False)
            reason += ", a driver before CUDA 12.3"
    logger.info("Triton kernels: %s variant (%s)", variant.name, reason)
    return variant

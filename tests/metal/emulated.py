"""The kernels on the emulated device, for tests: build once with g++, then NumPy arrays in and out.

`build()` compiles what gpt_oss/metal/emulator/CMakeLists.txt compiles, with its flags, into one shared library per set
of sources; results are kept under build/metal-tests by the hash of everything that went in.
"""

import ctypes
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gpt_oss.metal.emulator.translate import translate

METAL = Path(__file__).parents[2] / "gpt_oss" / "metal"
KERNELS = METAL / "kernels"
EMULATOR = METAL / "emulator"
CACHE = Path(__file__).parents[2] / "build" / "metal-tests"
COMPILER = os.environ.get("CXX", "g++")


def kernel_flags() -> list[str]:
    """The flags of the kernels in CMakeLists.txt, for this processor."""
    text = (EMULATOR / "CMakeLists.txt").read_text()
    flags = re.search(r"set\(KERNEL_FLAGS (.*?)\)", text)[1].split()
    if os.uname().machine == "x86_64":
        flags += re.search(r"list\(APPEND KERNEL_FLAGS (.*?)\)", text)[1].split()
    return flags


Job = tuple[Path, list[str]]
"""An object file, named by what goes into it, and the command that makes it."""


def build(kernel_files: Iterable[Path], extra_flags: Iterable[str] = ()) -> Path:
    """The shared library of these kernels, the launchers and the emulated device."""
    flags = [*extra_flags]
    sanitizers = [flag for flag in flags if flag.startswith("-fsanitize")]
    return link([*kernel_jobs(kernel_files, flags), device_job(flags)], sanitizers)


def kernel_jobs(kernel_files: Iterable[Path], extra_flags: list[str]) -> list[Job]:
    """Kernels, executor and launchers, without a device."""
    jobs = []
    for file in kernel_files:
        text = translate(file.read_text(), file.name)
        headers = _text_of([*EMULATOR.glob("*.hpp"), *EMULATOR.glob("include/*")]) + _included(text, file.parent)
        source = CACHE / f"{file.stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.cpp"
        if not source.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            source.write_text(text)
        target, command = job(source, [COMPILER, *kernel_flags(), *extra_flags], headers)
        jobs.append((target, [*command, f"-I{EMULATOR}/include", f"-I{file.parent}", f"-I{KERNELS}"]))
    launchers = [COMPILER, "-x", "c", "-std=c11", "-O2", *extra_flags]
    jobs.append(job(METAL / "kernels.c", launchers, _text_of([*METAL.glob("*.h"), KERNELS / "kernel_args.h"])))
    emulator = [COMPILER, "-std=c++17", "-O2", *extra_flags]
    jobs.append(job(EMULATOR / "executor.cpp", emulator, _text_of(EMULATOR.glob("*.hpp"))))
    return jobs


def device_job(extra_flags: list[str]) -> Job:
    """The emulated device."""
    headers = _text_of([*METAL.glob("*.h"), *EMULATOR.glob("*.h*")])
    return job(EMULATOR / "device.cpp", [COMPILER, "-std=c++17", "-O2", *extra_flags], headers)


def job(source: Path, command: list[str], headers: str) -> Job:
    """Compile a source with a compiler and its flags. `headers`: the text of what it includes."""
    command = [*command, "-fPIC", "-g1", "-Wall", "-Wextra", "-Werror"]
    digest = hashlib.sha256("\0".join([source.read_text(), headers, *command]).encode()).hexdigest()[:16]
    return CACHE / f"{source.stem}-{digest}.o", [*command, "-c", str(source)]


def link(jobs: list[Job], flags: Iterable[str] = ()) -> Path:
    """Run the jobs, two at a time, and link a shared library of their objects."""
    digest = hashlib.sha256("\n".join(str(target) for target, _ in jobs).encode()).hexdigest()[:16]
    library = CACHE / f"kernels-{digest}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_compile, jobs))
        unfinished = library.with_suffix(f".{os.getpid()}")
        objects = [str(target) for target, _ in jobs]
        run([COMPILER, "-shared", "-o", str(unfinished), *objects, "-lpthread", *flags])
        unfinished.rename(library)
    return library


def _included(text: str, folder: Path) -> str:
    """The text of all headers of ours that a source includes."""
    found = ""
    for name in re.findall(r'#include "([^"]+)"', text):
        header = next(path for path in (folder / name, KERNELS / name) if path.exists()).read_text()
        found += header + _included(header, folder)
    return found


def _text_of(paths: Iterable[Path]) -> str:
    return "".join(path.read_text() for path in sorted(paths))


def _compile(job: Job) -> None:
    target, command = job
    if not target.exists():
        unfinished = target.with_suffix(f".{os.getpid()}")
        run([*command, "-o", str(unfinished)])
        unfinished.rename(target)


def run(command: list[str]) -> None:
    """A compiler's command; its messages become the error."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")


class DeviceError(Exception):
    """A function of device.h or kernels.h returned false; the text is its error."""


class Slice(ctypes.Structure):
    _fields_ = (("buffer", ctypes.c_void_p), ("offset", ctypes.c_size_t))


class Dispatch(ctypes.Structure):
    _fields_ = (
        ("threadgroups", ctypes.c_uint32 * 3),
        ("threads", ctypes.c_uint32),
        ("args", ctypes.c_void_p),
        ("args_bytes", ctypes.c_size_t),
        ("buffers", ctypes.POINTER(Slice)),
        ("num_buffers", ctypes.c_uint32),
    )


class KernelInfo(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("max_threads", ctypes.c_uint32),
        ("threadgroup_bytes", ctypes.c_uint32),
        ("args_bytes", ctypes.c_uint32),
        ("num_buffers", ctypes.c_uint32),
    )


class Buffer:
    """Device memory with an array's shape and type; `array` reads and writes it where it lies."""

    def __init__(self, device: "Device", array: np.ndarray) -> None:
        self.handle = ctypes.c_void_p()
        device.call(
            "gpu_buffer_create", device.handle, ctypes.c_size_t(max(array.nbytes, 1)), ctypes.byref(self.handle)
        )
        device.lib.gpu_buffer_contents.restype = ctypes.c_void_p
        memory = (ctypes.c_char * array.nbytes).from_address(device.lib.gpu_buffer_contents(self.handle))
        self.array = np.frombuffer(memory, array.dtype).reshape(array.shape)

    def at(self, offset: int = 0) -> Slice:
        return Slice(self.handle, offset)


class Device:
    """An emulated device of one library; buffers live as long as it."""

    LANES = ("forward", "reverse", "random")

    def __init__(self, library: Path, lanes: str = "forward", max_threads: int = 1024) -> None:
        self.lib = ctypes.CDLL(str(library))
        self.handle = ctypes.c_void_p()
        self.buffers: list[Buffer] = []
        self.call("gpu_device_create", ctypes.byref(self.handle))
        if (lanes, max_threads) != ("forward", 1024):
            self.lib.emulator_set_lanes(self.handle, self.LANES.index(lanes))
            self.lib.emulator_set_max_threads(self.handle, max_threads)

    def call(self, function: str, *arguments: object) -> None:
        """A function that returns bool and writes its error to the last parameter."""
        error = ctypes.create_string_buffer(512)
        called = self.lib[function]
        called.restype = ctypes.c_bool
        if not called(*arguments, error):
            raise DeviceError(error.value.decode())

    def put(self, array: np.ndarray) -> Buffer:
        """A buffer that holds this array."""
        buffer = self.empty(array.shape, array.dtype)
        buffer.array[...] = array
        return buffer

    def empty(self, shape: int | tuple[int, ...], dtype: object = np.float32) -> Buffer:
        """A buffer as the device gives it: all bits set."""
        buffer = Buffer(self, np.empty(shape, dtype))
        self.buffers.append(buffer)
        return buffer

    def commands(self) -> "Commands":
        return Commands(self)

    def kernels(self) -> list[KernelInfo]:
        self.lib.emulator_kernel_at.restype = ctypes.c_bool
        found = []
        while self.lib.emulator_kernel_at(len(found), ctypes.byref(info := KernelInfo())):
            found.append(info)
        return found

    def close(self) -> None:
        for buffer in self.buffers:
            self.lib.gpu_buffer_release(buffer.handle)
        self.lib.gpu_device_release(self.handle)

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Commands:
    """A command buffer; leaving the `with` block commits it and waits."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.handle = ctypes.c_void_p()
        self.all_kernels = ctypes.c_void_p()

    def __enter__(self) -> "Commands":
        self.device.call("gpu_commands_create", self.device.handle, ctypes.byref(self.handle))
        return self

    def launch(self, launcher: str, args: object, *slices: Slice) -> None:
        """A launcher of kernels.h. `args`: its structure, or a tuple of leading arguments."""
        if not self.all_kernels:
            self.device.call("kernels_create", self.device.handle, ctypes.byref(self.all_kernels))
        leading = args if isinstance(args, tuple) else (args,)
        self.device.call(launcher, self.all_kernels, self.handle, *leading, *slices)

    def dispatch(
        self,
        kernel: str,
        args: bytes,
        buffers: Iterable[Slice],
        threadgroups: tuple[int, ...] = (1,),
        threads: int = 32,
    ) -> None:
        """A kernel by name, without a launcher."""
        handle = ctypes.c_void_p()
        self.device.call("gpu_kernel_create", self.device.handle, kernel.encode(), ctypes.byref(handle))
        bound = list(buffers)
        grid = (ctypes.c_uint32 * 3)(*threadgroups, *[1] * (3 - len(threadgroups)))
        copied = ctypes.create_string_buffer(args, len(args))
        array = (Slice * max(len(bound), 1))(*bound)
        launch = Dispatch(grid, threads, ctypes.addressof(copied), len(args), array, len(bound))
        try:
            self.device.call("gpu_commands_dispatch", self.handle, handle, ctypes.byref(launch))
        finally:
            self.device.lib.gpu_kernel_release(handle)

    def __exit__(self, failure: object, *rest: object) -> None:
        try:
            if failure is None:
                self.device.call("gpu_commands_commit", self.handle)
                self.device.call("gpu_commands_wait", self.handle)
        finally:
            self.device.lib.gpu_commands_release(self.handle)
            self.device.lib.kernels_release(self.all_kernels)


def _structures() -> dict[str, type[ctypes.Structure]]:
    """The argument structures of kernel_args.h, by name without `_args`."""
    types = {"uint32_t": ctypes.c_uint32, "float": ctypes.c_float}
    text = re.sub(r"/\*.*?\*/", "", (KERNELS / "kernel_args.h").read_text(), flags=re.S)
    found = {}
    for name, body in re.findall(r"struct (\w+)_args \{(.*?)\};", text, re.S):
        fields = [(field, types[kind]) for kind, field in re.findall(r"(\w+) (\w+);", body)]
        found[name] = type(f"{name}_args", (ctypes.Structure,), {"_fields_": fields})
    return found


ARGS = _structures()


class ExpertsLayout(ctypes.Structure):
    """experts_layout of kernels.h."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("num_experts", "num_active", "hidden", "intermediate")),
        ("swiglu_limit", ctypes.c_float),
        ("stride", ctypes.c_uint32),
        *((name, ctypes.c_uint32) for name in ("mlp1_blocks", "mlp1_scales", "mlp1_bias")),
        *((name, ctypes.c_uint32) for name in ("mlp2_blocks", "mlp2_scales", "mlp2_bias")),
    )


def to_bf16(array: np.ndarray) -> np.ndarray:
    """The bit patterns (uint16) of the nearest bf16 values, ties to even."""
    bits = np.asarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)

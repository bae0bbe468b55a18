"""metal_device.m without a Mac: parsed against stub headers, run over a fake Foundation and Metal, linked for arm64.

The three tiers need more than g++. `make test-metal` installs what they take; without it they are skipped by name.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt_oss.metal.embed_kernels import c_source, flatten
from tests.metal import test_kernels
from tests.metal.emulated import (
    CACHE,
    COMPILER,
    KERNELS,
    METAL,
    Buffer,
    Device,
    DeviceError,
    device_job,
    job,
    kernel_jobs,
    link,
    run,
)

OBJC = Path(__file__).parent / "objc"
DEVICE = METAL / "metal_device.m"
VARIANTS = [[], ["-D__MAC_15_0"], ["-DGPTOSS_METALLIB"]]
"""Older and newer SDKs, and kernels compiled by Xcode."""

CLANG = shutil.which("clang-19")
RUNTIME = Path("/usr/lib/gcc/x86_64-linux-gnu/12")
ZIG = os.environ.get("ZIG") or (f"{sys.executable} -m ziglang" if importlib.util.find_spec("ziglang") else "")

needs_clang = pytest.mark.skipif(not CLANG, reason="needs clang: apt-get install clang-19 (or make test-metal)")
needs_runtime = pytest.mark.skipif(
    not CLANG or not (RUNTIME / "libobjc.so").exists(),
    reason="needs libobjc: apt-get install clang-19 libobjc-12-dev (or make test-metal)",
)
needs_zig = pytest.mark.skipif(not ZIG, reason="needs the Darwin headers of the ziglang wheel: make test-metal")


def embedded_kernels() -> Path:
    """The C file with all kernels as MSL text, as the build on macOS makes it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / "kernels.generated.c"
    path.write_text(c_source(flatten(sorted(KERNELS.glob("*.metal"))).encode()))
    return path


def test_the_flattened_kernels_are_one_valid_source(tmp_path: Path) -> None:
    text = flatten(sorted(KERNELS.glob("*.metal")))
    assert '#include "' not in text
    for header in KERNELS.glob("*.h"):
        assert text.count(f'#line 1 "{header.name}"') == 1
    source = tmp_path / "kernels.metal"
    source.write_text(text)
    (target, command), *_ = kernel_jobs([source], ["-fsyntax-only"])
    run(command)
    assert target.suffix == ".o"


def test_the_embedded_bytes_are_the_text(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3
    (tmp_path / "x.c").write_text(c_source(data))
    run([COMPILER, "-x", "c", "-shared", "-fPIC", str(tmp_path / "x.c"), "-o", str(tmp_path / "x.so")])
    library = ctypes.CDLL(str(tmp_path / "x.so"))
    assert ctypes.c_size_t.in_dll(library, "gptoss_kernels_bytes").value == len(data)
    assert bytes((ctypes.c_ubyte * (len(data) + 1)).in_dll(library, "gptoss_kernels")) == data + b"\0"


@needs_clang
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_it_parses_against_the_stub_headers(variant: list[str]) -> None:
    target = ["-target", "x86_64-pc-linux-gnu", "-fobjc-runtime=macosx-14", "-x", "objective-c", "-fblocks", "-std=c11"]
    run([CLANG, *target, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{OBJC}", *variant, str(DEVICE)])


# ---- over the fake frameworks ----


@pytest.fixture(scope="module")
def fake_library() -> Path:
    objc = [CLANG, "-fobjc-runtime=gcc", "-fblocks", "-std=gnu11", "-O1", "-x", "objective-c"]
    objc += [f"-I{OBJC}", f"-I{METAL}", f"-I{RUNTIME}/include"]
    headers = "".join(path.read_text() for path in [*OBJC.rglob("*.h"), *METAL.glob("*.h")])
    jobs = kernel_jobs(sorted(KERNELS.glob("*.metal")), [])
    jobs.append(device_job(["-include", str(OBJC / "emulated_names.h")]))
    jobs += [job(source, objc, headers) for source in (OBJC / "fake_metal.m", DEVICE)]
    jobs.append(job(embedded_kernels(), [COMPILER, "-x", "c"], ""))
    return link(jobs, [f"-L{RUNTIME}", "-lobjc"])


class FakeMetal(Device):
    """metal_device.m over the fake frameworks."""

    def complaint(self) -> str:
        self.lib.fake_complaint.restype = ctypes.c_char_p
        return self.lib.fake_complaint().decode()


@pytest.fixture
def fake(fake_library: Path) -> Iterator[FakeMetal]:
    """Fails when an object outlives the device or a rule of Metal's was broken."""
    library = ctypes.CDLL(str(fake_library))
    before = library.fake_live_objects()
    with FakeMetal(fake_library) as device:
        yield device
    assert device.complaint() == ""
    assert device.lib.fake_live_objects() == before == 0


@pytest.fixture
def breaks(fake_library: Path) -> Iterator[ctypes.CDLL]:
    """`fake_set` for one test; everything works again after it."""
    library = ctypes.CDLL(str(fake_library))
    changed = {}

    def fake_set(name: str, value: int, normal: int = 1) -> None:
        changed[name] = normal
        assert library.fake_set(name.encode(), ctypes.c_long(value))

    library.set = fake_set
    yield library
    for name, normal in changed.items():
        library.fake_set(name.encode(), ctypes.c_long(normal))
    assert library.fake_live_objects() == 0


@needs_runtime
def test_kernels_run_through_the_fake_frameworks(fake: FakeMetal) -> None:
    rng = np.random.default_rng()
    test_kernels.test_rmsnorm(fake, rng, 3, 37)
    test_kernels.test_dense(fake, rng, "launch_dense", 33, 100, 67, 1, 1)
    test_kernels.test_attention(fake, rng, "launch_attention", 17, 70, 2, 1, 0, 90)
    test_kernels.test_experts(fake, rng, "launch_experts", 40, 3, 2, 32, 96)
    test_kernels.test_sample(fake, rng, 0.9, 37)
    test_kernels.test_launchers_refuse_what_does_not_fit(fake)


@needs_runtime
def test_nothing_piles_up_over_many_commands(fake: FakeMetal) -> None:
    buffer = fake.put(np.zeros((1, 32), np.float32))
    gain = fake.put(np.zeros(32, np.uint16))
    counts = []
    for _ in range(5):
        with fake.commands() as commands:
            args = test_kernels.ARGS["rmsnorm"](1, 32, 1e-5)
            commands.launch("launch_rmsnorm", args, buffer.at(), gain.at(), buffer.at())
        counts.append(fake.lib.fake_live_objects())
    assert len(set(counts)) == 1


@needs_runtime
def test_commands_that_are_never_committed_are_let_go(fake: FakeMetal) -> None:
    with pytest.raises(ZeroDivisionError), fake.commands() as commands:
        slices = [fake.put(np.zeros(32, dtype)).at() for dtype in (np.float32, np.uint16, np.float32)]
        commands.dispatch("rmsnorm", bytes(test_kernels.ARGS["rmsnorm"](1, 32, 1e-5)), slices)
        raise ZeroDivisionError


@needs_runtime
@pytest.mark.parametrize(
    ("name", "value", "normal", "message"),
    [
        ("device", 0, 1, "this machine has no Metal device"),
        ("apple7", 0, 1, r"Fake M1 lacks what the kernels need \(GPU family Apple7"),
        ("metal3", 0, 1, "Fake M1 lacks what the kernels need"),
        ("threadgroup_bytes", 8192, 32768, "8192 bytes of threadgroup memory, the kernels need 16384"),
        ("compile", 0, 1, "do not compile: program_source:7:1: error: unknown type name 'flaot' flaot x;"),
        ("queue", 0, 1, "Fake M1 gave no command queue"),
    ],
)
def test_a_device_that_cannot_be_used_is_named(
    fake_library: Path, breaks: ctypes.CDLL, name: str, value: int, normal: int, message: str
) -> None:
    breaks.set(name, value, normal)
    with pytest.raises(DeviceError, match=message):
        FakeMetal(fake_library)


@needs_runtime
@pytest.mark.parametrize(
    ("name", "value", "normal", "message"),
    [
        ("pipeline", 0, 1, "kernel rmsnorm: Compiler encountered an internal error"),
        ("execution_width", 64, 32, "kernel rmsnorm runs in groups of 64 threads, it is written for 32"),
        ("commands", 0, 1, r"the device stopped: impacting interactivity \(00000003\)"),
    ],
)
def test_a_failure_on_the_way_is_reported(
    breaks: ctypes.CDLL, fake: FakeMetal, name: str, value: int, normal: int, message: str
) -> None:
    slices = [fake.put(np.zeros(32, dtype)).at() for dtype in (np.float32, np.uint16, np.float32)]
    breaks.set(name, value, normal)
    with pytest.raises(DeviceError, match=message), fake.commands() as commands:
        commands.dispatch("rmsnorm", bytes(test_kernels.ARGS["rmsnorm"](1, 32, 1e-5)), slices)


@needs_runtime
def test_memory_that_is_refused_is_an_error(breaks: ctypes.CDLL, fake: FakeMetal) -> None:
    breaks.set("buffer", 0)
    with pytest.raises(DeviceError, match="a buffer of 400 bytes cannot be allocated"):
        Buffer(fake, np.empty(100, np.float32))
    pages = ctypes.c_void_p(1 << 20)
    handle = ctypes.byref(ctypes.c_void_p())
    with pytest.raises(DeviceError, match="only whole pages of 16384 bytes"):
        fake.call("gpu_buffer_wrap", fake.handle, pages, ctypes.c_size_t(100), handle)
    with pytest.raises(DeviceError, match="a buffer of 16384 bytes cannot"):
        fake.call("gpu_buffer_wrap", fake.handle, pages, ctypes.c_size_t(16384), handle)


@needs_runtime
def test_both_devices_say_the_same_of_a_wrong_launch(fake: FakeMetal, plain_device: Device) -> None:
    args = bytes(test_kernels.ARGS["rmsnorm"](1, 32, 1e-5))
    said = []
    for device in (fake, plain_device):
        slices = [device.put(np.zeros(32, dtype)).at() for dtype in (np.float32, np.uint16, np.float32)]
        texts = []
        for bound, grid, threads, kernel in [
            (slices, (1,), 33, "rmsnorm"),
            (slices, (1,), 544, "rmsnorm"),
            (slices, (1, 0), 32, "rmsnorm"),
            ([slices[0], test_kernels.Slice(None, 0), slices[2]], (1,), 32, "rmsnorm"),
            ([slices[0], slices[1], test_kernels.Slice(slices[2].buffer, 128)], (1,), 32, "rmsnorm"),
            (slices, (1,), 32, "absent"),
        ]:
            with pytest.raises(DeviceError) as error, device.commands() as commands:
                commands.dispatch(kernel, args, bound, grid, threads)
            texts.append(str(error.value))
        said.append(texts)
    assert said[0] == said[1]


# ---- for the real target ----


@needs_zig
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_core_links_for_arm64_macos(tmp_path: Path, variant: list[str]) -> None:
    """Darwin's own C, Objective-C and dispatch headers; only Foundation and Metal are stubs."""
    sources = [DEVICE, METAL / "kernels.c", *sorted((METAL / "src").glob("*.c")), embedded_kernels()]
    target = ["-target", "aarch64-macos.14.0", "-shared", "-fblocks", "-std=c11", "-Wall", "-Wextra"]
    includes = [f"-I{path}" for path in (METAL, METAL / "include", METAL / "src", OBJC)]
    stubs = OBJC / "frameworks"
    libraries = [f"-F{stubs}", f"-L{stubs}", "-framework", "Foundation", "-framework", "Metal", "-lobjc"]
    dylib = tmp_path / "libgptoss.dylib"
    command = [*ZIG.split(), "cc", *target, *includes, *variant, *map(str, sources), *libraries, "-o", str(dylib)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    magic, cpu = np.frombuffer(dylib.read_bytes()[:8], np.uint32)
    assert (magic, cpu) == (0xFEEDFACF, 0x0100000C)  # a 64-bit Mach-O for arm64

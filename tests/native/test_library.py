"""The library as a thing to build, load and call: CMake's build, a missing or broken file, the C API's statuses."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gpt_oss import native

ROOT = Path(native.__file__).parents[2]
HEADER = Path(native.__file__).parent / "include" / "gptoss_native.h"
OK, BAD_ARGUMENT, UNKNOWN_ISA = 0, 1, 3


@pytest.fixture
def c_library():
    if native.load() is None:
        pytest.skip("the native library is not built (make native)")
    return native.load()._c


@pytest.mark.skipif(
    shutil.which("cmake") is None or importlib.util.find_spec("scikit_build_core") is None,
    reason="needs cmake and scikit-build-core (pip install --group test)",
)
def test_a_wheel_built_on_request_has_working_kernels(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-build-isolation"]
    options = ["--no-deps", "--wheel-dir", str(tmp_path), f"--config-settings=build-dir={tmp_path / 'build'}"]
    environment = os.environ | {"GPTOSS_BUILD_NATIVE": "1"}
    done = subprocess.run([*command, *options, str(ROOT)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        (built,) = [name for name in archive.namelist() if name.endswith((".so", ".dylib"))]
        archive.extract(built, tmp_path)
    assert Path(built).parent == Path("gpt_oss/native")
    assert native.Library(tmp_path / built).isa in ("avx512bf16", "avx2", "neon", "portable")


@pytest.mark.parametrize(("compiler", "language"), [("cc", "c"), ("c++", "c++")])
def test_the_header_stands_alone(compiler, language):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    subprocess.run([compiler, "-x", language, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", str(HEADER)], check=True)


def test_a_missing_library_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    assert native.load.__wrapped__() is None


def test_a_broken_library_is_left_out_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    for name in ("libgptoss_native.so", "libgptoss_native.dylib"):
        (tmp_path / name).write_bytes(b"not a library")
    assert native.load.__wrapped__() is None
    (line,) = caplog.messages
    assert line.startswith("going on without the native CPU kernels (") and line.endswith(native.HOW_TO_BUILD)


def test_a_library_with_another_interface_is_left_out(c_library, monkeypatch, caplog):
    monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
    assert native.load.__wrapped__() is None
    assert f"has interface version {native.VERSION - 1}, expected {native.VERSION}" in caplog.text


def test_null_pointers_and_empty_sizes_are_refused(c_library):
    size, buffer = ctypes.c_size_t, ctypes.create_string_buffer(4096)
    address = ctypes.cast(buffer, ctypes.c_void_p)
    good = [address, None, size(1), size(32), address, size(1), address, 1]
    assert c_library.gptoss_native_matmul_bf16(*good) == c_library.gptoss_native_matmul_bf16_unrounded(*good) == OK
    for position, bad in ((0, None), (2, size(0)), (3, size(0)), (3, size(33)), (4, None), (5, size(0)), (6, None)):
        arguments = [*good]
        arguments[position] = bad
        assert c_library.gptoss_native_matmul_bf16(*arguments) == BAD_ARGUMENT, position
        assert c_library.gptoss_native_matmul_bf16_unrounded(*arguments) == BAD_ARGUMENT, position
    assert c_library.gptoss_native_decode(address, address, size(0), address, 1) == BAD_ARGUMENT
    assert c_library.gptoss_native_decode(None, address, size(1), address, 1) == BAD_ARGUMENT
    layer = native._Experts(1, 32, 32, *[address] * 6, 7.0)
    call = [size(1), size(1), address, address, address, address, 1]
    assert c_library.gptoss_native_experts(None, *call) == BAD_ARGUMENT
    for field in ("experts", "hidden", "intermediate", "mlp1_blocks", "mlp2_bias"):
        broken = native._Experts.from_buffer_copy(layer)
        setattr(broken, field, 0 if field in ("experts", "hidden", "intermediate") else None)
        assert c_library.gptoss_native_experts(ctypes.byref(broken), *call) == BAD_ARGUMENT, field


def test_selecting_an_instruction_set_has_statuses(c_library):
    assert c_library.gptoss_native_select(None) == BAD_ARGUMENT
    assert c_library.gptoss_native_select(b"mmx") == UNKNOWN_ISA
    assert c_library.gptoss_native_select(c_library.gptoss_native_isa()) == OK


@pytest.mark.parametrize("threads", [-1, 0, 1, 10_000])
def test_any_number_of_threads_is_taken(c_library, threads):
    size = ctypes.c_size_t
    codes, scales, out = (ctypes.c_uint8 * 16)(*range(16)), (ctypes.c_uint8 * 1)(127), (ctypes.c_uint16 * 32)()
    assert c_library.gptoss_native_decode(codes, scales, size(1), out, threads) == OK
    assert out[2] == 0x3F00  # the low nibble of byte 1: one half


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_the_threads_are_those_that_torch_has_already(c_library):
    code = """
import os, threading
import numpy as np, torch
from gpt_oss import native

torch.set_num_threads(3)
torch.ones(1 << 22).add_(1)  # torch starts its team
count = lambda: len(os.listdir("/proc/self/task"))
before, most, done = count(), 0, threading.Event()

def watch():
    global most
    while not most or not done.is_set():
        most = max(most, count())

watcher = threading.Thread(target=watch)
watcher.start()
scales = np.full(1 << 21, 127, np.uint8)
blocks, out = np.zeros((len(scales), 16), np.uint8), np.empty(len(scales) * 32, np.uint16)
native.load().decode(blocks, scales, out.ctypes.data, 3)
done.set()
watcher.join()
print(before, most)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    before, most = map(int, done.stdout.split())
    assert before >= 3 and most == before + 1  # the watcher

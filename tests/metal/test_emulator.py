"""The emulated Metal device itself: what it computes, what it refuses, and that mistakes do not stay hidden."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt_oss.metal.emulator.translate import TranslationError, translate
from tests.metal.emulated import Device, DeviceError, Slice, build, to_bf16

SELF_TEST = Path(__file__).parent / "emulator_kernels" / "self_test.metal"


@pytest.fixture(scope="module")
def library(kernel_library: Path) -> Path:
    return build([SELF_TEST], os.environ.get("GPTOSS_METAL_TEST_FLAGS", "").split())


@pytest.fixture(params=Device.LANES)
def device(library: Path, request: pytest.FixtureRequest) -> Iterator[Device]:
    with Device(library, request.param) as made:
        yield made


@pytest.fixture
def plain_device(library: Path) -> Iterator[Device]:
    with Device(library) as made:
        yield made


def args(value: int) -> bytes:
    return struct.pack("I", value)


def run(
    device: Device, kernel: str, value: int, *slices: Slice, groups: tuple[int, ...] = (1,), threads: int = 32
) -> None:
    with device.commands() as commands:
        commands.dispatch(kernel, args(value), slices, groups, threads)


# ---- divergence ----


def test_a_sum_that_some_lanes_miss_is_an_error(device: Device) -> None:
    output = device.empty(64)
    run(device, "partial_sum", 32, output.at(), threads=64)
    assert output.array[:32].tolist() == [32.0] * 32
    with pytest.raises(
        DeviceError, match=r"kernel partial_sum: simd_sum at .*self_test.metal:\d+ was reached by 5 of 32"
    ):
        run(device, "partial_sum", 5, output.at(), threads=64)


def test_two_places_do_not_make_one_sum(device: Device) -> None:
    output = device.empty(32)
    run(device, "two_sums", 0, output.at())
    assert output.array.tolist() == [64.0] * 32
    with pytest.raises(DeviceError, match=r"simd_sum at .* was reached by (9|23) of 32"):
        run(device, "two_sums", 9, output.at())


def test_a_barrier_that_some_threads_miss_is_an_error(device: Device) -> None:
    output = device.empty(96)
    run(device, "early_end", 96, output.at(), threads=96)
    assert output.array.tolist() == [1.0] * 96
    for reached in (95, 64, 1):
        with pytest.raises(
            DeviceError, match=rf"threadgroup_barrier at .* reached by {reached} of 96 .*{96 - reached} had"
        ):
            run(device, "early_end", reached, output.at(), threads=96)
    run(device, "uneven_barriers", 4, output.at(), threads=96)
    with pytest.raises(DeviceError, match="threadgroup_barrier"):
        run(device, "uneven_barriers", 5, output.at(), threads=96)


def test_the_device_works_on_after_a_failed_kernel(device: Device) -> None:
    output = device.put(np.zeros(32, np.float32))
    with pytest.raises(DeviceError):
        run(device, "partial_sum", 1, output.at())
    run(device, "partial_sum", 32, output.at())
    assert output.array.tolist() == [32.0] * 32


# ---- functions of a simdgroup ----


def test_one_lane_is_first_however_the_others_end(device: Device) -> None:
    """Lanes end one after another; who is first must not be asked of those that are left."""
    output = device.put(np.zeros(3, np.uint32))
    run(device, "first_lanes", 21, output.at(), threads=96)
    assert output.array.tolist() == [3, 21, 96]


def test_shuffles(device: Device) -> None:
    values = np.random.default_rng().standard_normal(32).astype(np.float32)
    output = device.empty((7, 32))
    run(device, "shuffles", 13, device.put(values).at(), output.at())
    lanes = np.arange(32)
    assert np.array_equal(output.array[0], values[::-1])
    assert np.array_equal(output.array[1], values[[13] * 32])
    assert np.array_equal(output.array[2], values[lanes ^ 13])
    assert np.array_equal(output.array[3], np.cumsum(values, dtype=np.float32))
    assert np.array_equal(output.array[4:6], [[values.max()] * 32, [values.min()] * 32])
    assert np.isnan(output.array[6]).all()


def test_matrices(device: Device) -> None:
    rng = np.random.default_rng()
    a, b = rng.standard_normal((8, 8)).astype(np.float32), rng.standard_normal((10, 11)).astype(np.float32)
    output = device.empty((8, 8))
    run(device, "matrices", 11, device.put(a).at(), device.put(b).at(), output.at())
    inner = b[2:, 1:9].astype(np.float64)
    np.testing.assert_allclose(output.array, a @ inner + a @ inner.T, atol=1e-5)


# ---- threadgroup memory, atomics, numbers ----


def test_a_barrier_orders_threadgroup_memory(device: Device) -> None:
    output = device.empty((3, 128))
    run(device, "neighbours", 1, output.at(), groups=(3,), threads=128)
    assert np.array_equal(output.array, [[(i + 32) % 128 for i in range(128)]] * 3)
    run(device, "neighbours", 0, output.at(), groups=(3,), threads=128)
    assert np.isnan(output.array).any()


def test_memory_starts_as_nan_everywhere(device: Device) -> None:
    output = device.empty(6)
    assert np.isnan(output.array).all()
    output.array[...] = 0
    run(device, "unwritten", 77, output.at(), groups=(3,), threads=64)
    assert np.isnan(output.array).all()


def test_atomics(device: Device) -> None:
    total, largest = device.put(np.zeros(1, np.uint32)), device.empty(1, np.uint32)
    run(device, "count", 3, total.at(), largest.at(), groups=(2, 3, 5), threads=96)
    assert (total.array[0], largest.array[0]) == (2 * 3 * 5 * 96, 3 * 96)


def test_number_formats(plain_device: Device) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    bits = np.random.default_rng().integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    bits[:6] = 0x3F808000, 0x3F818000, 0x3F7FFFFF, 0x7F7FFFFF, 0x00000001, 0x7F800000  # ties, overflow, subnormal, inf
    numbers = bits.view(np.float32)
    rounded, widened = plain_device.empty(1 << 16, np.uint16), plain_device.empty(1 << 16)
    slices = (plain_device.put(numbers).at(), rounded.at(), plain_device.put(halves).at(), widened.at())
    run(plain_device, "conversions", 1 << 16, *slices, groups=(2048,))
    finite = ~np.isnan(numbers)
    assert np.array_equal(rounded.array[finite], to_bf16(numbers[finite]))
    assert ((rounded.array[~finite] & 0x7FFF) > 0x7F80).all()
    assert np.array_equal(widened.array, halves.view(np.float16).astype(np.float32), equal_nan=True)


# ---- limits ----


@pytest.mark.parametrize(
    ("kernel", "arguments", "groups", "threads", "message"),
    [
        ("modest", args(1), (1,), 96, "96 threads per threadgroup, where a multiple of 32 up to 64 is possible"),
        ("modest", args(1), (1,), 33, "33 threads per threadgroup"),
        ("modest", args(1), (1,), 0, "0 threads per threadgroup"),
        ("modest", args(1), (1, 0), 32, "an empty grid"),
        ("modest", args(1) * 2, (1,), 32, "takes 4 bytes of arguments, not 8"),
        ("greedy", args(1), (1,), 32, "threadgroup memory of 32784 bytes exceeds 32768"),
        ("absent", args(1), (1,), 32, "no kernel named 'absent'"),
    ],
)
def test_a_launch_beyond_a_limit_is_refused(
    plain_device: Device, kernel: str, arguments: bytes, groups: tuple[int, ...], threads: int, message: str
) -> None:
    output = plain_device.empty(128)
    with pytest.raises(DeviceError, match=message), plain_device.commands() as commands:
        commands.dispatch(kernel, arguments, [output.at()], groups, threads)


def test_buffers_must_be_bound_and_aligned(plain_device: Device) -> None:
    buffer = plain_device.empty(16)
    cases = [
        ([buffer.at()], "takes 2 buffers, not 1"),
        ([buffer.at(), Slice(None, 0)], "buffer 2 is not bound"),
        ([buffer.at(), buffer.at(4)], "offset of buffer 2 is not a multiple of 16"),
        ([buffer.at(64), buffer.at()], "buffer 1 starts beyond its end"),
    ]
    for slices, message in cases:
        with pytest.raises(DeviceError, match=message):
            run(plain_device, "read_at", 0, *slices)


def test_a_lower_limit_of_threads_is_kept(library: Path) -> None:
    with Device(library, max_threads=32) as device:
        output = device.empty(64)
        run(device, "modest", 7, output.at(), threads=32)
        with pytest.raises(DeviceError, match="up to 32 is possible"):
            run(device, "modest", 7, output.at(), threads=64)


def test_the_environment_sets_order_and_limit(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (("GPTOSS_EMULATOR_LANES", "sideways"), ("GPTOSS_EMULATOR_THREADS", "100")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with pytest.raises(DeviceError, match=f"{variable} must be .*, not '{value}'"):
                Device(library)


def test_reading_past_a_buffer_stops_the_process(library: Path) -> None:
    script = (
        "import sys, tests.metal.test_emulator as t\n"
        "with t.Device(t.Path(sys.argv[1])) as d:\n"
        "    t.run(d, 'read_at', int(sys.argv[2]), d.empty(24).at(), d.empty(4).at())\n"
    )
    ends = []
    for index in (23, 24):
        command = [sys.executable, "-c", script, str(library), str(index)]
        root = SELF_TEST.parents[3]
        ends.append(
            subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=False).returncode
        )
    assert ends == [0, -11]


# ---- commands ----


def test_a_failed_command_buffer_is_reported_and_the_next_one_runs(plain_device: Device) -> None:
    output = plain_device.empty(32)
    plain_device.lib.emulator_fail_commands(plain_device.handle, 2, b"stopped by the watchdog")
    run(plain_device, "modest", 1, output.at())
    with pytest.raises(DeviceError, match="stopped by the watchdog"):
        run(plain_device, "modest", 2, output.at())
    assert output.array.tolist() == [1.0] * 32
    run(plain_device, "modest", 3, output.at())
    assert output.array.tolist() == [3.0] * 32


def test_commands_are_committed_once(plain_device: Device) -> None:
    output = plain_device.empty(32)
    with plain_device.commands() as commands, pytest.raises(DeviceError, match="not committed yet"):
        plain_device.call("gpu_commands_wait", commands.handle)
    commands = plain_device.commands().__enter__()
    plain_device.call("gpu_commands_commit", commands.handle)
    with pytest.raises(DeviceError, match="committed already"):
        plain_device.call("gpu_commands_commit", commands.handle)
    with pytest.raises(DeviceError, match="the commands are committed"):
        commands.dispatch("modest", args(1), [output.at()])
    for _ in range(2):
        plain_device.call("gpu_commands_wait", commands.handle)
    plain_device.lib.gpu_commands_release(commands.handle)


def test_nothing_stays_behind(library: Path) -> None:
    with Device(library) as device:
        before = device.lib.emulator_live_objects()
        run(device, "modest", 1, device.empty(64).at())
        assert device.lib.emulator_live_objects() > before
    assert device.lib.emulator_live_objects() == before - 1


# ---- translation ----

KERNEL = "kernel void k(constant test_args &args [[buffer(0)]], {}) {{ {} }}"
MIXED_POSITIONS = "uint a [[threadgroup_position_in_grid]], uint3 b [[threadgroups_per_grid]]"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("threadgroup float shared[4];\nvoid f() {}", "a threadgroup variable outside a kernel"),
        ("\n" + KERNEL.format("device float *x", ""), "x.metal:2: a parameter without an attribute: device float"),
        (KERNEL.format("device float *x [[buffer(2)]]", ""), r"buffer\(2\) must be a device pointer, indices in order"),
        (KERNEL.format("float x [[buffer(1)]]", ""), r"buffer\(1\) must be a device pointer"),
        (KERNEL.format("uint x [[thread_index_in_quadgroup]]", ""), "unknown parameter .*quadgroup"),
        ("kernel void k(device float *x [[buffer(0)]]) {}", r"buffer\(0\) must be a constant structure"),
        (KERNEL.format("uint i [[thread_index_in_simdgroup]]", ""), r"and a buffer at buffer\(1\)"),
        (KERNEL.format("device int *x [[buffer(1)]]", "threadgroup int y[2] = {0};"), "variable that cannot be read"),
        (KERNEL.format("device int *x [[buffer(1)]]", "threadgroup int y[2], z;"), "variable that cannot be read"),
        (
            KERNEL.format(f"device int *x [[buffer(1)]], {MIXED_POSITIONS}", ""),
            "position parameters of different types",
        ),
        ("kernel void k(constant test_args &args [[buffer(0)]], ", "no closing"),
    ],
)
def test_what_cannot_be_translated_is_named(source: str, message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        translate(source, "x.metal")


def test_a_product_of_sizes_is_not_a_pointer() -> None:
    body = "threadgroup float x[A * B]; threadgroup float *p = x; const threadgroup float *q = x; p[0] = q[1];"
    text = translate(KERNEL.format("device float *y [[buffer(1)]]", body), "x.metal")
    assert "struct k_threadgroup { alignas(16) float x[A * B]; };" in text
    assert "threadgroup float *p = x; const threadgroup float *q = x;" in text


def test_lines_keep_their_numbers() -> None:
    text = translate(SELF_TEST.read_text(), "self_test.metal")
    original = SELF_TEST.read_text().splitlines()
    translated = text.splitlines()[2:]
    for line, source in enumerate(original):
        if source.endswith(";") and not source.strip().startswith(("threadgroup ", "/*", "*")):
            assert source.split("/*")[0].strip() in translated[line]

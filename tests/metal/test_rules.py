"""The kernels keep the rules of msl_rules.py, and each rule notices what it forbids."""

import re
from pathlib import Path

import pytest

from tests.metal.emulated import KERNELS, Device
from tests.metal.msl_rules import check, defined_functions

SOURCES = sorted([*KERNELS.glob("*.metal"), *KERNELS.glob("*.h")])
MAX_THREADGROUP_BYTES = 16384


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_kernels_keep_the_rules(path: Path) -> None:
    assert list(check(path, defined_functions(SOURCES))) == []


GOOD = """#include <metal_stdlib>
enum : uint { SIZE = 4 };
struct pair {
    float first;
};
inline float twice(thread float &x) {
    return metal::max(2.0f * x, 1.0f);
}
[[max_total_threads_per_threadgroup(256)]]
kernel void k(constant test_args &args [[buffer(0)]], device float *y [[buffer(1)]]) {
    threadgroup float shared[SIZE];
    float x = y[0];
    y[0] = twice(x) * shared[1] + 1e-3f;
}
"""


def broken_rules(tmp_path: Path, source: str) -> list[str]:
    path = tmp_path / "x.metal"
    path.write_text(source)
    return list(check(path, defined_functions([path])))


def test_a_good_file_passes(tmp_path: Path) -> None:
    assert broken_rules(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2.0f * x", "2.0 * x", "x.metal:7: '2.0': a double literal"),
        ("1e-3f", "1e-3", "a double literal"),
        ("metal::max", "max", "'max' is neither ours nor"),
        ("metal::max(2.0f * x, 1.0f)", "metal::pow(x, x)", "'metal::pow' is neither"),
        ("metal::max(2.0f * x, 1.0f)", "twice(x)", "twice calls twice"),
        ("thread float &x", "float &x", "'float &': a pointer without an address space"),
        ("device float *y [", "float *y [", "a pointer without an address space"),
        ("[[max_total_threads_per_threadgroup(256)]]", "", "x.metal:10: k needs max_total_threads"),
        ("(256)", "(1024)", "k needs max_total_threads_per_threadgroup of at most 512"),
        ("float x = y[0];", "float x[4];", "a local array"),
        ("float x = y[0];", "static float x = y[0];", "'static'"),
        ("float x = y[0];", "float x = y[0]; do { } while (x < 1.0f);", "'do'"),
        ("float x = y[0];", "goto end; float x = y[0];", "'goto'"),
        ("float x = y[0];", "double x = y[0];", "'double'"),
        ("float x = y[0];", "float x = y[0]; auto f = [&](float z) { return z; };", "no lambdas"),
        ("float x = y[0];", "float x = std::abs(y[0]);", "'std::'"),
        ("float x = y[0];", "float x = y[0]; metal::atomic_ulong z;", "64-bit atomics"),
        ("enum : uint { SIZE = 4 };", "uint counter = 4;", "x.metal:2: a variable outside functions"),
        ("enum : uint { SIZE = 4 };", "using namespace metal;", "'using namespace'"),
        ("enum : uint { SIZE = 4 };", "// " + "x" * 120, "123 columns"),
        ("enum : uint { SIZE = 4 };", "\n" * 300, "one file is one concern"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    assert any(message in found for found in broken_rules(tmp_path, GOOD.replace(old, new, 1)))


def test_every_kernel_says_how_much_threadgroup_memory_it_takes(plain_device: Device) -> None:
    kernels = {info.name.decode(): info for info in plain_device.kernels()}
    said = {}
    for path in KERNELS.glob("*.metal"):
        for comment, name in re.findall(
            r"/\*((?:(?!\*/).)*)\*/\n\[\[[^\n]*\nkernel void (\w+)", path.read_text(), re.S
        ):
            amount = re.search(r"Threadgroup\s+(?:\*\s+)?memory:[^.]*?(\d+)\s+bytes\.", comment)
            assert amount or re.search(r"No\s+(?:\*\s+)?threadgroup\s+(?:\*\s+)?memory\.", comment), name
            said[name] = int(amount[1]) if amount else 0
    assert said == {name: info.threadgroup_bytes for name, info in kernels.items()}
    assert max(said.values()) <= MAX_THREADGROUP_BYTES


def test_argument_structures_have_fields_of_four_bytes() -> None:
    text = re.sub(r"/\*.*?\*/", "", (KERNELS / "kernel_args.h").read_text(), flags=re.S)
    bodies = re.findall(r"struct \w+_args \{(.*?)\};", text, re.S)
    assert len(bodies) == len(re.findall(r"\bstruct\b", text))
    for body in bodies:
        assert re.fullmatch(r"(?:\s*(?:uint32_t|float) \w+;)+\s*", body)

"""Address spaces and conversions of the kernels, checked by a compiler in which they are part of the types.

clang's C++ for OpenCL has the address spaces of MSL under other names; lint/metal_stdlib translates. Mistakes that g++
cannot see, because on a CPU all memory is one, are errors here.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.metal.emulated import KERNELS

CLANG = shutil.which("clang-19")
LINT = Path(__file__).parent / "lint"
DIALECT = [
    "-x",
    "clcpp",
    "-cl-std=CLC++2021",
    "--target=spir64",
    "-cl-no-stdinc",
    "-nostdinc",
    "-D__METAL_VERSION__=310",
]
# [[buffer(0)]] and its like are unknown to clang; translate.py refuses those that MSL does not know either.
WARNINGS = ["-Wall", "-Wextra", "-Wno-unknown-attributes"]

pytestmark = pytest.mark.skipif(not CLANG, reason="needs clang: apt-get install clang-19 (or make test-metal)")


def messages(source: Path) -> str:
    """What the compiler says of a file; nothing is good."""
    command = [CLANG, *DIALECT, *WARNINGS, f"-I{LINT}", f"-I{KERNELS}", "-fsyntax-only", str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("path", sorted(KERNELS.glob("*.metal")), ids=lambda path: path.name)
def test_the_kernels_are_clean(path: Path) -> None:
    assert messages(path) == ""


GOOD = """#include <metal_stdlib>
#include "kernel_args.h"
inline float sum_of(const threadgroup float *part, uint count) {
    float sum = 0.0f;
    for (uint i = 0; i < count; i++) {
        sum += part[i];
    }
    return sum;
}
[[max_total_threads_per_threadgroup(32)]]
kernel void k(constant topk_args &args [[buffer(0)]], const device float4 *x [[buffer(1)]],
              device float *y [[buffer(2)]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float part[32];
    const float4 mine = x[lane];
    part[lane] = metal::dot(mine, float4(1.0f));
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    y[lane] = sum_of(part, metal::min(args.num_tokens, 32u));
}
"""


def test_a_good_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "x.metal"
    path.write_text(GOOD)
    assert messages(path) == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sum_of(part", "sum_of(y", "no matching function for call to 'sum_of'"),
        ("sum_of(part", "sum_of((threadgroup float *)y", "C-style cast from '__global float"),
        ("sum_of(part", "sum_of(reinterpret_cast<const threadgroup float *>(y)", "not allowed"),
        (
            "const float4 mine = x[lane];",
            "float4 mine = x[lane]; device float4 *p = &mine;",
            "cannot initialize a variable of type '__global float4",
        ),
        (
            "sum += part[i];",
            "thread const float *p = part; sum += p[i];",
            "lvalue of type 'const __local float",
        ),
        ("y[lane] =", "args.num_tokens = 1; y[lane] =", "read-only variable is not assignable"),
        ("y[lane] =", "part[0] = x[0]; y[lane] =", "assigning to 'float' from incompatible type"),
        ("y[lane] =", "const_cast<device float4 *>(x)[0] = mine; x[0] = mine; y[lane] =", "no viable overloaded '='"),
        ("args.num_tokens, 32u", "args.num_tokens, 32", "call to 'min' is ambiguous"),
        (
            "const float4 mine = x[lane];",
            "const uint4 whole = uint4(1); const float4 mine = whole;",
            "no viable conversion",
        ),
        ("float sum = 0.0f;", "float sum = 0.0f; threadgroup float here[2];", "local address space"),
        ("float sum = 0.0f;", "float sum;", "uninitialized"),
        ("i < count", "i < int(count)", "different signs"),
        ("float sum = 0.0f;", "float sum = 0.0f; float *made = new float(1.0f); sum += *made;", "default new"),
        ("float sum = 0.0f;", "float sum = 0.0f; float many[count];", "array size is not a constant"),
        ("float sum = 0.0f;", "float sum = 0.0f; try { sum = 1.0f; } catch (...) { }", "exceptions disabled"),
        (
            "float sum = 0.0f;",
            "struct s { virtual void f(); }; float sum = 0.0f;",
            "virtual functions are not supported",
        ),
        ("metal::dot(", "std::dot(", "undeclared identifier 'std'"),
        ("metal::dot(mine, float4(1.0f))", "mine", "from incompatible type"),
    ],
)
def test_a_mistake_is_found(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = tmp_path / "x.metal"
    path.write_text(GOOD.replace(old, new, 1))
    assert message in messages(path)

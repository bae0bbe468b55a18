"""Rules for the MSL kernels that no compiler here checks: python tests/metal/msl_rules.py gpt_oss/metal/kernels/*.metal

Apple's compiler is out of reach, so the kernels keep to what its documents allow without doubt (MSL 1.5.4 lists what
C++ may not do) and to our own limits: library functions from an allow-list, with their namespace, every pointer with an
address space, every kernel with a limit of threads, float literals, no local arrays, files one can read at a sitting.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gpt_oss.metal.emulator.translate import kernels, without_comments

MAX_LINES = 300
MAX_COLUMNS = 120
MAX_THREADS = 512

FORBIDDEN = {
    r"\bgoto\b": "goto does not exist in MSL",
    r"\bdo\b": "do loops wrap around when a lane has nothing to do; use for",
    r"\bwhile\b": "use for, whose bound is visible",
    r"\bstatic\b": "MSL has no static locals, and helpers are inline",
    r"\b(?:virtual|new|delete|try|catch|throw|dynamic_cast|typeid|thread_local)\b": "not in MSL",
    r"\bdouble\b": "MSL has no double",
    r"\bstd::": "MSL has no std",
    r"\[[&=\w, ]*\]\s*\([^)]*\)\s*\{": "MSL 3.1 has no lambdas",
    r"\(\s*\*\s*\w+\s*\)\s*\(": "MSL has no function pointers",
    r"\batomic_u?long\b": "64-bit atomics do not exist on all Apple GPUs",
    r"\busing\s+namespace\b": "say metal:: where it is meant",
    r"(?<![\w.])(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?(?![\w.])": "a double literal; add f",
}

TYPES = r"(?:float|bfloat|half|int|uint|uchar|ushort|ulong|bool)[234]?|\w+_args|tile_sums|query_state"

LIBRARY = {
    f"metal::{name}"
    for name in (
        *("ceil", "clamp", "dot", "fma", "isfinite", "isnan", "max", "min", "precise::exp", "precise::rsqrt"),
        *("simd_sum", "simd_max", "simd_min", "simdgroup_barrier", "threadgroup_barrier"),
        *("simdgroup_float8x8", "simdgroup_load", "simdgroup_store", "simdgroup_multiply_accumulate"),
    )
}
"""What kernels may call. Everything is documented for MSL 3.1 and has a test in the emulator."""

BUILT_IN = {"if", "for", "switch", "return", "sizeof", "as_type", "reinterpret_cast", "static_cast", "defined"}


def check(path: Path, helpers: set[str]) -> Iterator[str]:
    """Each broken rule as file:line: sentence. `helpers`: functions of our own that may be called."""
    source = path.read_text()
    text = without_comments(source)

    def at(offset: int, message: str) -> str:
        return f"{path}:{text.count(chr(10), 0, offset) + 1}: {message}"

    lines = source.splitlines()
    if len(lines) > MAX_LINES:
        yield at(0, f"{len(lines)} lines; one file is one concern of at most {MAX_LINES}")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS:
            yield f"{path}:{number}: {len(line)} columns; at most {MAX_COLUMNS}"
    for pattern, reason in FORBIDDEN.items():
        for match in re.finditer(pattern, text):
            yield at(match.start(), f"'{' '.join(match[0].split())}': {reason}")
    for match in re.finditer(rf"((?:\b\w+\s+)*)\b(?:{TYPES})\s*[*&]\s*(?=\w|>)", text):
        if not re.search(r"\b(?:device|constant|threadgroup|thread)\b", match[1]):
            yield at(match.start(), f"'{match[0].strip()}': a pointer without an address space")
    for match in re.finditer(rf"(?<=[;{{}}])\s*(?:const\s+)?(?:{TYPES})\s+\w+\s*\[", text):
        yield at(match.end(), "a local array; indexed at run time it would be spilled to memory")
    for match in re.finditer(r"(?:\bmetal::)?(?:\bprecise::)?\b\w+(?=\s*(?:<[\w:\s*]*>)?\()", text):
        name = match[0]
        known = name in LIBRARY or name in BUILT_IN or name in helpers or re.fullmatch(TYPES, name)
        is_attribute = text[: match.start()].rstrip().endswith("[[")
        if not known and not is_attribute:
            yield at(match.start(), f"'{name}' is neither ours nor on the list of library functions")
    yield from (at(*found) for found in _program_scope(text))
    yield from (at(*found) for found in _recursion(text))
    for kernel in kernels(text, str(path)):
        if not kernel.max_threads.isdigit() or not 32 <= int(kernel.max_threads) <= MAX_THREADS:
            yield at(kernel.start, f"{kernel.name} needs max_total_threads_per_threadgroup of at most {MAX_THREADS}")


def defined_functions(paths: list[Path]) -> set[str]:
    """Names of the inline helpers and kernels of these files."""
    return {match[2] for path in paths for match in _functions(without_comments(path.read_text()))}


def _functions(text: str) -> Iterator[re.Match[str]]:
    return re.finditer(r"^(inline|kernel)\s+[\w:]+\s+(\w+)\s*\(", text, re.M)


def _program_scope(text: str) -> Iterator[tuple[int, str]]:
    """Variables outside functions: enumerations are constants without an address space."""
    flat = re.sub(r"^\s*#.*$", lambda m: " " * len(m[0]), text, flags=re.M)
    depth, start = 0, 0
    for offset, character in enumerate(flat):
        depth += (character in "{(") - (character in "})")
        if depth == 0 and character in ";}":
            statement = flat[start:offset].strip()
            if character == ";" and statement and not re.match(r"(?:struct|enum|constant)\b", statement):
                yield start + len(flat[start:offset]) - len(flat[start:offset].lstrip()), "a variable outside functions"
            start = (
                offset + 1 if character == ";" or not re.match(r"\s*(?:struct|enum)\b", flat[start:offset]) else start
            )


def _recursion(text: str) -> Iterator[tuple[int, str]]:
    """A function may only call functions defined before it, which rules out every cycle."""
    functions = list(_functions(text))
    for index, function in enumerate(functions):
        end = functions[index + 1].start() if index + 1 < len(functions) else len(text)
        for later in functions[index:]:
            if re.search(rf"\b{later[2]}\s*\(", text[function.end() : end]):
                yield function.start(), f"{function[2]} calls {later[2]}, which is not defined before it"


def main() -> int:
    paths = [Path(argument) for argument in sys.argv[1:]]
    helpers = defined_functions([header for path in paths for header in path.parent.glob("*.h")] + paths)
    found = [message for path in paths for message in check(path, helpers)]
    print("\n".join(found) or f"{len(paths)} files keep the rules")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

"""One MSL source file in, one C++ file out, for the emulated device.

    python translate.py kernels/rmsnorm.metal rmsnorm.cpp

MSL is C++14 with three things that a C++ compiler lacks, and only those are rewritten; every line keeps its number:

- `[[attributes]]` of kernels and their parameters go, and become a function that calls the kernel with its arguments;
- `threadgroup T name[n];` inside a kernel becomes a reference into the threadgroup's memory;
- each kernel is registered with its limits: threads, threadgroup bytes, argument size, buffers and their alignment.

Address spaces and the library are the business of the shim headers beside this file. Kernels keep to the form that
device.h can launch: argument structure at [[buffer(0)]], device pointers at [[buffer(1)]] onwards without a gap, and
one-dimensional threadgroups. Whatever does not fit is an error with file and line.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

POSITIONS = {
    "threadgroup_position_in_grid": "emu::threadgroup_position()",
    "threadgroups_per_grid": "emu::threadgroup_count()",
}
"""Built-in parameters with up to three components; all of a kernel must have one type (MSL 5.2.3.6)."""

INDICES = {
    "thread_index_in_threadgroup": "emu::thread_index()",
    "thread_index_in_simdgroup": "emu::thread_index() % 32",
    "simdgroup_index_in_threadgroup": "emu::thread_index() / 32",
    "simdgroups_per_threadgroup": "emu::thread_count() / 32",
}
"""Built-in parameters that are always a number."""

_KERNEL = re.compile(r"(?:\[\[max_total_threads_per_threadgroup\((\w+)\)\]\]\s*)?\bkernel\s+void\s+(\w+)\s*\(")
_PARAMETER = re.compile(r"(?P<type>.+?)\s*\b(?P<name>\w+)\s*\[\[(?P<attribute>\w+)(?:\((?P<index>\d+)\))?\]\]", re.S)
_THREADGROUP = re.compile(r"(?<=[;{}])(?P<space>\s*)threadgroup\s+(?P<rest>[^;]*);")
_VARIABLE = re.compile(r"\bthreadgroup\b(?!\s+(?:const\s+)?[\w:]+\s*[*&])[^;]*")
"""What `threadgroup` begins unless it belongs to a pointer or a reference."""
_ARRAY = re.compile(r"(?P<type>[\w:]+)\s+(?P<name>\w+)(?P<dimensions>(?:\s*\[[^\]]+\])*)")


class TranslationError(Exception):
    """The source is not MSL that this translator knows; the text says where and why."""


@dataclass(frozen=True)
class Kernel:
    """A kernel of a source file. Offsets are characters of the text without comments."""

    name: str
    max_threads: str  # as written; empty when the attribute is missing
    start: int  # of the attribute or `kernel`
    parameters: tuple[int, int]  # inside the parentheses
    body: tuple[int, int]  # inside the braces
    line: int


def translate(source: str, path: str) -> str:
    """The C++ text of an MSL file. `path` is what diagnostics and debuggers will show."""
    text = without_comments(source)
    found = kernels(text, path)
    pieces, end = [], 0
    registrations = []
    for kernel in found:
        call = _call(text, kernel, path)
        members, body = _threadgroup_memory(text, kernel, path)
        stripped = re.sub(r"\[\[[^\]]*\]\]", "", text[kernel.parameters[0] : kernel.parameters[1]])
        pieces += [
            text[end : kernel.start],
            f"struct {kernel.name}_threadgroup {{ {members} }}; ",
            re.sub(r"[^\n]", "", text[kernel.start : kernel.parameters[0]]),
            f"static void {kernel.name}({stripped}",
            text[kernel.parameters[1] : kernel.body[0]],
            body,
        ]
        end = kernel.body[1]
        registrations.append(call + _registration(kernel, bool(members)))
    pieces.append(text[end:])
    return f'#include <metal_stdlib>\n#line 1 "{path}"\n{"".join(pieces)}\n#line 1 "{path} (generated)"\n' + "\n".join(
        registrations
    )


def without_comments(source: str) -> str:
    """The text with each comment replaced by spaces, so that offsets and lines stay."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), source, flags=re.S)


def kernels(text: str, path: str) -> list[Kernel]:
    """The kernels of a text without comments, in order."""
    found, bodies = [], []
    for match in _KERNEL.finditer(text):
        parameters_end = _closing(text, match.end() - 1, "()")
        brace = text.index("{", parameters_end)
        body_end = _closing(text, brace, "{}")
        line = text.count("\n", 0, match.start()) + 1
        spans = ((match.end(), parameters_end), (brace + 1, body_end))
        found.append(Kernel(match[2], match[1] or "", match.start(), *spans, line))
        bodies.append((brace, body_end))
    for start, end in _gaps(bodies, len(text)):
        variable = _VARIABLE.search(text, start, end)
        if variable:
            raise _error(text, variable.start(), path, "a threadgroup variable outside a kernel")
    if text.count("kernel void") != len(found):
        raise _error(text, 0, path, "a kernel that cannot be read")
    return found


def parameters(text: str, kernel: Kernel, path: str) -> list[dict[str, str]]:
    """Type, name, attribute and index (empty for none) of each parameter."""
    found = []
    for parameter in text[slice(*kernel.parameters)].split(","):
        match = _PARAMETER.fullmatch(parameter.strip())
        if not match:
            raise _error(text, kernel.start, path, f"a parameter without an attribute: {' '.join(parameter.split())}")
        found.append({key: value or "" for key, value in match.groupdict().items()})
    return found


def _call(text: str, kernel: Kernel, path: str) -> str:
    """The function that runs one thread, and the alignments of the buffers it takes from the launch."""
    arguments: list[str] = []
    alignments: list[str] = []
    position_types: set[str] = set()
    args_type = ""
    for parameter in parameters(text, kernel, path):
        kind, attribute = parameter["type"], parameter["attribute"]
        if attribute == "buffer" and parameter["index"] == "0":
            match = re.fullmatch(r"constant\s+(\w+)\s*&", kind)
            if not match:
                raise _error(text, kernel.start, path, f"{kernel.name}: buffer(0) must be a constant structure &")
            args_type = match[1]
            arguments.append(f"*static_cast<const {args_type} *>(launch.args)")
        elif attribute == "buffer":
            pointer = re.fullmatch(r"((?:const\s+)?device\s+(?:const\s+)?[\w:]+)\s*\*", kind)
            if not pointer or int(parameter["index"]) != len(alignments) + 1:
                message = f"{kernel.name}: buffer({parameter['index']}) must be a device pointer, indices in order"
                raise _error(text, kernel.start, path, message)
            arguments.append(f"static_cast<{kind}>(launch.buffers[{len(alignments)}])")
            alignments.append(f"alignof({pointer[1]})")
        elif attribute in POSITIONS:
            position_types.add(kind)
            value = POSITIONS[attribute]
            components = {"uint": f"{value}.x", "uint2": "uint2({0}.x, {0}.y)", "uint3": "uint3({0}.x, {0}.y, {0}.z)"}
            arguments.append(components[kind].format(value))
        elif attribute in INDICES and kind == "uint":
            arguments.append(INDICES[attribute])
        else:
            raise _error(text, kernel.start, path, f"{kernel.name}: unknown parameter [[{attribute}]] of type {kind}")
    if not args_type or not alignments:
        raise _error(text, kernel.start, path, f"{kernel.name} needs arguments at buffer(0) and a buffer at buffer(1)")
    if len(position_types) > 1:
        raise _error(text, kernel.start, path, f"{kernel.name}: position parameters of different types")
    return (
        f"static void {kernel.name}_run(const emu::Launch &launch) {{ {kernel.name}({', '.join(arguments)}); }}\n"
        f"static const size_t {kernel.name}_alignments[] = {{{', '.join(alignments)}}};\n"
        f"static const size_t {kernel.name}_args_bytes = sizeof({args_type});\n"
    )


def _registration(kernel: Kernel, has_threadgroup_memory: bool) -> str:
    name = kernel.name
    limits = [kernel.max_threads or "0", f"sizeof({name}_threadgroup)" if has_threadgroup_memory else "0"]
    buffers = [f"sizeof({name}_alignments) / sizeof(size_t)", f"{name}_alignments"]
    fields = [f'"{name}"', f"{name}_run", *limits, f"{name}_args_bytes", *buffers, "nullptr"]
    return (
        f"static emu::Kernel {name}_kernel = {{{', '.join(fields)}}};\n"
        f"static const emu::Registration {name}_registration({name}_kernel);\n"
    )


def _threadgroup_memory(text: str, kernel: Kernel, path: str) -> tuple[str, str]:
    """Members of the structure that holds the kernel's threadgroup variables, and the body that refers to them."""
    members = []

    def refer(match: re.Match[str]) -> str:
        variable = _ARRAY.fullmatch(match["rest"].strip())
        if not variable:
            return match[0]
        members.append(f"alignas(16) {variable['type']} {variable['name']}{variable['dimensions']};")
        memory = f"static_cast<{kernel.name}_threadgroup *>(emu::threadgroup_memory())"
        return f"{match['space']}auto &{variable['name']} = {memory}->{variable['name']};"

    body = _THREADGROUP.sub(refer, "{" + text[slice(*kernel.body)])
    unread = _VARIABLE.search(body)
    if unread:
        raise _error(text, text.index(unread[0]), path, f"a threadgroup variable that cannot be read: {unread[0]}")
    return " ".join(members), body[1:]


def _gaps(spans: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """What lies between ordered spans, from 0 to length."""
    edges = [0, *(edge for span in spans for edge in span), length]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _closing(text: str, start: int, pair: str) -> int:
    depth = 0
    for offset in range(start, len(text)):
        depth += (text[offset] == pair[0]) - (text[offset] == pair[1])
        if not depth:
            return offset
    raise TranslationError(f"no closing {pair[1]} for the {pair[0]} in line {text.count(chr(10), 0, start) + 1}")


def _error(text: str, offset: int, path: str, message: str) -> TranslationError:
    return TranslationError(f"{path}:{text.count(chr(10), 0, offset) + 1}: {message}")


def main() -> None:
    """Translate the file named first into the one named second."""
    source, target = map(Path, sys.argv[1:])
    try:
        translated = translate(source.read_text(), str(source))
    except TranslationError as error:
        sys.exit(str(error))
    target.write_text(translated)


if __name__ == "__main__":
    main()

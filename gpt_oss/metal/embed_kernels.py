"""The kernels as bytes in a C source file: MSL text that Metal compiles at run time, or a compiled library.

    python embed_kernels.py kernels/*.metal kernels.metal           one MSL text of all sources
    python embed_kernels.py kernels.metal kernels.generated.c       gptoss_kernels[] and gptoss_kernels_bytes
    python embed_kernels.py kernels.metallib kernels.generated.c    the same of what Xcode's compiler made of it

The text is the sources one after another with their own headers included once; `#include <...>` stays. A Mac without
Xcode has no MSL compiler, but every Mac compiles MSL at run time.
"""

import re
import sys
from pathlib import Path

_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)


def flatten(sources: list[Path]) -> str:
    """One MSL text; `#line` names the file and line of each part in the compiler's messages."""
    included: set[Path] = set()

    def text_of(path: Path) -> str:
        if path in included:
            return ""
        included.add(path)
        text = path.read_text()
        parts, start = [f'#line 1 "{path.name}"\n'], 0
        for match in _INCLUDE.finditer(text):
            line = text.count("\n", 0, match.end()) + 1
            parts += [text[start : match.start()], text_of(path.parent / match[1]), f'#line {line} "{path.name}"\n']
            start = match.end()
        return "".join([*parts, text[start:]])

    return "".join(text_of(source) for source in sources)


def c_source(data: bytes) -> str:
    """C that defines the bytes, with a NUL behind them that does not count."""
    rows = [", ".join(map(str, data[i : i + 24])) for i in range(0, len(data), 24)]
    return (
        "#include <stddef.h>\n"
        f"const size_t gptoss_kernels_bytes = {len(data)};\n"
        "const unsigned char gptoss_kernels[] = {\n    " + ",\n    ".join([*rows, "0"]) + "};\n"
    )


def main() -> None:
    """Sources in, one C or Objective-C file out."""
    *sources, target = map(Path, sys.argv[1:])
    if target.suffix == ".c":
        target.write_text(c_source(sources[0].read_bytes()))
    else:
        target.write_text(flatten(sources))


if __name__ == "__main__":
    main()

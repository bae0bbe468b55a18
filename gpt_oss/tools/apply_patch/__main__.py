"""`python -m gpt_oss.tools.apply_patch [--root DIR] [--dry-run] [PATCH]`; PATCH is read from stdin if left out.

Prints the unified diff of what changed. Exit status 0, or 1 with one sentence on stderr and no file changed.
"""

import argparse
import sys
from collections.abc import Sequence

from gpt_oss.errors import DiffError
from gpt_oss.tools.apply_patch import apply_patch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m gpt_oss.tools.apply_patch", description="Apply a patch.")
    parser.add_argument("patch", nargs="?", help="the patch itself; read from standard input when left out")
    parser.add_argument("--root", default=".", metavar="DIR", help="folder the paths are relative to (default: .)")
    parser.add_argument("--dry-run", action="store_true", help="print what would change, change nothing")
    options = parser.parse_args(arguments)
    try:
        text = options.patch if options.patch is not None else _standard_input()
        diff = apply_patch(text, root=options.root, dry_run=options.dry_run)
    except DiffError as error:
        sys.stderr.write(f"apply_patch: {error}\n")
        return 1
    sys.stdout.buffer.write(diff.encode())  # not as text: a diff keeps its carriage returns
    return 0


def _standard_input() -> str:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DiffError(f"the patch on standard input is not UTF-8: {error}") from error
    if not text.strip():
        raise DiffError("standard input is empty; pass the patch there or as an argument")
    return text


if __name__ == "__main__":
    raise SystemExit(main())

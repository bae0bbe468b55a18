"""Folders as dictionaries: what is in them before a patch and after it."""

import os
from pathlib import Path

Snapshot = dict[str, tuple[bytes | None, int]]


def plant(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write `files` (path -> text or bytes) below `root`, which is created."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def harvest(root: Path) -> dict[str, str]:
    """Text of every file below `root`."""
    return {path.relative_to(root).as_posix(): path.read_bytes().decode() for path in root.rglob("*") if path.is_file()}


def snapshot(root: Path) -> Snapshot:
    """Bytes (None for a folder) and mode of everything below `root`, so that any trace shows."""
    return {
        path.relative_to(root).as_posix(): (
            path.read_bytes() if path.is_file() and not path.is_symlink() else None,
            os.lstat(path).st_mode,
        )
        for path in root.rglob("*")
    }


def patch(*lines: str) -> str:
    """Join lines into a patch, sentinels included."""
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch", ""])

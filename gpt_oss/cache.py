"""The folder where gpt_oss keeps all that it leaves on a machine, and the command that shows and clears it: models
that it unpacked or converted, the browser's indexes, the messages typed in the chat.

In: the environment. Out: the folder, what is in it and how large. Whatever the package puts there has a name
that begins with `gpt-oss-`; nothing else is shown or deleted, because a user may name any folder.

    gpt-oss cache [--clear]
"""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt_oss.command_line import run_command
from gpt_oss.errors import CacheError

VARIABLE = "GPT_OSS_CACHE"
ENTRY_PREFIX = "gpt-oss-"


@dataclass(frozen=True)
class CacheEntry:
    """A file or folder directly in the cache folder and the bytes of everything in it."""

    path: Path
    nbytes: int


def cache_directory(environment: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """The cache folder of this user; it need not exist.

    `GPT_OSS_CACHE` names it; without it, `gpt-oss` in the place that the system has for caches:
    `XDG_CACHE_HOME` or `~/.cache`, on macOS `~/Library/Caches`, on Windows `%LOCALAPPDATA%`.
    """
    environment = os.environ if environment is None else environment
    if named := environment.get(VARIABLE):
        return Path(os.path.abspath(os.path.expanduser(named)))
    if platform == "win32" and (local := environment.get("LOCALAPPDATA")):
        return Path(local) / "gpt-oss" / "Cache"
    if platform == "darwin":
        return _home() / "Library" / "Caches" / "gpt-oss"
    base = environment.get("XDG_CACHE_HOME", "")
    # A relative path in this variable is invalid and to be ignored (XDG Base Directory Specification 0.8).
    return (Path(base) if os.path.isabs(base) else _home() / ".cache") / "gpt-oss"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise CacheError(f"this user has no home folder; set {VARIABLE} to a writable folder") from None


def cache_entries(directory: Path) -> list[CacheEntry]:
    """What gpt_oss keeps in the cache folder, largest first; nothing if there is no such folder."""
    try:
        paths = [path for path in directory.iterdir() if path.name.startswith(ENTRY_PREFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CacheError(f"{directory}: cannot be read ({error.strerror}); set {VARIABLE}") from error
    entries = [CacheEntry(path, _nbytes(path)) for path in paths]
    return sorted(entries, key=lambda entry: (-entry.nbytes, entry.path.name))


def _nbytes(path: Path) -> int:
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        return sum(_nbytes(inner) for inner in path.iterdir())
    except FileNotFoundError:
        return 0  # another process has just finished or removed it


def clear_cache(directory: Path) -> int:
    """Delete what gpt_oss keeps in the cache folder and return the bytes that were freed."""
    freed = 0
    for entry in cache_entries(directory):
        try:
            if entry.path.is_dir() and not entry.path.is_symlink():
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CacheError(f"{entry.path}: cannot be deleted ({error.strerror}); is it in use?") from error
        freed += entry.nbytes
    return freed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="gpt-oss cache",
        description=f"Show the cache folder and what lies in it. Set {VARIABLE} to use another folder.",
    )
    parser.add_argument("--clear", action="store_true", help="delete all of it, the chat's history too")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _clear() if options.clear else _show())


def _clear() -> None:
    directory = cache_directory()
    sys.stdout.write(f"{directory}: freed {clear_cache(directory) / 1e6:.1f} MB\n")


def _show() -> None:
    directory = cache_directory()
    entries = cache_entries(directory)
    sys.stdout.write(f"{directory}: {sum(entry.nbytes for entry in entries) / 1e6:.1f} MB\n")
    for entry in entries:
        sys.stdout.write(f"  {entry.nbytes / 1e6:10.1f} MB  {entry.path.name}\n")


if __name__ == "__main__":
    sys.exit(main())

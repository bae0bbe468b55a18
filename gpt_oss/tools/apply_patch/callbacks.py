"""Files behind the caller's own functions, for editors and tests that keep files elsewhere than on disk.

A function that is not given falls back to the disk below `root`. Functions get the path as the patch writes
it, below `root` when one is given. They may raise anything; whatever they raise, what was done before is
undone.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from gpt_oss.errors import DiffError
from gpt_oss.tools.apply_patch.disk import Disk
from gpt_oss.tools.apply_patch.paths import Path, shown
from gpt_oss.tools.apply_patch.plan import Change

OpenFunction = Callable[[str], str]
WriteFunction = Callable[[str, str], object]
RemoveFunction = Callable[[str], object]


class Callbacks:
    """Files reached through functions: a missing file is a FileNotFoundError or KeyError of `open_fn`."""

    def __init__(
        self,
        root: str | os.PathLike[str] | None,
        open_fn: OpenFunction | None,
        write_fn: WriteFunction | None,
        remove_fn: RemoveFunction | None,
    ):
        self._root: Final = root
        self._open_fn: Final = open_fn
        self._write_fn: Final = write_fn
        self._remove_fn: Final = remove_fn
        self._disk: Final = Disk(root or os.curdir) if None in (open_fn, write_fn, remove_fn) else None

    def read(self, path: Path) -> str | None:
        """Text of the file at `path`, None when there is none."""
        if self._open_fn is None:
            return self._on_disk().read(path)
        try:
            text = self._open_fn(self._name(path))
        except (FileNotFoundError, KeyError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise DiffError(f"{shown(path)}: cannot be read: {error}") from error
        if "\0" in text:
            raise DiffError(f"{shown(path)}: this is a binary file; only text can be patched")
        return text

    def write(self, changes: Sequence[Change]) -> None:
        """Make all `changes`, texts before removals, or undo what was made and raise DiffError."""
        ordered = sorted(changes, key=lambda change: change.after is None)
        for count, change in enumerate(ordered, 1):
            try:
                self._put(change)
            except BaseException as error:
                left = [shown(done.path) for done in reversed(ordered[:count]) if not self._undone(done)]
                if not isinstance(error, Exception):
                    raise
                outcome = f"could not be restored: {', '.join(left)}" if left else "no file was changed"
                raise DiffError(f"{shown(change.path)}: {error or type(error).__name__}; {outcome}") from error

    def _put(self, change: Change) -> None:
        if change.after is None and self._remove_fn is not None:
            self._remove_fn(self._name(change.path))
        elif change.after is not None and self._write_fn is not None:
            self._write_fn(self._name(change.path), change.after)
        else:
            self._on_disk().write([change])

    def _undone(self, change: Change) -> bool:
        """Bring back the old text, on disk by our own hand; whether that worked."""
        try:
            if self._open_fn is None:
                self._on_disk().restore(change.path, change.before)
            else:
                self._put(replace(change, before=change.after, after=change.before))
        except Exception as error:  # the caller's function: any exception is possible
            return change.before is None and isinstance(error, (FileNotFoundError, KeyError))
        return True

    def _name(self, path: Path) -> str:
        return os.path.join(self._root or "", *path)

    def _on_disk(self) -> Disk:
        assert self._disk is not None, "only a function that is missing is replaced by the disk"
        return self._disk

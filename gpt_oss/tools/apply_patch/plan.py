"""Sections and the files they name -> what every file must be in the end. Reads, never writes.

The sections act in order on a picture of the files, so that several sections may name one file. A path is a
tuple of names below the root, a file is its text or None where there is none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gpt_oss.errors import DiffError
from gpt_oss.tools.apply_patch.parse import AddFile, DeleteFile, Section, UpdateFile
from gpt_oss.tools.apply_patch.paths import Path, path_below_root
from gpt_oss.tools.apply_patch.update import update_text

Reader = Callable[[Path], str | None]


@dataclass(frozen=True)
class Change:
    """One file before and after the patch (None: no file).

    `like` is the file whose mode bits the new one gets: itself, or the one it was moved from.
    """

    path: Path
    before: str | None
    after: str | None
    like: Path


def plan_changes(sections: Sequence[Section], read: Reader) -> list[Change]:
    """Apply `sections` in thought; returns the files that change, raises DiffError if one cannot apply."""
    picture = _Picture(read)
    for section in sections:
        if isinstance(section, AddFile):
            picture.add(section)
        elif isinstance(section, DeleteFile):
            picture.delete(section)
        else:
            picture.update(section)
    return picture.changes()


class _Picture:
    """The files as the sections so far have left them."""

    def __init__(self, read: Reader):
        self._read: Final = read
        self._before: dict[Path, str | None] = {}
        self._after: dict[Path, str | None] = {}
        self._came_from: dict[Path, Path] = {}  # where the file now at a path was when it was read

    def add(self, section: AddFile) -> None:
        path = self._look_at(section.path)
        if self._after[path] is not None:
            raise DiffError(f"{section.path}: cannot be added, the file exists; use '*** Update File:'")
        self._after[path] = section.text
        self._came_from.pop(path, None)

    def delete(self, section: DeleteFile) -> None:
        path = self._look_at(section.path)
        self._existing(path, section.path, "deleted")
        self._after[path] = None

    def update(self, section: UpdateFile) -> None:
        path = self._look_at(section.path)
        text = self._existing(path, section.path, "updated")
        self._after[path] = update_text(text, section.hunks, section.path)
        if section.move_to is not None:
            self._move(path, section.path, section.move_to)

    def _move(self, path: Path, name: str, new_name: str) -> None:
        target = self._look_at(new_name)
        if target == path:
            return
        if self._after[target] is not None:
            raise DiffError(f"{name}: cannot be moved to {new_name}, that file exists")
        self._after[target], self._after[path] = self._after[path], None
        self._came_from.pop(target, None)
        if path in self._came_from:
            self._came_from[target] = self._came_from.pop(path)

    def _look_at(self, name: str) -> Path:
        path = path_below_root(name)
        if path not in self._before:
            self._before[path] = self._after[path] = self._read(path)
            self._came_from[path] = path
        return path

    def _existing(self, path: Path, name: str, verb: str) -> str:
        text = self._after[path]
        if text is None:
            raise DiffError(f"{name}: cannot be {verb}, there is no such file below the root")
        return text

    def changes(self) -> list[Change]:
        everything = (
            Change(path, before, self._after[path], self._came_from.get(path, path))
            for path, before in self._before.items()
        )
        return [
            change
            for change in everything
            if change.before != change.after or (change.after is not None and change.like != change.path)
        ]

"""Files on disk below one root: read as text, changed all together or not at all.

A change is written beside the file first, so that a full disk or a missing right shows before anything has
changed; then names are switched one by one, each step with its undoing. After a failure every file has its
old bytes, its old mode and no neighbour that was not there. What cannot be undone is a machine that stops
between two renames.
"""

import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from gpt_oss.errors import DiffError
from gpt_oss.tools.apply_patch.folder import Folder
from gpt_oss.tools.apply_patch.paths import Path, shown
from gpt_oss.tools.apply_patch.plan import Change

_log = logging.getLogger(__name__)


class Disk:
    """The files below `root`, which must be an existing folder."""

    def __init__(self, root: str | os.PathLike[str]):
        self._root: Final = os.fspath(root)
        if not os.path.isdir(self._root):
            raise DiffError(f"{self._root}: the root of a patch must be an existing folder")
        self._seen: dict[Path, os.stat_result | None] = {}

    def read(self, path: Path) -> str | None:
        """Text of the file at `path`, None when there is none; DiffError for what is not a text file."""
        try:
            with ExitStack() as opened:
                folder = opened.enter_context(Folder.root(self._root))
                for name in path[:-1]:
                    folder = opened.enter_context(folder.enter(name))
                folder.stat(path[-1])
                data, found = folder.read(path[-1])
        except FileNotFoundError:
            self._seen[path] = None
            return None
        except OSError as error:
            raise DiffError(f"{shown(path)}: cannot be read: {error.strerror}") from error
        self._note(path, found)
        return _text(data, path)

    def restore(self, path: Path, text: str | None) -> None:
        """Give `path` the text it had when it was read, whatever has become of it since; raises OSError."""
        with ExitStack() as opened:
            folder = opened.enter_context(Folder.root(self._root))
            for name in path[:-1]:
                folder = opened.enter_context(folder.enter(name))
            if text is None:
                folder.remove(path[-1])
                return
            temporary = _temporary_name()
            folder.write_new(temporary, text.encode(), self._seen.get(path))
            folder.rename(temporary, path[-1])

    def _note(self, path: Path, found: os.stat_result) -> None:
        """Remember the state in which a file was read; refuse two names of one file on a case-blind disk."""
        for other, known in self._seen.items():
            if known and other != path and os.path.samestat(known, found) and found.st_nlink == 1:
                raise DiffError(f"{shown(path)} and {shown(other)} are the same file; use one name for it")
        self._seen[path] = found

    def write(self, changes: Sequence[Change]) -> None:
        """Make all `changes`, or none and raise DiffError; what was read before must still be so."""
        with ExitStack() as opened:
            transaction = _Transaction(self._root, self._seen, opened)
            try:
                transaction.run(changes)
            except BaseException as error:
                transaction.undo()
                if isinstance(error, OSError):
                    raise DiffError(f"{transaction.at_work_on}: {error.strerror}; no file was changed") from error
                raise
            transaction.finish()


def _text(data: bytes, path: Path) -> str:
    if b"\0" in data:
        raise DiffError(f"{shown(path)}: this is a binary file; only text can be patched")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DiffError(f"{shown(path)}: this is not UTF-8 text ({error.reason} at byte {error.start})") from error


class _Transaction:
    """Steps that change names, the way back from each, and what is to be cleaned after the last."""

    def __init__(self, root: str, seen: dict[Path, os.stat_result | None], opened: ExitStack):
        self._root = root
        self._folders: dict[Path, Folder] = {}
        self._seen = seen
        self._opened = opened
        self._way_back = ExitStack()
        self._cleaning = ExitStack()
        self.at_work_on = ""

    def run(self, changes: Sequence[Change]) -> None:
        staged = [(change, self._stage(change)) for change in changes]
        for change, temporary in staged:
            self._switch(change, temporary)

    def undo(self) -> None:
        """Go all the way back, also past a step that fails."""
        try:
            self._way_back.close()
        except OSError as error:
            raise DiffError(f"{self.at_work_on}: failed, and so did undoing it: {error}") from error

    def finish(self) -> None:
        self._way_back.pop_all()
        try:
            self._cleaning.close()
        except OSError as error:
            _log.warning("a temporary file of a patch could not be removed: %s", error)

    def _stage(self, change: Change) -> str:
        """Write the new text beside the file, under a name that is returned; empty for a removal."""
        self.at_work_on = shown(change.path)
        if change.after is None:
            return ""
        folder = self._folder(change.path[:-1])
        temporary = _temporary_name()
        self._way_back.callback(folder.remove, temporary)
        folder.write_new(temporary, change.after.encode(), self._seen.get(change.like))
        return temporary

    def _folder(self, path: Path) -> Folder:
        """Open the folder `path`, creating what is missing of it."""
        if path not in self._folders and not path:
            self._folders[path] = self._opened.enter_context(Folder.root(self._root))
        elif path not in self._folders:
            parent, name = self._folder(path[:-1]), path[-1]
            if parent.stat(name) is None:
                parent.make_folder(name)
                self._way_back.callback(parent.remove_folder, name)
            self._folders[path] = self._opened.enter_context(parent.enter(name))
        return self._folders[path]

    def _switch(self, change: Change, temporary: str) -> None:
        self.at_work_on = shown(change.path)
        folder, name = self._folder(change.path[:-1]), change.path[-1]
        self._check_unchanged(change, folder.stat(name))
        if change.before is None:
            self._put(folder, temporary, name)
            return
        backup = _temporary_name()
        self._way_back.callback(_restore, folder, backup, name)
        if change.after is None:
            folder.rename(name, backup)
        else:
            self._back_up(folder, name, backup)
            folder.rename(temporary, name)
        self._cleaning.callback(folder.remove, backup)

    def _check_unchanged(self, change: Change, found: os.stat_result | None) -> None:
        if change.path in self._seen and _identity(self._seen[change.path]) != _identity(found):
            raise DiffError(f"{shown(change.path)}: was changed by someone else meanwhile; no file was changed")

    def _put(self, folder: Folder, temporary: str, name: str) -> None:
        """Name a new file; a hard link, unlike a rename, fails if the name has been taken meanwhile."""
        try:
            folder.link(temporary, name)
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):  # a file system without hard links
            folder.rename(temporary, name)
        self._way_back.callback(folder.remove, name)
        folder.remove(temporary)

    @staticmethod
    def _back_up(folder: Folder, name: str, backup: str) -> None:
        try:
            folder.link(name, backup)
        except (OSError, NotImplementedError):  # a file system without hard links
            data, found = folder.read(name)
            folder.write_new(backup, data, found)


def _restore(folder: Folder, backup: str, name: str) -> None:
    if folder.stat(backup) is not None:
        folder.rename(backup, name)
        folder.remove(backup)  # a rename between two names of one file does nothing


def _identity(found: os.stat_result | None) -> tuple[int, ...] | None:
    return found and (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _temporary_name() -> str:
    return f".apply_patch-{secrets.token_hex(8)}"

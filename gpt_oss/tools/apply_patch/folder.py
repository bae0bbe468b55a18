"""A folder held open below the root, and single-step operations on the names in it.

Where the system can (POSIX), every operation is relative to the open folder (`openat` and its kin) and
follows no symbolic link, so that renaming a folder or slipping in a link between a check and its use leads
nowhere else. On Windows the same checks are made on paths, without that guarantee. Raises OSError;
DiffError for a symbolic link.
"""

import errno
import os
import stat
from contextlib import suppress
from typing import Final, Self

from gpt_oss.errors import DiffError
from gpt_oss.tools.apply_patch.paths import Path, shown

_HAS_DIR_FD: Final = {
    os.open,
    os.stat,
    os.mkdir,
    os.rmdir,
    os.unlink,
    os.rename,
    os.link,
} <= os.supports_dir_fd
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_FLAGS: Final = _NO_FOLLOW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_REPARSE_POINT: Final = getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0x400)


class Folder:
    """An open folder; `close` it, or use it in a `with` block."""

    def __init__(self, location: str, fd: int | None, path: Path = ()):
        self._location = location
        self._fd = fd
        self._path = path

    @classmethod
    def root(cls, location: str) -> Self:
        """Open the root itself, the one folder that may be reached through links."""
        real = os.path.realpath(location)
        return cls(real, os.open(real, os.O_RDONLY | os.O_DIRECTORY) if _HAS_DIR_FD else None)

    def close(self) -> None:
        """Close the folder."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        """Enter a block at whose end the folder is closed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the folder."""
        self.close()

    def enter(self, name: str) -> "Folder":
        """Open the folder `name` in this one."""
        found = self.stat(name)
        location = os.path.join(self._location, name)
        fd = None
        if self._fd is not None:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _FLAGS, dir_fd=self._fd)
        elif found is None or not stat.S_ISDIR(found.st_mode):
            number = errno.ENOENT if found is None else errno.ENOTDIR
            raise OSError(number, os.strerror(number), location)
        return Folder(location, fd, (*self._path, name))

    def stat(self, name: str) -> os.stat_result | None:
        """Look at `name`, None when there is nothing; DiffError when it is a symbolic link."""
        try:
            found = os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(found.st_mode) or getattr(found, "st_file_attributes", 0) & _REPARSE_POINT:
            raise DiffError(f"{self._shown(name)}: this is a symbolic link; name what it leads to instead")
        return found

    def read(self, name: str) -> tuple[bytes, os.stat_result]:
        """Read the regular file `name`; anything else (a folder, a device, a pipe) is a DiffError."""
        # O_NONBLOCK: opening a pipe that nobody writes to would wait forever.
        flags = os.O_RDONLY | _FLAGS | getattr(os, "O_NONBLOCK", 0)
        fd = os.open(self._at(name), flags, dir_fd=self._fd)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise DiffError(f"{self._shown(name)}: this is not a regular file")
        with open(fd, "rb") as file:
            return file.read(), found

    def write_new(self, name: str, data: bytes, like: os.stat_result | None) -> None:
        """Write a file that does not exist yet, with the mode bits and, if allowed, the owner of `like`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
        mode = 0o666 if like is None else 0o600  # until it is made like a file that may be private
        with open(os.open(self._at(name), flags, mode, dir_fd=self._fd), "wb") as file:
            file.write(data)
            file.flush()
            if like is not None and hasattr(os, "fchmod"):
                self._make_like(file.fileno(), like)

    @staticmethod
    def _make_like(fd: int, like: os.stat_result) -> None:
        mine = os.fstat(fd)
        if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid):
            with suppress(PermissionError):  # only root gives files away
                os.fchown(fd, like.st_uid, like.st_gid)
        os.fchmod(fd, stat.S_IMODE(like.st_mode))

    def make_folder(self, name: str) -> None:
        """Create the folder `name`."""
        os.mkdir(self._at(name), dir_fd=self._fd)

    def remove_folder(self, name: str) -> None:
        """Remove the empty folder `name`."""
        os.rmdir(self._at(name), dir_fd=self._fd)

    def link(self, name: str, new_name: str) -> None:
        """Give the file `name` a second name, which must be free."""
        fd = self._fd
        os.link(self._at(name), self._at(new_name), src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)

    def rename(self, name: str, new_name: str) -> None:
        """Rename the file `name`; a file called `new_name` is replaced in the same instant."""
        os.replace(self._at(name), self._at(new_name), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove the file `name` if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(self._at(name), dir_fd=self._fd)

    def _shown(self, name: str) -> str:
        return shown((*self._path, name))

    def _at(self, name: str) -> str:
        return name if self._fd is not None else os.path.join(self._location, name)

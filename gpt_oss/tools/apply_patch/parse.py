r"""Patch text -> sections. Knows the format, no files: what is here has not been checked against any file.

    *** Begin Patch
    *** Add File: new.txt          every following line begins with +
    *** Delete File: old.txt
    *** Update File: main.py
    *** Move to: app.py            optional
    @@ class A                     any number of headers, each narrows the place; none before the first hunk
     context, unchanged
    -removed
    +added
    *** End of File                optional: the hunk ends where the file ends
    *** End Patch

Lines are split at `\n` only, so U+2028 or a form feed stay inside a line. An error names the patch's line.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gpt_oss.errors import DiffError
from gpt_oss.tools.apply_patch.wrappers import unwrap

_BEGIN: Final = "*** Begin Patch"
_END: Final = "*** End Patch"
_END_OF_FILE: Final = "*** End of File"
_ADD: Final = "*** Add File:"
_DELETE: Final = "*** Delete File:"
_UPDATE: Final = "*** Update File:"
_MOVE: Final = "*** Move to:"

_LINE_NUMBERS: Final = re.compile(r"-\d+(,\d+)? \+\d+(,\d+)? @@")  # of a unified diff; models guess them

CONTEXT, REMOVED, ADDED = " ", "-", "+"


@dataclass(frozen=True)
class Line:
    """One line of a hunk: its sign (CONTEXT, REMOVED or ADDED) and its text without line ending."""

    sign: str
    text: str


@dataclass(frozen=True)
class Hunk:
    """One change of a file: headers to find the place, lines to find and change there."""

    headers: tuple[str, ...]
    lines: tuple[Line, ...]
    at_end: bool

    @property
    def old(self) -> list[str]:
        """What must be in the file: context and removed lines."""
        return old_texts(self.lines)


@dataclass(frozen=True)
class AddFile:
    """Create `path` holding `text`."""

    path: str
    text: str


@dataclass(frozen=True)
class DeleteFile:
    """Remove `path`."""

    path: str


@dataclass(frozen=True)
class UpdateFile:
    """Change `path` by `hunks`, in the order of the file, and name it `move_to` when that is given."""

    path: str
    move_to: str | None
    hunks: tuple[Hunk, ...]


def old_texts(lines: Iterable[Line]) -> list[str]:
    """Pick the lines a file must have for a hunk of `lines` to fit: context and removed ones."""
    return [line.text for line in lines if line.sign != ADDED]


Section = AddFile | DeleteFile | UpdateFile


def parse_patch(text: str) -> tuple[Section, ...]:
    """Read a patch, with or without wrappers; raises DiffError, one sentence with the line's number."""
    text = unwrap(text)
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in set(text)):
        raise DiffError("the patch has a NUL or half a surrogate pair; only text can be patched")
    return _Parser(text).sections()


class _Parser:
    """Reads the lines of one patch from top to bottom; `_next` is the index of the line to read next."""

    def __init__(self, text: str):
        lines = text.split("\n")
        if all(line.endswith("\r") for line in lines[:-1]):  # a terminal's endings, not those of the files
            lines = [line.removesuffix("\r") for line in lines]
        self._lines: Final = lines
        self._next = 1
        if self._lines[0].rstrip() != _BEGIN:
            raise DiffError(f"a patch begins with the line '{_BEGIN}', not with {_shown(self._lines[0])}")
        if len(self._lines) < 2 or self._lines[-1].strip() != _END:
            raise DiffError(f"a patch ends with the line '{_END}', not with {_shown(self._lines[-1])}")
        self._lines[-1] = _END

    def sections(self) -> tuple[Section, ...]:
        found = tuple(self._each_section())
        if not found:
            raise DiffError("the patch has no section: nothing to add, delete or update")
        return found

    def _each_section(self) -> Iterator[Section]:
        while True:
            self._skip_blank()
            if self._next == len(self._lines) - 1:
                return
            line = self._take().strip()
            if line.startswith(_ADD):
                yield AddFile(self._path(line, _ADD), self._added_text())
            elif line.startswith(_DELETE):
                yield DeleteFile(self._path(line, _DELETE))
            elif line.startswith(_UPDATE):
                yield self._update(self._path(line, _UPDATE))
            else:
                raise self._error(f"is {_shown(line)} where '{_ADD}', '{_DELETE}' or '{_UPDATE}' must stand")

    def _update(self, path: str) -> UpdateFile:
        move_to = None
        if self._peek().strip().startswith(_MOVE):
            move_to = self._path(self._take().strip(), _MOVE)
        hunks: list[Hunk] = []
        self._skip_blank()
        while not self._peek().startswith("***"):
            if (hunks or self._peek().startswith("@@")) and not _is_header(self._peek()):
                raise self._error(f"is {_shown(self._take())} where '@@' or '@@ header' must begin a hunk")
            hunks.append(self._hunk(len(hunks) + 1))
            self._skip_blank()
        if not hunks and move_to is None:
            raise self._error(f"begins an update of {path} without any hunk")
        return UpdateFile(path, move_to, tuple(hunks))

    def _hunk(self, number: int) -> Hunk:
        headers = []
        while _is_header(self._peek()):
            headers.append(self._take().removesuffix("\r")[2:].removeprefix(" "))
        lines, blanks = self._hunk_lines()
        if any(line.sign != ADDED for line in lines):
            # An empty line without its leading blank is context, or only space before the next section:
            # where nothing else says where the hunk belongs it must not decide the place.
            lines += [Line(CONTEXT, "")] * blanks
        if not lines:
            raise self._error(f"ends hunk {number}, which has no lines")
        at_end = self._peek().rstrip() == _END_OF_FILE
        if at_end:
            self._take()
        named = tuple(header for header in headers if header.strip() and not _LINE_NUMBERS.match(header))
        return Hunk(named, tuple(lines), at_end)

    def _hunk_lines(self) -> tuple[list[Line], int]:
        """Read lines up to the next marker or header; blank ones at the very end are only counted."""
        lines: list[Line] = []
        blanks = 0
        while not self._peek().startswith(("***", "@@")) and self._next < len(self._lines) - 1:
            text = self._take().removesuffix("\r")
            if not text:
                blanks += 1
                continue
            if text[0] not in (CONTEXT, REMOVED, ADDED):
                raise self._error(f"is {_shown(text)}; a line of a hunk begins with ' ', '-' or '+'")
            lines += [Line(CONTEXT, "")] * blanks
            lines.append(Line(text[0], text[1:]))
            blanks = 0
        return lines, blanks

    def _added_text(self) -> str:
        lines = []
        while self._peek().startswith("+"):
            lines.append(self._take()[1:] + "\n")
        self._skip_blank()
        if not self._peek().strip().startswith("***"):
            raise self._error(f"is {_shown(self._take())}; a line of an added file begins with '+'")
        return "".join(lines)

    def _path(self, line: str, marker: str) -> str:
        path = line.removeprefix(marker).strip()
        if not path:
            raise self._error(f"has '{marker}' without a path")
        return path

    def _peek(self) -> str:
        return self._lines[self._next]

    def _take(self) -> str:
        self._next += 1
        return self._lines[self._next - 1]

    def _skip_blank(self) -> None:
        while not self._lines[self._next].strip():
            self._next += 1

    def _error(self, what: str) -> DiffError:
        """Blame the line that was taken last."""
        return DiffError(f"line {self._next} of the patch {what}")


def _is_header(line: str) -> bool:
    return line.startswith("@@ ") or line.rstrip() == "@@"


def _shown(line: str) -> str:
    return repr(line) if len(line) <= 120 else f"{line[:120]!r}…"

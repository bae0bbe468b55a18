"""Where a hunk belongs in a file, and when it belongs nowhere, what the file has instead.

A hunk is looked for from where the previous one ended, below its headers: first exactly, then ignoring
trailing blanks, then leading and trailing blanks, last with typographic quotes, dashes and blanks read as
ASCII. A stricter match further down wins over a looser one further up. Knows lines, not files.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gpt_oss.tools.apply_patch.parse import CONTEXT, Hunk, Line, old_texts

_ASCII: Final = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
    | dict.fromkeys("\u2018\u2019\u201a\u201b", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
    | dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " ")
)


def _plain(line: str) -> str:
    return line.translate(_ASCII).strip()


_READINGS: Final[tuple[Callable[[str], str], ...]] = (str, str.rstrip, str.strip, _plain)
_CLOSE_ENOUGH: Final = 20_000  # lines; beyond it the search for a similar line would be felt


@dataclass(frozen=True)
class Place:
    """A hunk found: index of its first old line in the file, and the lines of it that are there."""

    start: int
    lines: tuple[Line, ...]


class Haystack:
    """The lines of one file, searchable under every reading."""

    def __init__(self, lines: Sequence[str]):
        self.lines = lines
        self._read: dict[int, list[str]] = {}

    def _under(self, reading: int) -> list[str]:
        if reading not in self._read:
            self._read[reading] = [_READINGS[reading](line) for line in self.lines]
        return self._read[reading]

    def find(self, wanted: Sequence[str], start: int, reading: int, last: bool = False) -> int | None:
        """Index of the first lines equal to `wanted` from `start` on; with `last`, the end is tried first."""
        lines = self._under(reading)
        wanted = [_READINGS[reading](line) for line in wanted]
        final = len(lines) - len(wanted)
        if last and final >= start and lines[final:] == wanted:
            return final
        while start <= final:
            try:
                start = lines.index(wanted[0], start, final + 1)
            except ValueError:
                return None
            if lines[start : start + len(wanted)] == wanted:
                return start
            start += 1
        return None

    def find_line(self, line: str, start: int) -> int | None:
        """Index of one line from `start` on under the strictest reading that finds it."""
        found = (self.find([line], start, reading) for reading in range(len(_READINGS)))
        return next((index for index in found if index is not None), None)


class HeaderMissing(LookupError):
    """A header of a hunk that is nowhere in the file; its argument is the header."""


def locate(file: Haystack, hunk: Hunk, cursor: int) -> Place | None:
    """Find `hunk` at or below line `cursor`; None if it is not there, HeaderMissing if a header is not."""
    for header in hunk.headers:
        if file.find_line(header, 0) is None:
            raise HeaderMissing(header)
    if not hunk.old:
        return _insertion(file, hunk, cursor)
    for start in _starts(file, hunk.headers, cursor):
        for reading in range(len(_READINGS)):
            for lines in _variants(hunk.lines):
                index = file.find(old_texts(lines), start, reading, last=hunk.at_end)
                if index is not None:
                    return Place(index, lines)
    return None


def _insertion(file: Haystack, hunk: Hunk, cursor: int) -> Place | None:
    """Place a hunk of only added lines: directly below its headers, without any at the end of the file."""
    if hunk.at_end or not hunk.headers:
        return Place(len(file.lines), hunk.lines)
    for start in (cursor, 0):
        below = _follow(file, hunk.headers, start)
        if below is not None and below >= cursor:
            return Place(below, hunk.lines)
    return None


def _starts(file: Haystack, headers: Sequence[str], cursor: int) -> Iterator[int]:
    """Lines from which to look: `cursor` if it is below the headers, then below the headers that follow it.

    Models like to repeat a header as first line of context, so its own line is tried last.
    """
    first = _follow(file, headers, 0)
    if first is not None and first <= cursor:
        yield cursor
    for below in (first, _follow(file, headers, cursor)):
        if below is not None and below > cursor:
            yield below
            yield below - 1


def _follow(file: Haystack, headers: Sequence[str], start: int) -> int | None:
    """Go from header to header, from `start` on: the line below the last one, None if one is missing."""
    for header in headers:
        index = file.find_line(header, start)
        if index is None:
            return None
        start = index + 1
    return start


def _variants(lines: tuple[Line, ...]) -> Iterator[tuple[Line, ...]]:
    """The hunk, then the hunk without one, two, … of the blank context lines at its end.

    A file's text ends with a newline, after which models see one more, empty, line.
    """
    yield lines
    while len(lines) > 1 and lines[-1] == Line(CONTEXT, ""):
        lines = lines[:-1]
        yield lines


def nearest(file: Haystack, old: Sequence[str]) -> tuple[int, int | None]:
    """Compare a hunk that is not in the file with the place most like it.

    Returns the index in `old` of the first line that differs there, and the index in the file of the line
    found instead of it: `len(file.lines)` for the end of the file, None when nothing is alike. When all of
    `old` is there (but not where it was looked for), the first index is `len(old)`, the second its place.
    """
    start = _best_alignment(file, old)
    if start is not None:
        for offset, line in enumerate(old):
            index = start + offset
            if not 0 <= index < len(file.lines) or file.lines[index].strip() != line.strip():
                return offset, min(max(index, 0), len(file.lines))
        return len(old), start
    first = next((offset for offset, line in enumerate(old) if line.strip()), 0)
    stripped = [line.strip() for line in file.lines[:_CLOSE_ENOUGH]]
    alike = difflib.get_close_matches(old[first].strip(), stripped, n=1, cutoff=0.5)
    return first, stripped.index(alike[0]) if alike else None


def _best_alignment(file: Haystack, old: Sequence[str]) -> int | None:
    """Line at which the hunk would begin so that most of its lines stand at their place; None if none can."""
    positions: dict[str, list[int]] = {}
    for index, line in enumerate(file.lines):
        positions.setdefault(line.strip(), []).append(index)
    votes: Counter[int] = Counter()
    for offset, line in enumerate(old):
        if line.strip():
            votes.update(index - offset for index in positions.get(line.strip(), ()))
    return max(votes, key=lambda start: (votes[start], -abs(start)), default=None)

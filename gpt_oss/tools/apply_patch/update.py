r"""The hunks of one update applied to the text of one file.

What a patch does not name stays byte for byte: the byte order mark, each line's own ending (`\n` or `\r\n`)
and a missing newline at the end. An added line ends as the one above it did before. Context keeps the file's
own blanks, and where the whole hunk is indented otherwise than the file, added lines follow the file.
"""

from collections.abc import Callable, Iterator, Sequence

from gpt_oss.errors import DiffError
from gpt_oss.tools.apply_patch.match import Haystack, HeaderMissing, Place, locate, nearest
from gpt_oss.tools.apply_patch.parse import ADDED, CONTEXT, Hunk, old_texts

_BYTE_ORDER_MARK = "\ufeff"


def update_text(text: str, hunks: Sequence[Hunk], path: str) -> str:
    """Apply `hunks`, in the order of the file, to `text`; raises DiffError naming `path` and the hunk."""
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    file = _File(text.removeprefix(mark))
    haystack = Haystack(file.texts)
    result: list[tuple[str, str]] = []
    done = cursor = 0  # lines that are in `result`; lines up to the end of the last hunk's context
    for number, hunk in enumerate(hunks, 1):
        place = _place(haystack, hunk, (cursor, done), f"{path}, hunk {number} of {len(hunks)}")
        result += file.slice(done, place.start)
        changed = list(file.changed(place))
        trailing = _trailing_context(place)
        result += changed[: len(changed) - trailing]
        cursor = place.start + len(old_texts(place.lines))
        done = cursor - trailing
    result += file.slice(done, len(file.texts))
    return mark + file.joined(result)


def _trailing_context(place: Place) -> int:
    return next((n for n, line in enumerate(reversed(place.lines)) if line.sign != CONTEXT), len(place.lines))


class _File:
    """Lines as (text, ending) pairs, so that every line keeps its own."""

    def __init__(self, text: str):
        pieces = text.split("\n")
        unterminated = pieces.pop()
        self.endings = ["\r\n" if piece.endswith("\r") else "\n" for piece in pieces]
        self.texts = [piece.removesuffix("\r") for piece in pieces]
        self._ends_with_newline = not unterminated
        if unterminated:
            self.texts.append(unterminated)
            self.endings.append("")
        self._usual_ending = (self.endings and self.endings[0]) or "\n"

    def slice(self, start: int, stop: int) -> Iterator[tuple[str, str]]:
        return zip(self.texts[start:stop], self.endings[start:stop], strict=True)

    def changed(self, place: Place) -> Iterator[tuple[str, str]]:
        """The lines that stand in the file once the hunk is applied at `place`."""
        old = old_texts(place.lines)
        indent = _reindented(self.texts[place.start : place.start + len(old)], old)
        index = place.start
        for line in place.lines:
            if line.sign == ADDED:
                yield indent(line.text), self._ending_at(index)
                continue
            if line.sign == CONTEXT:
                yield self.texts[index], self.endings[index]
            index += 1

    def _ending_at(self, index: int) -> str:
        return (self.endings[index - 1] if index else "") or self._usual_ending

    def joined(self, lines: list[tuple[str, str]]) -> str:
        if not lines:
            return ""
        body = "".join(text + (ending or self._usual_ending) for text, ending in lines[:-1])
        text, ending = lines[-1]
        return body + text + ((ending or self._usual_ending) if self._ends_with_newline else "")


def _reindented(found: Sequence[str], old: Sequence[str]) -> Callable[[str], str]:
    """How to indent added lines when the file's lines `found` were matched by the hunk's lines `old`.

    A hunk whose lines all miss (or all have) the same indentation is moved as a whole; otherwise, and for
    lines that begin further left than the hunk does, what the patch says is kept.
    """
    pairs = [(_indent(theirs), _indent(ours)) for theirs, ours in zip(found, old, strict=True) if ours.strip()]
    if not pairs:
        return str
    in_file, in_patch = min(pairs, key=lambda pair: len(pair[1]))
    if in_file == in_patch or any(
        not ours.startswith(in_patch) or theirs != in_file + ours.removeprefix(in_patch) for theirs, ours in pairs
    ):
        return str
    return lambda line: in_file + line.removeprefix(in_patch) if line.strip() and line.startswith(in_patch) else line


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _place(file: Haystack, hunk: Hunk, starts: Sequence[int], name: str) -> Place:
    """Find `hunk` below the previous one, or else (`starts[1]`) overlapping the context with which that ended."""
    try:
        for start in starts:
            place = locate(file, hunk, start)
            if place is not None:
                return place
    except HeaderMissing as missing:
        (header,) = missing.args
        _, index = nearest(file, [header])
        raise DiffError(f"{name}: the header {header!r} is not in the file; {_seen(file, index)}") from missing
    raise DiffError(f"{name}: {_why_not(file, hunk, starts[0])}")


def _why_not(file: Haystack, hunk: Hunk, cursor: int) -> str:
    if not hunk.old:
        return f"its headers do not stand one below the other from line {cursor + 1} of the file on"
    offset, index = nearest(file, hunk.old)
    if offset == len(hunk.old):
        below = f" below {hunk.headers[-1]!r}" if hunk.headers else ""
        return (
            f"its lines stand at line {(index or 0) + 1}, but were looked for from line {cursor + 1} on"
            f"{below}; hunks must follow the order of the file"
        )
    expected = f"expected line {offset + 1} of its {len(hunk.old)} context and removed lines, {hunk.old[offset]!r}"
    return f"{expected}, is not in the file at that place; {_seen(file, index)}"


def _seen(file: Haystack, index: int | None) -> str:
    if index is None:
        return "nothing in the file is like it"
    if index == len(file.lines):
        return f"the file ends there, after line {index}"
    return f"nearest is line {index + 1}: {file.lines[index]!r}"

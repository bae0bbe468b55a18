"""Markdown while it is being written, by appending only.

`MarkdownStream.feed` takes text as it comes and gives what can be shown for certain: a word when it is complete, a
span such as **bold** when it is closed, a table when it is over. A mark that turns out to be none stays as it was
written.
"""

import re
from collections.abc import Callable

from gpt_oss.terminal.text import Wrapper, cell_width, styled

MAX_SPAN = 300
"""Characters after which an open mark is taken as text."""

_UNDECIDED = re.compile(r"\s*(#{0,6}|[-*_+]+( [-*_ ]*)?|`{1,2}|~{1,2}|\d{1,9}[.)]?|>)\s*$")
_FENCE = re.compile(r"\s*(```|~~~)\s*([^`]*)$")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+")
_RULE = re.compile(r"\s{0,3}([-*_])(\s*\1){2,}\s*$")
_BULLET = re.compile(r"(\s*)[-*+]\s+")
_NUMBER = re.compile(r"(\s*)(\d{1,9}[.)])\s+")
_QUOTE = re.compile(r"\s*>\s?")
_TABLE_RULE = re.compile(r"\s*:?-+:?\s*")

# Each span: what opens it, the whole of it, its style.
_SPANS = (
    ("`", re.compile(r"(`+)(?P<text>.+?)(?<!`)\1(?!`)"), ("code",)),
    ("**", re.compile(r"\*\*(?=\S)(?P<text>.+?)(?<=\S)\*\*"), ("bold",)),
    ("__", re.compile(r"__(?=\S)(?P<text>.+?)(?<=\S)__(?!\w)"), ("bold",)),
    ("~~", re.compile(r"~~(?=\S)(?P<text>.+?)(?<=\S)~~"), ("strike",)),
    ("*", re.compile(r"\*(?=[^\s*])(?P<text>[^*]*[^\s*])\*(?!\*)"), ("italic",)),
    ("_", re.compile(r"(?<!\w)_(?=[^\s_])(?P<text>[^_]*[^\s_])_(?!\w)"), ("italic",)),
    ("[", re.compile(r"\[(?P<text>[^\[\]]+)\]\((?P<url>[^()\s]+)\)"), ("underline",)),
)
_MARK = re.compile(r"[`*_~\[\\]")
_ESCAPABLE = set("\\`*_{}[]()#+-.!~|>")


class MarkdownStream:
    """One message. `feed` and `close` return what to write to the terminal; control characters are the caller's."""

    def __init__(self, width: Callable[[], int]):
        self._width = width
        self._wrapper = Wrapper(width)
        self._line = ""  # of the current line: what was not given to the wrapper yet
        self._started = False  # the current line's kind is known
        self._fence: str | None = None
        self._table: list[str] = []
        self._styles: tuple[str, ...] = ()
        self._before = ""  # the character before self._line

    def feed(self, text: str) -> str:
        """More text; returns what it settled."""
        shown = []
        *lines, rest = text.split("\n")
        for line in lines:
            self._line += line
            shown.append(self._end_line())
        self._line += rest
        shown.append(self._advance())
        return "".join(shown)

    def close(self) -> str:
        """The message is over; the cursor stays behind its last character."""
        shown = self._end_line() if self._line or self._table else self._wrapper.flush()
        return (shown + self._end_table()).removesuffix("\n")

    def _advance(self) -> str:
        """Show what is certain of a line that goes on."""
        if self._fence is not None or not self._line:
            return ""
        lead = ""
        if not self._started:
            if _UNDECIDED.match(self._line) or self._line.lstrip().startswith(("|", "```", "~~~")):
                return ""
            lead = self._end_table() + self._start_line()
        return lead + self._spans(final=False)

    def _end_line(self) -> str:
        if not self._started:
            if self._fence is not None or _FENCE.match(self._line):
                return self._end_table() + self._fence_line()
            if self._line.lstrip().startswith("|"):
                self._table.append(self._line)
                self._line = ""
                return ""
            lead = self._end_table()
            if _RULE.match(self._line):
                self._line = ""
                return lead + styled("─" * min(40, self._width()), "dim") + "\n"
            lead += self._start_line()
        else:
            lead = ""
        shown = lead + self._spans(final=True) + self._wrapper.newline()
        self._started, self._styles, self._before = False, (), ""
        return shown

    def _start_line(self) -> str:
        """Find out what kind of line this is and take its mark off."""
        self._started = True
        first = hanging = ""
        if found := _HEADING.match(self._line):
            self._styles = ("heading",)
        elif found := _BULLET.match(self._line):
            first, hanging = f"{found[1]}• ", f"{found[1]}  "
        elif found := _NUMBER.match(self._line):
            first, hanging = f"{found[1]}{found[2]} ", f"{found[1]}{' ' * len(found[2])} "
        elif found := _QUOTE.match(self._line):
            first = hanging = styled("▌ ", "dim")
        self._line = self._line[found.end() if found else 0 :]
        self._wrapper.begin(first, hanging)
        return ""

    def _fence_line(self) -> str:
        line, self._line = self._line, ""
        mark = _FENCE.match(line)
        if self._fence is None and mark is not None:
            self._fence = mark[1]
            return styled(f"── {mark[2].strip() or 'code'} ──", "dim") + "\n"
        if mark is not None and mark[1] == self._fence and not mark[2].strip():
            self._fence = None
            return styled("──", "dim") + "\n"
        return styled(line, "code") + "\n"

    def _spans(self, *, final: bool) -> str:
        shown = []
        while self._line:
            mark = _MARK.search(self._line)
            if mark is None or mark.start() > 0:
                shown.append(self._take(mark.start() if mark else len(self._line)))
                continue
            if self._line[0] == "\\":
                if len(self._line) == 1 and not final:
                    break
                escaped = self._line[1:2] in _ESCAPABLE and len(self._line) > 1
                self._line = self._line[1:] if escaped else self._line
                shown.append(self._take(1))
                continue
            span = self._span()
            if span is not None:
                shown.append(span)
            elif final or not self._may_open() or len(self._line) > MAX_SPAN:
                run = re.match(r"(.)\1*", self._line)
                shown.append(self._take(run.end() if run else 1))
            else:
                break
        return "".join(shown)

    def _take(self, count: int) -> str:
        text, self._line = self._line[:count], self._line[count:]
        self._before = text[-1:]
        return self._wrapper.add(text, *self._styles)

    def _span(self) -> str | None:
        """The complete span at the beginning of the line, shown."""
        context = self._before + self._line  # some marks do not count inside a word
        for opening, pattern, styles in _SPANS:
            found = pattern.match(context, len(self._before)) if self._line.startswith(opening) else None
            if found is not None:
                self._line = self._line[found.end() - len(self._before) :]
                self._before = found[0][-1:]
                shown = self._wrapper.add(found["text"], *self._styles, *styles)
                if found.groupdict().get("url") and found["url"] != found["text"]:
                    shown += self._wrapper.add(f" ({found['url']})", *self._styles, "dim")
                return shown
        return None

    def _may_open(self) -> bool:
        """Whether the marks at the beginning can still become a span."""
        marks = re.match(r"(.)\1*", self._line)
        after = self._line[marks.end() if marks else 1 :][:1]
        inside_word = self._line[0] == "_" and (self._before.isalnum() or self._before == "_")
        return not after.isspace() and not inside_word

    def _end_table(self) -> str:
        if not self._table:
            return ""
        rows = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in self._table]
        ruled = len(rows) > 1 and all(_TABLE_RULE.fullmatch(cell) for cell in rows[1])
        body = [row for index, row in enumerate(rows) if not (ruled and index == 1)]
        columns = max(map(len, body))
        widths = [max(cell_width(_plain(row[i])) if i < len(row) else 0 for row in body) for i in range(columns)]
        lines = []
        for index, row in enumerate(body):
            cells = [_plain(cell) + " " * (widths[i] - cell_width(_plain(cell))) for i, cell in enumerate(row)]
            style = ("bold",) if ruled and index == 0 else ()
            lines.append("  ".join(styled(cell, *style) for cell in cells).rstrip())
            if ruled and index == 0:
                lines.append(styled("  ".join("─" * width for width in widths), "dim"))
        self._table = []
        return "\n".join(lines) + "\n"


def _plain(cell: str) -> str:
    """A cell's text without its marks."""
    for _, pattern, _ in _SPANS:
        cell = pattern.sub(lambda found: found["text"], cell)
    return cell

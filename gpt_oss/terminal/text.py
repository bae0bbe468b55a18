"""Text on a terminal: colours, widths, line breaks, and nothing a model can do harm with.

`Wrapper` breaks lines between words while text is still coming, and only ever appends: what is on the screen is
never rewritten, so there is nothing to flicker and a resized window costs nothing.
"""

import re
import unicodedata
from collections.abc import Callable

STYLES = {
    "dim": "2",
    "bold": "1",
    "italic": "3",
    "underline": "4",
    "strike": "9",
    "code": "36",
    "heading": "1;35",
    "tool": "1;36",
    "arguments": "36",
    "added": "32",
    "removed": "31",
    "error": "31",
    "notice": "33",
    "prompt": "1;34",
}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WORDS = re.compile(r" +|[^ ]+")


def harmless(text: str) -> str:
    """Text without control characters: an answer or a web page may not steer the terminal."""
    return _CONTROL.sub(_picture, text.replace("\r\n", "\n"))


def _picture(control: re.Match[str]) -> str:
    code = ord(control[0])
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def styled(text: str, *styles: str) -> str:
    """Text in these styles, ending in none."""
    codes = ";".join(STYLES[style] for style in styles)
    return f"\x1b[{codes}m{text}\x1b[0m" if codes and text else text


def cell_width(text: str) -> int:
    """Columns that text takes."""
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if character < "\u0300":
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class Wrapper:
    """Appends text word by word, beginning a new line where a word does not fit.

    width: asked for at every word, so that a resized window counts at once. `hanging` stands before every line
    but the first of a paragraph, `first` before that. `column`: where the cursor is already.
    """

    def __init__(self, width: Callable[[], int], first: str = "", hanging: str | None = None, *, column: int = 0):
        self._width = width
        self._column = column
        self._word: list[str] = []
        self._word_width = 0
        self._space = ""
        self.begin(first, hanging)

    def begin(self, first: str = "", hanging: str | None = None) -> None:
        """The prefixes of the next lines; they may be styled."""
        self._first, self._hanging = first, first if hanging is None else hanging

    def add(self, text: str, *styles: str) -> str:
        """Take text without line breaks; what can be shown of it and what came before."""
        shown = ""
        for piece in _WORDS.findall(text):
            if piece[0] == " ":
                shown += self._place_word()
                self._space += styled(piece, *styles) if "underline" in styles or "code" in styles else piece
                continue
            for part in _breakable(piece):
                self._word.append(styled(part, *styles))
                self._word_width += cell_width(part)
                if _is_wide(part):
                    shown += self._place_word()
        return shown

    def flush(self) -> str:
        """Show the last word."""
        return self._place_word()

    def newline(self) -> str:
        """End the line."""
        shown = self.flush() + "\n"
        self._column, self._space = 0, ""
        return shown

    def _place_word(self) -> str:
        if not self._word:
            return ""
        word, width = "".join(self._word), self._word_width
        self._word, self._word_width = [], 0
        space, self._space = self._space, ""
        gap = len(_ANSI.sub("", space))
        if self._column == 0:
            lead, self._column = self._first + space, cell_width(_ANSI.sub("", self._first)) + gap
        elif self._column + gap + width > self._width():
            lead, self._column = "\n" + self._hanging, cell_width(_ANSI.sub("", self._hanging))
        else:
            lead, self._column = space, self._column + gap
        self._column += width
        return lead + word


_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _is_wide(text: str) -> bool:
    return len(text) == 1 and _character_width(text) == 2


def _breakable(word: str) -> list[str]:
    """A word in parts after which a line may end: East Asian text has no spaces to wait for."""
    if word.isascii():
        return [word]
    parts: list[str] = [""]
    for character in word:
        if _character_width(character) == 2:
            parts += [character, ""]
        else:
            parts[-1] += character
    return [part for part in parts if part]

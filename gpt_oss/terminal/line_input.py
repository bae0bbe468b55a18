"""What the user types, message by message.

`open_input` picks the best there is: a line editor (prompt_toolkit), Python's own `input`, or a pipe, which is read
line by line. `read` gives a message, None at the end (Ctrl-D), or raises KeyboardInterrupt (Ctrl-C).

A message of several lines: a line that ends in a backslash goes on, and so does everything between two lines of
three double quotes; in the line editor also Alt-Enter or Ctrl-J, and pasted text.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from gpt_oss.cache import ENTRY_PREFIX, cache_directory
from gpt_oss.errors import CacheError

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings

PROMPT, CONTINUATION = "> ", ". "
HISTORY_VARIABLE = "GPT_OSS_HISTORY"
_QUOTES = '"""'


class LineInput(Protocol):
    """A source of messages."""

    def read(self) -> str | None:
        """The next message; None at the end. Raises KeyboardInterrupt."""


def open_input(commands: Sequence[str], *, color: bool = True) -> LineInput:
    """The input of this process. commands: offered for completion."""
    if not sys.stdin.isatty():
        return PipeInput(sys.stdin)
    history = history_file()
    if os.environ.get("TERM") != "dumb":
        try:
            return EditorInput(commands, history, color=color)
        except ImportError:
            pass  # the extra `chat` is not installed; input() does
    return PlainInput(history)


def history_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """Where typed messages are kept: `GPT_OSS_HISTORY` (empty: nowhere), or a private folder in the cache folder.

    There, because `gpt-oss cache` shows and clears all that the package leaves on a machine. None where that folder
    cannot be made.
    """
    environment = os.environ if environment is None else environment
    if (named := environment.get(HISTORY_VARIABLE)) is not None:
        return Path(named).expanduser() if named else None
    try:
        folder = cache_directory(environment) / f"{ENTRY_PREFIX}chat"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (CacheError, OSError):
        return None
    return folder / "history" if os.access(folder, os.W_OK) else None


@contextmanager
def quiet_keyboard(quiet: bool = True) -> Iterator[None]:
    """Within the block typed keys are not shown, and wait, Enter as Enter, for the next `read`; Ctrl-C still counts.

    Without it they would appear in the middle of an answer. quiet=False: the other way round, for `input` within
    such a block. Does nothing where there is no terminal to tell.
    """
    if termios is None or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    mode = termios.tcgetattr(sys.stdin)
    echo = termios.ECHO | termios.ICANON
    mode[0] = mode[0] & ~termios.ICRNL if quiet else mode[0] | termios.ICRNL
    mode[3] = mode[3] & ~echo if quiet else mode[3] | echo
    termios.tcsetattr(sys.stdin, termios.TCSANOW, mode)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def is_open(text: str) -> bool:
    """Whether a message goes on after this line."""
    lines = text.split("\n")
    quotes = sum(line.strip() == _QUOTES for line in lines)
    return quotes % 2 == 1 or (quotes == 0 and lines[-1].endswith("\\"))


def joined(text: str) -> str:
    """The message without the marks of its continuation lines."""
    lines = text.split("\n")
    if sum(line.strip() == _QUOTES for line in lines) >= 2:
        return "\n".join(line for line in lines if line.strip() != _QUOTES)
    return text.replace("\\\n", "\n")


class PipeInput:
    """Every line of a file or pipe is a message; empty ones are left out."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def read(self) -> str | None:
        """The next message."""
        for line in self._stream:
            if text := line.rstrip("\r\n"):
                return text
        return None


class PlainInput:
    """Python's `input`, with the editing that the `readline` module gives where it exists."""

    def __init__(self, history: Path | None, ask: Callable[[str], str] = input):
        self._ask = ask
        self._history = history
        self._readline = None
        if history is not None:
            try:
                import readline

                self._readline = readline
                readline.set_history_length(2_000)
                readline.read_history_file(history)
            except (ImportError, OSError):
                pass  # no editing here, or no history yet

    def read(self) -> str | None:
        """The next message."""
        try:
            with quiet_keyboard(False):
                text = self._ask(PROMPT)
                while is_open(text):
                    text += "\n" + self._ask(CONTINUATION)
        except EOFError:
            return None
        if self._readline is not None and self._history is not None:
            try:
                self._readline.write_history_file(self._history)
            except OSError:
                self._readline = None
        return joined(text)


class EditorInput:
    """prompt_toolkit: editing over several lines, history with search, completion of commands."""

    def __init__(self, commands: Sequence[str], history: Path | None, *, color: bool = True):
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.formatted_text import FormattedText
        from prompt_toolkit.history import FileHistory, History, InMemoryHistory
        from prompt_toolkit.output import ColorDepth

        past: History = InMemoryHistory() if history is None else FileHistory(str(history))
        style = "bold ansiblue" if color else ""
        self._session: PromptSession[str] = PromptSession(
            FormattedText([(style, PROMPT)]),
            multiline=True,
            prompt_continuation=CONTINUATION,
            history=past,
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            key_bindings=_key_bindings(),
            color_depth=None if color else ColorDepth.DEPTH_1_BIT,
            enable_open_in_editor=True,
        )

    def read(self) -> str | None:
        """The next message."""
        try:
            return joined(self._session.prompt())
        except EOFError:
            return None
        except OSError:  # the history file cannot be written any more
            return None


def _key_bindings() -> "KeyBindings":
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("enter")
    def send_or_continue(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    @bindings.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings

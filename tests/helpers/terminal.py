"""A program in a pseudo-terminal, its screen as a person would see it."""

import os
import time
from collections.abc import Callable, Mapping, Sequence

import pexpect
import pyte

CTRL_C, CTRL_D, ENTER, ALT_ENTER = "\x03", "\x04", "\r", "\x1b\r"


def _without_size(environment: Mapping[str, str]) -> dict[str, str]:
    """Libraries of other tests leave a width behind, which would count for more than the terminal's own."""
    return {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}


class Terminal:
    """Runs a command in a terminal of `columns` × `lines` and keeps what its screen shows.

    As a real terminal does, it answers questions about the position of the cursor.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        lines: int = 40,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike | None = None,
    ):
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=1.0)
        self.screen.write_process_input = self._answer
        self.output = b""
        self.frames: list[tuple[float, bytes]] = []
        """Everything that was written, with seconds since the start."""
        self._stream = pyte.ByteStream(self.screen)
        self._began = time.monotonic()
        self._process = pexpect.spawn(
            command[0],
            list(command[1:]),
            env={**_without_size(os.environ), "TERM": "xterm-256color", **(environment or {})},
            dimensions=(lines, columns),
            cwd=None if cwd is None else str(cwd),
            timeout=None,
        )

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close(force=True)

    def type(self, text: str) -> None:
        """Press keys."""
        self._process.send(text)

    def resize(self, columns: int, lines: int) -> None:
        """As a person who drags the window."""
        self.screen.resize(lines, columns)
        self._process.setwinsize(lines, columns)

    def wait_for(self, what: str | Callable[[str], bool], seconds: float = 60.0) -> str:
        """Read until the screen (with what has scrolled away) shows something; the text of it all."""
        deadline = time.monotonic() + seconds
        while True:
            shown = self.text()
            if what in shown if isinstance(what, str) else what(shown):
                return shown
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"waited for {what!r} and saw:\n{self.text()}")

    def settle(self, seconds: float = 0.3) -> str:
        """Read until nothing came for a while; the screen's text."""
        while self._read(seconds):
            pass
        return self.text()

    def wait_for_exit(self, seconds: float = 60.0) -> int:
        """Read until the program ends; its exit status, or minus the signal that ended it."""
        deadline = time.monotonic() + seconds
        while self._process.isalive() or self._read(0.05):
            if time.monotonic() > deadline:
                raise AssertionError(f"still running, and shows:\n{self.text()}")
            self._read(0.05)
        self._process.close()
        return (
            self._process.exitstatus if self._process.exitstatus is not None else -self._process.signalstatus
        )

    def text(self) -> str:
        """All lines without the blanks at their ends, what scrolled away included."""
        gone = ["".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*gone, *self.screen.display]).rstrip()

    def cells(self, text: str) -> list[pyte.screens.Char]:
        """The cells of the first place where the screen shows `text`."""
        for y, line in enumerate(self.screen.display):
            if (x := line.find(text)) >= 0:
                return [self.screen.buffer[y][x + i] for i in range(len(text))]
        raise AssertionError(f"{text!r} is not on the screen:\n{self.text()}")

    def _read(self, timeout: float = 0.1) -> bool:
        """Read what there is; False at the end of the output, or where nothing came in time."""
        try:
            data = self._process.read_nonblocking(65_536, timeout)
        except pexpect.TIMEOUT:
            return timeout == 0.1  # a wait goes on
        except pexpect.EOF:
            return False
        self.output += data
        self.frames.append((time.monotonic() - self._began, data))
        self._stream.feed(data)
        return True

    def _answer(self, data: str) -> None:
        self._process.send(data)

"""Three ways to show a turn: on a terminal, plain for pipes, raw for those who want to see the tokens.

In: the events of `gpt_oss.harmony.events`, one by one, to `show`. Out: writing. Nothing is decided here.
"""

import codecs
import shutil
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from gpt_oss.harmony.events import (
    Event,
    MessageDone,
    Notice,
    PromptRead,
    ReasoningDelta,
    SampleStarted,
    TextDelta,
    TokenSampled,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolResult,
    TurnDone,
)
from gpt_oss.harmony.tokens import START
from gpt_oss.terminal.markdown import MarkdownStream
from gpt_oss.terminal.spinner import Spinner
from gpt_oss.terminal.text import STYLES, Wrapper, cell_width, harmless
from gpt_oss.tokenizer import get_tokenizer

LONG_PROMPT = 512
"""New tokens of a prompt from which on it is said how many there are to read."""
MAX_DIFF_LINES = 200

ENDINGS = {
    "max_tokens": "the answer is cut: it reached --max-tokens",
    "max_rounds": "stopped: too many tool calls in one turn",
    "max_seconds": "stopped: the time limit is reached",
    "context": "the context is full; /undo or /reset makes room, -c makes it larger",
    "cancelled": "stopped; Ctrl-C again leaves",
}


class View(Protocol):
    """Shows events."""

    def show(self, event: Event) -> None:
        """Show one event of a turn."""

    def say(self, text: str, style: str = "notice") -> None:
        """Show a line of the program's own."""

    def downloading(self, what: str, done: int, total: int) -> None:
        """Show how far a download is that a tool waits for, in bytes; 0 of 0 at its start."""

    def close(self) -> None:
        """Leave the terminal as a prompt needs it, also after a turn that broke off."""


class TerminalView:
    """For people: channels look different, markdown is rendered, tools show what they do.

    results: show what the browser found in full. hide_reasoning: one line in place of the thoughts.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        color: bool = True,
        hide_reasoning: bool = False,
        full_results: bool = False,
        width: Callable[[], int] | None = None,
    ):
        self.hide_reasoning = hide_reasoning
        self.full_results = full_results
        self.last_reasoning = ""
        self._stream, self._color = stream, color
        self._width = width or (lambda: shutil.get_terminal_size().columns)
        self._spinner: Spinner | None = None
        self._open: int | None = None  # index of the message that is being written
        self._body: MarkdownStream | Lines | None = None
        self._read = 0  # tokens of the last prompt, cached from then on
        self._began = 0.0
        self._thoughts: list[str] = []

    def show(self, event: Event) -> None:
        """Show one event of a turn."""
        if not isinstance(event, PromptRead) and not (isinstance(event, ReasoningDelta) and self.hide_reasoning):
            self._stop_spinner()
        match event:
            case SampleStarted(round, prompt):
                self._started(round, prompt)
            case PromptRead(tokens):
                self._progress(tokens)
            case ReasoningDelta():
                self._reason(event)
            case TextDelta(index, text, channel):
                self._add(index, text, lambda: self._text_body(channel))
            case ToolCallStarted(index, name):
                self._add(index, "", lambda: self._call_body(name))
            case ToolCallDelta(index, text):
                self._add(index, text, lambda: self._call_body(""))
            case MessageDone():
                self._message_done(event)
            case ToolCallFinished(_, name):
                self._end_body()
                self._spin(f"{name} is running")
            case ToolResult():
                self._result(event)
            case Notice(text):
                self.say(text)
            case TurnDone():
                self._done(event)

    def say(self, text: str, style: str = "notice") -> None:
        """Show a line of the program's own."""
        self._stop_spinner()
        self._end_body()
        lines = Lines(self._width, "", (style,), self._color)
        self._write(lines.feed(harmless(text)) + lines.close() + "\n")

    def downloading(self, what: str, done: int, total: int) -> None:
        """The spinner tells how far it is."""
        if self._spinner is not None:
            text = f"downloading {what}: {done // 10**6} of {total // 10**6} MB"
            self._spinner.label = _cut(text, self._width() - 10)

    def close(self) -> None:
        """Stop the spinner and end the line."""
        self._stop_spinner()
        self._end_body()

    def _started(self, round: int, prompt: tuple[int, ...]) -> None:
        new = max(0, len(prompt) - self._read)
        self._read, self._began = len(prompt), time.monotonic()
        self._spin(f"reading {new:,} tokens" if new >= LONG_PROMPT else "thinking")

    def _progress(self, tokens: int) -> None:
        if self._spinner is not None and tokens < self._read:
            self._spinner.label = f"reading {self._read:,} tokens: {100 * tokens // self._read} %"

    def _reason(self, event: ReasoningDelta) -> None:
        self._thoughts.append(event.text)
        if self.hide_reasoning:
            if self._spinner is not None:
                self._spinner.label = "thinking"
            return
        self._add(event.index, event.text, lambda: Lines(self._width, "│ ", ("dim",), self._color))

    def _message_done(self, event: MessageDone) -> None:
        if event.message.channel == "analysis" and event.message.recipient is None:
            self.last_reasoning = "".join(self._thoughts)
            self._thoughts = []
            if self.hide_reasoning:
                self._stop_spinner()
                self._write(self._styled(f"│ thought for {time.monotonic() - self._began:.1f} s", "dim") + "\n")
        self._end_body()

    def _text_body(self, channel: str) -> "MarkdownStream | Lines":
        if channel == "commentary":
            return Lines(self._width, "» ", ("italic",), self._color)
        if not self._color:
            return Lines(self._width, "", (), False)
        return MarkdownStream(self._width)

    def _call_body(self, name: str) -> "Lines":
        self._write(self._styled(f"⚙ {harmless(name)} ", "tool"))
        return Lines(self._width, "  ", ("arguments",), self._color, column=cell_width(name) + 3)

    def _result(self, event: ToolResult) -> None:
        text = harmless(event.text).strip("\n")
        if "\n@@ " in text and text.startswith(("diff ", "--- ")):
            self._diff(text.split("\n"))
            return
        failed = text.startswith("Error")
        if self.full_results and event.name.startswith("browser"):
            self._write("".join(self._styled(f"  {line}", "dim") + "\n" for line in text.split("\n")))
            return
        lines = text.split("\n")
        more = f" (+{len(lines) - 1} lines)" if len(lines) > 1 else ""
        line = _cut(f"  ↳ {lines[0].strip() or '(nothing)'}", self._width() - cell_width(more) - 8)
        shown = self._styled(line, "error" if failed else "dim") + self._styled(f"{more} {event.seconds:.1f} s", "dim")
        self._write(shown + "\n")

    def _diff(self, lines: list[str]) -> None:
        styles = {"+": "added", "-": "removed", "@": "tool"}
        for line in lines[:MAX_DIFF_LINES]:
            style = "bold" if line.startswith(("+++", "---", "diff ")) else styles.get(line[:1], "dim")
            self._write("  " + self._styled(line, style) + "\n")
        if len(lines) > MAX_DIFF_LINES:
            self._write(self._styled(f"  … {len(lines) - MAX_DIFF_LINES} more lines", "dim") + "\n")

    def _done(self, event: TurnDone) -> None:
        self._end_body()
        self._read = event.usage.total_tokens
        if event.error is not None:
            self.say(f"the model failed: {event.error}", "error")
        elif event.reason in ENDINGS:
            self.say(f"({ENDINGS[event.reason]})")
        elif not event.messages:
            self.say("(the model gave no answer)")

    def _add(self, index: int, text: str, make: "Callable[[], MarkdownStream | Lines]") -> None:
        if self._open != index:
            self._end_body()
            self._open, self._body = index, make()
        if self._body is not None:
            self._write(self._body.feed(harmless(text)))

    def _end_body(self) -> None:
        if self._body is not None:
            self._write(self._body.close() + "\n")
        self._open = self._body = None

    def _spin(self, label: str) -> None:
        self._spinner = Spinner(self._write, label).start() if self._color else None

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self._color else text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Lines:
    """Text that is no markdown, wrapped, with a prefix before every line."""

    def __init__(self, width: Callable[[], int], prefix: str, styles: tuple[str, ...], color: bool, *, column: int = 0):
        self._styles = styles if color else ()
        shown_prefix = f"\x1b[{STYLES[styles[0]]}m{prefix}\x1b[0m" if prefix.strip() and color else prefix
        self._wrapper = Wrapper(width, shown_prefix, shown_prefix, column=column)

    def feed(self, text: str) -> str:
        """More text; returns what it settled."""
        first, *lines = text.split("\n")
        shown = self._wrapper.add(first, *self._styles)
        for line in lines:
            shown += self._wrapper.newline() + self._wrapper.add(line, *self._styles)
        return shown

    def close(self) -> str:
        """The message is over."""
        return self._wrapper.flush()


class _Unstyled:
    """What the views without a terminal share: their own words go to standard error, line by line."""

    def __init__(self, output: TextIO, errors: TextIO):
        self._output, self._errors = output, errors
        self._announced = ""

    def say(self, text: str, style: str = "notice") -> None:
        """Show a line of the program's own."""
        self._errors.write(text + "\n")
        self._errors.flush()

    def downloading(self, what: str, done: int, total: int) -> None:
        """Say it once, when it begins."""
        if not total and self._announced != what:
            self._announced = what
            self.say(f"downloading {what}")

    def close(self) -> None:
        """Nothing to leave."""


class PlainView(_Unstyled):
    """For pipes: the answers alone on standard output, everything that went wrong on standard error."""

    def show(self, event: Event) -> None:
        """Show one event of a turn."""
        match event:
            case TextDelta(_, text, channel) if channel != "commentary":
                self._output.write(text)
                self._output.flush()
            case MessageDone(_, message) if message.channel == "final":
                self._output.write("\n")
                self._output.flush()
            case Notice(text):
                self.say(text)
            case TurnDone() if event.error is not None or event.reason in ENDINGS:
                self.say(event.error or ENDINGS[event.reason])


class RawView(_Unstyled):
    """The exact tokens, control tokens included: the prompt's, as far as they are new, and the model's."""

    def __init__(self, output: TextIO, errors: TextIO):
        super().__init__(output, errors)
        self._seen: list[int] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def show(self, event: Event) -> None:
        """Show one event of a turn."""
        match event:
            case SampleStarted(_, prompt):
                self._tokens(list(prompt[self._known(prompt) :]))
                self._seen = list(prompt)
            case TokenSampled(token):
                self._tokens([token.id])
                self._seen.append(token.id)
            case TurnDone():
                self._write(self._decoder.decode(b"", final=True) + "\n")
                if event.error is not None:
                    self.say(event.error)

    def _known(self, prompt: tuple[int, ...]) -> int:
        """How much of the prompt was shown before; up to a whole message where it goes on differently."""
        pairs = enumerate(zip(self._seen, prompt, strict=False))
        same = next((i for i, (old, new) in pairs if old != new), min(len(self._seen), len(prompt)))
        if same == len(self._seen):
            return same
        return max((i for i in range(same) if prompt[i] == START), default=0)

    def _tokens(self, ids: list[int]) -> None:
        table = get_tokenizer()
        known = [id for id in ids if 0 <= id < table.n_vocab]
        self._write(self._decoder.decode(table.decode_bytes(known)))

    def _write(self, text: str) -> None:
        self._output.write(harmless(text))
        self._output.flush()


def _cut(text: str, width: int) -> str:
    """Text cut to a width in columns."""
    if cell_width(text) <= width:
        return text
    while text and cell_width(text) > max(1, width - 1):
        text = text[:-1]
    return text + "…"

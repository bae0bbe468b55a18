"""Record a chat session as a picture: `python -m recipes.record_chat docs/chat.svg`.

Starts the real chat in a pseudo-terminal, types what `--say` gives, one message after the other, waits for each
answer, and writes the screen as an SVG file. Needs the test dependencies (pexpect, pyte).
"""

import argparse
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import pyte

from tests.helpers.terminal import CTRL_D, ENTER, Terminal

SESSION = (
    "Hello, who are you?",
    "What is the capital of Norway?",
    "/effort high",
    "What is 17 + 25?",
    "/tokens",
)
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 18, 14
BACKGROUND, FOREGROUND = "#1c1f26", "#d7dae0"
COLORS = {
    "default": FOREGROUND,
    "black": "#5c6370",
    "red": "#e06c75",
    "green": "#98c379",
    "brown": "#e5c07b",
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": FOREGROUND,
}


def screen_as_svg(screen: pyte.Screen, lines: list[str]) -> str:
    """The rows of the screen that `lines` holds (their text, top to bottom), with their colours, as SVG."""
    width = MARGIN * 2 + CELL_WIDTH * screen.columns
    height = MARGIN * 2 + LINE_HEIGHT * len(lines)
    rows = "\n".join(_row(screen, number) for number in range(len(lines)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">\n'
        f"<title>A session of gpt-oss chat</title>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>\n'
        f'<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">\n'
        f"{rows}\n</g>\n</svg>\n"
    )


def _row(screen: pyte.Screen, number: int) -> str:
    """One line: a <text> for each run of cells that look the same."""
    cells = [screen.buffer[number][x] for x in range(screen.columns)]
    spans, start = [], 0
    while start < len(cells):
        end = start + 1
        while end < len(cells) and _look(cells[end]) == _look(cells[start]):
            end += 1
        text = "".join(cell.data for cell in cells[start:end])
        if text.strip():
            spans.append(_span(text, cells[start], start, number))
        start = end
    return "\n".join(spans)


def _span(text: str, cell: pyte.screens.Char, column: int, row: int) -> str:
    x, y = MARGIN + CELL_WIDTH * column, MARGIN + LINE_HEIGHT * (row + 0.75)
    style = f' fill="{COLORS.get(cell.fg, FOREGROUND)}"'
    style += ' font-weight="bold"' if cell.bold else ""
    style += ' font-style="italic"' if cell.italics else ""
    style += ' text-decoration="underline"' if cell.underscore else ""
    if text.startswith("│ "):  # pyte has no dim text; reasoning begins with this bar
        style = ' fill="#7f848e"'
    length = f' textLength="{CELL_WIDTH * len(text):.1f}"' if text.isascii() else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}{length}>{escape(text)}</text>'


def _look(cell: pyte.screens.Char) -> tuple[object, ...]:
    return (cell.fg, cell.bold, cell.italics, cell.underscore)


def record(command: list[str], messages: tuple[str, ...], columns: int, seconds: float) -> str:
    """Run the command, type the messages, return the picture of the screen."""
    with Terminal(command, columns=columns, lines=200, environment={"GPT_OSS_HISTORY": ""}) as terminal:
        for number, message in enumerate(("", *messages)):
            if message:
                terminal.type(message + ENTER)
            terminal.wait_for(lambda shown, n=number: shown.count("\n>") == n + 1 and shown.endswith("\n>"), seconds)
        lines = terminal.text().split("\n")[:-1]  # without the last prompt
        picture = screen_as_svg(terminal.screen, lines)
        terminal.type(CTRL_D)
        terminal.wait_for_exit(seconds)
    return picture


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Record a chat session as a picture.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--say", action="append", metavar="TEXT", help="a message to type (repeatable)")
    parser.add_argument("--columns", type=int, default=88)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long to wait for an answer")
    parser.add_argument("options", nargs="*", help="options of the chat, after --")
    options = parser.parse_args()
    command = [sys.executable, "-m", "gpt_oss.chat", "--temperature", "0", *options.options]
    picture = record(command, tuple(options.say or SESSION), options.columns, options.seconds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()

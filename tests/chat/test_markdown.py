"""Markdown by appending: what the screen shows in the end, whatever the chunks were."""

import random
import re

import pyte
import pytest

from gpt_oss.terminal.markdown import MarkdownStream
from gpt_oss.terminal.text import Wrapper, cell_width, harmless

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def render(text, *, width=60, chunks=None):
    stream = MarkdownStream(lambda: width)
    pieces = chunks if chunks is not None else [text]
    return "".join(map(stream.feed, pieces)) + stream.close()


def plain(text, **options):
    return ANSI.sub("", render(text, **options))


def cells(shown, width=60):
    """The screen's cells: characters with their looks."""
    screen = pyte.Screen(width + 20, 60)
    screen.set_mode(pyte.modes.LNM)
    pyte.Stream(screen).feed(shown)
    return [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]


DOCUMENT = """# A heading with `code`

Some **bold** text, *italic*, __bold__ and _italic_, ~~gone~~; snake_case_name, 2 * 3 * 4 and a ** b.
A [link](https://example.com/x) and an [unfinished (one. Escaped \\*stars\\*. **Never closed.

- a bullet that is long enough to be broken over more than one line of the terminal, twice in fact
  - a nested one
12. a numbered one that is long enough to be broken over more than one line

> a quotation

```python
def f(x): return "**not bold**"
```

| city | **count** |
|:-----|------:|
| Paris | 12 |
| 東京 | 3 |

***
東京は日本の首都であり、世界最大級の都市のひとつです。東京は日本の首都であり、世界最大級の都市のひとつです。
Last line 🫠"""


def test_document():
    assert plain(DOCUMENT) == (
        """A heading with code

Some bold text, italic, bold and italic, gone;
snake_case_name, 2 * 3 * 4 and a ** b.
A link (https://example.com/x) and an [unfinished (one.
Escaped *stars*. **Never closed.

• a bullet that is long enough to be broken over more than
  one line of the terminal, twice in fact
  • a nested one
12. a numbered one that is long enough to be broken over
    more than one line

▌ a quotation

── python ──
def f(x): return "**not bold**"
──

city   count
─────  ─────
Paris  12
東京   3

────────────────────────────────────────
東京は日本の首都であり、世界最大級の都市のひとつです。東京は
日本の首都であり、世界最大級の都市のひとつです。
Last line 🫠"""
    )


def test_looks():
    shown = cells(render("A **bold** and `code` and *it*"))[0]
    look = {cell.data: cell for cell in shown}
    assert look["b"].bold and look["c"].fg == "cyan" and look["i"].italics and not look["A"].bold


@pytest.mark.parametrize("seed", range(20))
def test_chunks_do_not_matter(seed):
    rng, chunks, rest = random.Random(seed), [], DOCUMENT
    while rest:
        size = rng.choice((1, 1, 2, 3, 5, 17))
        chunks.append(rest[:size])
        rest = rest[size:]
    assert cells(render(DOCUMENT, chunks=chunks)) == cells(render(DOCUMENT))


def test_no_text_is_lost():
    """Whatever marks come, closed or not, every word is shown, in order."""
    rng = random.Random()
    marks = ["**", "*", "_", "`", "\n", "[", "](", ")", "- ", "|", "\\", "# ", "~~", "> ", " "]
    for _ in range(1_000):
        pieces = [f"w{number} " if rng.random() < 0.4 else rng.choice(marks) for number in range(40)]
        text = "".join(pieces)
        assert re.findall(r"w\d+", plain(text)) == re.findall(r"w\d+", text), text


def test_it_only_appends():
    shown = "".join(re.findall(r"[\x00-\x1f\x7f](?:\[[0-9;]*[A-Za-z])?", render(DOCUMENT)))
    assert set(re.findall(r"\x1b\[[0-9;]*([A-Za-z])", shown)) == {"m"}
    assert "\r" not in shown and "\b" not in shown


def test_words_appear_as_soon_as_they_are_complete():
    stream = MarkdownStream(lambda: 60)
    assert stream.feed("Hello wor") == "Hello"
    assert stream.feed("ld, **bo") == " world,"
    assert ANSI.sub("", stream.feed("ld** x")) == " bold"
    assert stream.close() == " x"


def test_an_open_mark_is_not_waited_for_for_ever():
    stream = MarkdownStream(lambda: 1_000)
    assert "word" in stream.feed("*word " + "x " * 200)


def test_narrow_terminals():
    assert plain("aaa bbb ccc", width=7) == "aaa bbb\nccc"
    assert plain("averyveryverylongword x", width=7) == "averyveryverylongword\nx"


def test_cell_width():
    assert [cell_width(text) for text in ("abc", "漢字", "e\u0301", "🫠", "\u200d")] == [3, 4, 1, 2, 0]


def test_wrapper_asks_for_the_width_again():
    widths = [20]
    wrapper = Wrapper(lambda: widths[0], "│ ")
    shown = wrapper.add("one two three four five ")
    widths[0] = 10
    shown += wrapper.add("six seven eight") + wrapper.flush()
    assert shown == "│ one two three four\n│ five six\n│ seven\n│ eight"


def test_a_model_cannot_steer_the_terminal():
    attack = "\x1b]0;title\x07\x1b[2J\x9b31m\x08\r\x00tab\there\nline\r\n"
    shown = harmless(attack)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert "tab\there\nline\n" in shown

"""Wrapping, safe text and text without markup, as properties over arbitrary text."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from gpt_oss.tools.simple_browser.text import (
    VisibleText,
    link_markup,
    make_plain,
    make_safe,
    one_line,
    tidy,
    wrap_lines,
    wrap_spans,
)

TEXT = st.text(alphabet=st.sampled_from("ab é漢😀 \n\t†") | st.characters(), max_size=300)
WORDS = st.text(alphabet="abc def\n", min_size=1, max_size=20).filter(str.strip)


@given(TEXT, st.integers(1, 20))
def test_wrapping_loses_only_blanks_at_breaks(text: str, width: int) -> None:
    spans = wrap_spans(text, width)
    assert all(0 <= start <= end <= start + width for start, end in spans)
    lost, position = "", 0
    for start, end in spans:
        assert start >= position
        lost += text[position:start]
        position = end
    lost += text[position:]
    assert set(lost) <= {" ", "\n"}
    assert lost.count("\n") == text.count("\n")


@given(TEXT)
def test_lines_that_fit_are_left_alone(text: str) -> None:
    assert wrap_lines(text, width=len(text) + 1) == text.split("\n")


@given(st.text(alphabet="ab ", max_size=200), st.integers(1, 12))
def test_a_word_is_cut_only_if_it_is_longer_than_a_line(text: str, width: int) -> None:
    text = text.strip()  # an indent takes room from the first word
    words = [word for line in wrap_lines(text, width) for word in line.split()]
    if all(len(word) <= width for word in text.split()):
        assert words == text.split()
    assert "".join(words) == "".join(text.split())


def test_wrapping_is_greedy() -> None:
    assert wrap_lines("aa bb cc dd", 5) == ["aa bb", "cc dd"]
    assert wrap_lines("x" * 12, 5) == ["xxxxx", "xxxxx", "xx"]
    assert wrap_lines("    x" + "y" * 80, 10)[0] == "    xyyyyy"


def test_wrapping_is_linear_in_blanks() -> None:
    started = time.process_time()
    wrap_spans(" " * 4_000_000 + "x")
    tidy(" " * 4_000_000 + "x")
    assert time.process_time() - started < 5


@given(TEXT)
def test_safe_text_has_no_markup_and_no_strange_line_ends(text: str) -> None:
    safe = make_safe(text)
    assert not set(safe) & set("【】\r\v\f\x85\u2028\u2029\x00\u202e")
    assert make_safe(safe) == safe
    assert safe.splitlines() == [line for line in safe.split("\n") if line or safe] or safe.endswith("\n")
    safe.encode("utf-8")


def test_emoji_and_joiners_survive() -> None:
    family = "👨‍👩‍👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿 می‌خواهم"
    assert make_safe(family) == family


def test_plain_keeps_our_brackets() -> None:
    assert make_plain("【1†x】\r\ny\u2028z\xadw") == "【1†x】\ny\nzw"


@given(TEXT, st.integers(2, 50))
def test_one_line_is_one_line_within_the_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())


def test_links_are_written_as_the_model_knows_them() -> None:
    assert link_markup(3, "Some †text", None) == "【3†Some ‡text】"
    assert link_markup(3, "t", "other.org") == "【3†t†other.org】"


@given(st.lists(st.tuples(WORDS, st.booleans(), st.booleans()), max_size=8))
def test_visible_text_maps_both_ways(parts: list[tuple[str, bool, bool]]) -> None:
    written = "".join(
        link_markup(number, words, "d.org" if foreign else None) if linked else words
        for number, (words, linked, foreign) in enumerate(parts)
    )
    visible = VisibleText(written)
    assert visible.text == "".join(words for words, _, _ in parts)
    for offset, character in enumerate(visible.text):
        assert written[visible.to_page(offset)] == character
        assert visible.from_page(visible.to_page(offset)) == offset
    mapped = [visible.from_page(offset) for offset in range(len(written) + 1)]
    assert mapped == sorted(mapped)
    assert not mapped or mapped[-1] == len(visible.text)
    assert re.sub("【.*?】", "", written, flags=re.DOTALL) in written or "【" in written

"""The pure functions between pages and what is shown, as properties."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gpt_oss.tools.simple_browser.citations import Source, link_citations, markdown_link
from gpt_oss.tools.simple_browser.find import MAX_MATCHES, find_in_page, match_offsets
from gpt_oss.tools.simple_browser.page_contents import PageContents
from gpt_oss.tools.simple_browser.text import wrap_lines, wrap_spans
from gpt_oss.tools.simple_browser.view import fitting

SOURCES = {
    0: Source("https://example.com/a b(c)", "A"),
    1: Source("https://other.org/", "B"),
    2: Source("file:///docs/My%20notes.md", "C"),
}
CITATIONS = ["【0†L1-L2】", "【1†L3】", "【2†L0】", "【7†L1】", "【1†source】"]
PIECES = st.sampled_from([*CITATIONS, "【", "】", "†", "【1", "【1†", "word", " ", ".", "é😀", "\n"])


def resolve(cursor: int, line: int | None) -> Source | None:
    return SOURCES.get(cursor)


@given(st.lists(PIECES, max_size=15), st.booleans())
def test_annotations_are_exactly_the_links(pieces: list[str], hide: bool) -> None:
    text, annotations, partial = link_citations("".join(pieces), resolve, hide)
    position = 0
    for annotation in annotations:
        link = text[annotation["start_index"] : annotation["end_index"]]
        assert link == markdown_link(annotation["url"])
        assert text[annotation["start_index"] - 1] == "("
        assert text[annotation["end_index"]] == ")"
        assert annotation["start_index"] >= position
        position = annotation["end_index"]
        assert annotation["type"] == "url_citation"
        assert annotation["title"] == next(
            source.title for source in SOURCES.values() if source.url == annotation["url"]
        )
    json.dumps(annotations)
    assert text.count("](") == len(annotations)
    if hide and partial:
        assert link_citations("".join(pieces), resolve, False)[0].startswith(text)


@given(st.lists(PIECES, max_size=12))
def test_what_was_shown_while_streaming_stays(pieces: list[str]) -> None:
    whole = "".join(pieces)
    final, final_annotations, _ = link_citations(whole, resolve)
    for end in range(len(whole) + 1):
        shown, annotations, _ = link_citations(whole[:end], resolve, True)
        assert final.startswith(shown)
        assert final_annotations[: len(annotations)] == annotations


def test_half_a_citation_is_held_back() -> None:
    for half in ("【", "【1", "【12†", "【1†L", "【1†L3-", "【1†L3-L4"):
        assert link_citations(f"text{half}", resolve, True) == ("text", [], True)
        assert link_citations(f"text{half}", resolve, False) == (f"text{half}", [], True)
    for other in ("【x", "【1†L3】", "【†", "text", "【1】"):
        assert link_citations(other, resolve, True)[2] is False


def test_links_read_well() -> None:
    assert link_citations("Blue【1†L3】. Red 【1†L3】and", resolve)[0] == (
        "Blue ([other.org](https://other.org/)). Red ([other.org](https://other.org/)) and"
    )
    assert markdown_link("https://example.com/a b(c)") == "[example.com](https://example.com/a%20b%28c%29)"
    assert markdown_link("file:///docs/My%20notes.md") == "[My notes.md](file:///docs/My%20notes.md)"


def test_a_domain_cannot_break_the_link() -> None:
    assert markdown_link("https://[::1]:80/x") == "[(::1):80](https://[::1]:80/x)"


@given(st.lists(st.text(max_size=12), min_size=1, max_size=20), st.integers(1, 60))
def test_as_many_lines_as_fit(lines: list[str], budget: int) -> None:
    count = fitting(lines, budget, len)
    assert 1 <= count <= len(lines)
    assert count == 1 or len("\n".join(lines[:count])) <= budget
    assert count == len(lines) or len("\n".join(lines[: count + 1])) > budget


@given(st.text(alphabet="ab \n", max_size=200), st.text(alphabet="ab ", min_size=1, max_size=6))
def test_find_is_search_in_text_with_single_blanks(text: str, pattern: str) -> None:
    plain, wanted = " ".join(text.split()), " ".join(pattern.split())
    found = match_offsets(text, pattern)
    assert bool(found) == (bool(wanted) and wanted in plain)
    for offset in found:
        assert " ".join(text[offset:].split()).startswith(wanted)


@given(st.lists(st.sampled_from(["alpha", "beta", "x" * 30, "【0†linked alpha beta†d.org】"]), min_size=1, max_size=80))
def test_matches_are_on_the_lines_they_name(words: list[str]) -> None:
    page = PageContents(url="https://a.org/", title="T", text=" ".join(words), urls={"0": "https://d.org/"})
    lines = wrap_lines(page.text)
    matches = find_in_page(page, wrap_spans(page.text), "ALPHA")
    if matches is None:
        assert "alpha" not in page.text
        return
    assert matches.snippets is not None
    assert set(matches.snippets) == set(matches.urls)
    for number, match in matches.snippets.items():
        assert match.line_idx is not None
        assert "alpha" in lines[match.line_idx]
        assert f"【{number}†match at L{match.line_idx}】" in matches.text
        assert "【" not in match.text
    assert len(matches.urls) <= MAX_MATCHES


def test_find_takes_the_pattern_literally() -> None:
    page = PageContents(url="u", title="T", text="price (USD) $5.00 [a-z]+ C++ ﬁ", urls={})
    spans = wrap_spans(page.text)
    assert all(find_in_page(page, spans, pattern) for pattern in ("(usd)", "$5.00", "[a-z]+", "c++", "C++ ﬁ"))
    assert find_in_page(page, spans, "$5x00") is None

"""Citations while they stream: the same as the browser tool makes of the whole text."""

import random

from gpt_oss.harmony.citations import CitationStream
from gpt_oss.tools.simple_browser.citations import Source, link_citations

PAGES = {
    0: ("https://example.com/a b", "A"),
    3: ("https://en.wikipedia.org/wiki/X_(y)", "X"),
    12: ("file:///n.md", "N"),
}
PIECES = [
    "【0†L1】",
    "【3†L2-L4】",
    "【12†】",
    "【7†L1】",
    "【",
    "】",
    "3†",
    "word",
    " ",
    ".",
    "漢字",
    "🫠",
    "\n",
    "(",
    "【3",
    "【x】",
]


def normalize(text, hide_partial_citations=False):
    def resolve(cursor, line):
        return Source(*PAGES[cursor]) if cursor in PAGES else None

    return link_citations(text, resolve, hide_partial_citations)


def test_streams_to_what_the_whole_text_becomes():
    rng = random.Random()
    for _ in range(3_000):
        text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 12)))
        expected, annotations, _ = normalize(text)
        stream, shown, links = CitationStream(normalize), "", []
        at = 0
        while at < len(text):
            size = rng.choice((1, 1, 2, 5, 40))
            for piece, found in stream.feed(text[at : at + size]):
                shown += piece
                links += found
            at += size
        shown += stream.flush()
        assert shown == expected, text
        assert [(link.start, link.end, link.url, link.title) for link in links] == [
            (a["start_index"], a["end_index"], a["url"], a["title"]) for a in annotations
        ], text


def test_nothing_is_held_back_but_what_may_become_a_citation():
    stream = CitationStream(normalize)
    assert "".join(piece for piece, _ in stream.feed("a 【b and 【3†L")) == "a 【b and "
    assert stream.flush() == "【3†L"
    assert "".join(piece for piece, _ in stream.feed("【3†" + "x" * 300)).startswith("【3†")


def test_without_a_browser_text_passes_at_once():
    stream = CitationStream(None)
    assert list(stream.feed("【3†L")) == [("【3†L", [])]

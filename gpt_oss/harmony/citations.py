"""Citations in an answer, while it streams: `【3†L5-L9】` becomes a link and a position.

In: text as it comes. Out: pieces of text, each with the links in it. What begins like a citation is held
back until it is one, or cannot become one any more. Who knows the pages (the browser tool) turns a citation
into text.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

OPEN = "【"
_COMPLETE = re.compile(r"【[^【】]*】")
_BEGINNING = re.compile(r"【\d{0,9}(?:†[^【】]{0,220})?\Z")

Normalize = Callable[[str], tuple[str, list[dict[str, Any]], bool]]
"""As `SimpleBrowserTool.normalize_citations`: text -> (text with links, annotations, whether it ends in half a one)."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link in the text given out so far: characters [start, end) of all of it."""

    start: int
    end: int
    url: str
    title: str


class CitationStream:
    """One message's text on its way to the user; joined it is what `normalize` makes of the whole."""

    def __init__(self, normalize: Normalize | None):
        self._normalize = normalize
        self._held = ""
        self._position = 0  # characters given out
        self._last = ""  # the last of them: whether a blank is needed before a link
        self._after_link = False

    def feed(self, text: str) -> Iterator[tuple[str, list[Link]]]:
        """Take text in; give out what is settled."""
        if self._normalize is None:
            yield text, []
            return
        self._held += text
        while self._held:
            opened = self._held.find(OPEN)
            if opened != 0:
                yield self._give(opened if opened > 0 else len(self._held))
            elif citation := _COMPLETE.match(self._held):
                yield self._cite(citation[0])
            elif _BEGINNING.match(self._held):
                return
            else:
                yield self._give(1)

    def flush(self) -> str:
        """The message is over: what was held back never became a citation."""
        return self._give(len(self._held))[0]

    def _give(self, count: int) -> tuple[str, list[Link]]:
        text, self._held = self._held[:count], self._held[count:]
        if self._after_link and text[:1].isalnum():
            text = f" {text}"
        return self._given(text), []

    def _given(self, text: str) -> str:
        self._position += len(text)
        self._last = text[-1:] or self._last
        self._after_link = self._after_link and not text
        return text

    def _cite(self, citation: str) -> tuple[str, list[Link]]:
        assert self._normalize is not None
        text, annotations, _ = self._normalize(self._last + citation)
        if not annotations:
            return self._give(len(citation))
        self._held = self._held[len(citation) :]
        start = self._position - len(self._last)
        links = [
            Link(start + a["start_index"], start + a["end_index"], a["url"], a["title"]) for a in annotations
        ]
        shown = self._given(text[len(self._last) :])
        self._after_link = True
        return shown, links

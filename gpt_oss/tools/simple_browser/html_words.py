"""The words inside an element, on one line, read no further than needed."""

from lxml.etree import _Element


def inner_text(element: _Element, limit: int) -> str:
    """All text under `element` with single spaces; if that is longer, more than `limit` characters of it."""
    pieces: list[str] = []
    length = -1
    for piece in element.itertext():
        words = " ".join(piece[: 20 * limit].split())
        if words:
            pieces.append(words)
            length += len(words) + 1
        if length > limit:
            break
    return " ".join(pieces)

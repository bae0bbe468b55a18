"""Tables as lines of text: one row a line, ` | ` between cells; tables that lay out a page become blocks.

Works in place on an lxml tree whose inline elements are already plain text.
"""

from lxml.etree import SubElement, _Element

from gpt_oss.tools.simple_browser.html_words import inner_text

MAX_CELL_CHARS = 500
_PARTS = ("table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption", "colgroup", "col")
_TEXT_TABLE = "text-table"  # stands for a table already turned into lines, until all are
_LAYOUT_SIGNS = (_TEXT_TABLE, "pre", "h1", "h2", "h3", "h4")


def flatten_tables(root: _Element) -> None:
    """Replace every table under `root`, the inner ones first."""
    for table in reversed(list(root.iter("table"))):
        rows = _data_rows(table)
        if rows is not None:
            _become_lines(table, rows)
    for part in list(root.iter(_TEXT_TABLE, *_PARTS)):
        part.tag = "div"


def _data_rows(table: _Element) -> list[str] | None:
    """Lines of a table of data; None for a layout: a single column, or a cell with a whole piece of page."""
    lines = []
    columns = 0
    for row in table.iter("tr"):
        cells = list(row.iterchildren("td", "th"))
        texts = [inner_text(cell, MAX_CELL_CHARS) for cell in cells]
        if max(map(len, texts), default=0) > MAX_CELL_CHARS or any(True for _ in row.iter(*_LAYOUT_SIGNS)):
            return None
        columns = max(columns, len(cells))
        lines.append(" | ".join(texts))
        if len(lines) == 1 and len(cells) > 1 and all(cell.tag == "th" for cell in cells):
            lines.append("|".join(["---"] * len(cells)))
    return [line for line in lines if line] if columns > 1 else None


def _become_lines(table: _Element, rows: list[str]) -> None:
    caption = table.find("caption")
    heading = inner_text(caption, MAX_CELL_CHARS) if caption is not None else ""
    lines = [heading, *rows] if heading else rows
    table.clear(keep_tail=True)
    table.tag = _TEXT_TABLE
    table.text = lines[0] if lines else ""
    for line in lines[1:]:
        SubElement(table, "br").tail = line

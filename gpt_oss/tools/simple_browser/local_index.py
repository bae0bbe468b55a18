"""A full-text index of a folder's documents in SQLite (FTS5), ranked by BM25, kept up to date by `refresh`.

What is indexed are passages of a few lines of a document's page, so that a hit knows its line there. The
index is a cache: it may be deleted at any time. One `LocalIndex` may be used from several threads.
"""

import hashlib
import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt_oss.tools.simple_browser.local_files import documents, read_page
from gpt_oss.tools.simple_browser.page_contents import EMPTY_PAGE
from gpt_oss.tools.simple_browser.text import wrap_spans

PASSAGE_LINES = 10
MAX_QUERY_WORDS = 64
TITLE_WEIGHT = 4.0
COMMIT_EVERY = 50  # documents; what was indexed before an interruption is kept

_VERSION = 1  # of the tables and of how pages are made and cut; another one in the file means: start anew
_TABLES = """
CREATE TABLE documents (
    path TEXT PRIMARY KEY, mtime_ns INTEGER, size INTEGER, digest BLOB, title TEXT,
    first_passage INTEGER, last_passage INTEGER
);
CREATE VIRTUAL TABLE passages USING fts5 (
    title, body, path UNINDEXED, line UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2'
);
"""
_CJK = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af])")
_GAP = "\u200b"  # separates tokens for FTS5 and is invisible; pages contain none
_MATCH_START = "\x01"
_MATCH_END = "\x02"


@dataclass(frozen=True)
class Hit:
    """A document, its best passage and the line of the page where that passage first matches."""

    path: Path
    title: str
    passage: str
    line: int


def match_expression(query: str) -> str:
    """Write `query` as an FTS5 expression: any of its words, each quoted, so that no syntax is left."""
    words = dict.fromkeys(re.findall(r"\w+", query.lower()))
    return " OR ".join(f'"{_spaced(word)}"' for word in list(words)[:MAX_QUERY_WORDS])


def _spaced(text: str) -> str:
    """Make every character of scripts that do not space their words a word of its own."""
    return _CJK.sub(rf"{_GAP}\1{_GAP}", text)


def _passages(page_text: str) -> Iterator[tuple[int, str]]:
    """Cut a page into (line, text) of a few lines each, without its URL on top; nothing for an empty page."""
    body_start = page_text.index("\n", 1) + 1
    if page_text[body_start:] == EMPTY_PAGE:
        return
    spans = wrap_spans(page_text)
    first_line = next(line for line, (start, _) in enumerate(spans) if start >= body_start)
    for line in range(first_line, len(spans), PASSAGE_LINES):
        yield line, "\n".join(page_text[start:end] for start, end in spans[line : line + PASSAGE_LINES])


class LocalIndex:
    """The index of `root` in the SQLite file `database` (or `:memory:`)."""

    def __init__(self, root: Path, database: str):
        """Open or create the index; nothing is read from `root` yet. Raises sqlite3.Error."""
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(database, timeout=30, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.Error:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == _VERSION:
            return
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for name in ("documents", "passages"):
                self._connection.execute(f"DROP TABLE IF EXISTS {name}")
            for statement in _TABLES.split(";\n"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def refresh(self) -> int:
        """Bring the index up to date with the folder; returns how many documents had to be read.

        A file of unchanged size and time is not read; one of unchanged content is not indexed again.
        """
        with self._lock:
            rows = self._connection.execute("SELECT path, mtime_ns, size FROM documents")
            known = {path: (mtime_ns, size) for path, mtime_ns, size in rows}
            read = 0
            for path in documents(self.root):
                try:
                    status = path.stat()
                    if known.pop(str(path), None) == (status.st_mtime_ns, status.st_size):
                        continue
                    self._update(path, path.read_bytes(), status.st_mtime_ns, status.st_size)
                except OSError:  # gone or closed to us since it was listed: as if it were not there
                    known[str(path)] = (0, 0)
                    continue
                read += 1
                if read % COMMIT_EVERY == 0:
                    self._connection.commit()
            for gone in known:
                self._remove(gone)
            self._connection.commit()
            return read

    def _update(self, path: Path, data: bytes, mtime_ns: int, size: int) -> None:
        digest = hashlib.sha256(data).digest()
        execute = self._connection.execute
        same = execute(
            "UPDATE documents SET mtime_ns = ?, size = ? WHERE path = ? AND digest = ?",
            (mtime_ns, size, str(path), digest),
        )
        if same.rowcount:
            return
        self._remove(str(path))
        page = read_page(path, data)
        (last,) = execute("SELECT ifnull(max(rowid), 0) FROM passages").fetchone()
        title = _spaced(f"{page.title} {path.relative_to(self.root)}")
        passages = [(title, _spaced(body), str(path), line) for line, body in _passages(page.text)]
        self._connection.executemany("INSERT INTO passages (title, body, path, line) VALUES (?, ?, ?, ?)", passages)
        execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)",
            (str(path), mtime_ns, size, digest, page.title, last + 1, last + len(passages)),
        )

    def _remove(self, path: str) -> None:
        row = self._connection.execute(
            "SELECT first_passage, last_passage FROM documents WHERE path = ?", (path,)
        ).fetchone()
        if row is not None:
            self._connection.execute("DELETE FROM passages WHERE rowid BETWEEN ? AND ?", row)
            self._connection.execute("DELETE FROM documents WHERE path = ?", (path,))

    def search(self, query: str, limit: int) -> list[Hit]:
        """Return the best `limit` documents for the words of `query`, the best passage of each."""
        expression = match_expression(query)
        if not expression:
            return []
        with self._lock:
            best: dict[str, int] = {}
            ranked = self._connection.execute(
                "SELECT path, rowid FROM passages WHERE passages MATCH ? "
                f"ORDER BY bm25(passages, {TITLE_WEIGHT}, 1.0), rowid",
                (expression,),
            )
            for path, rowid in ranked:
                best.setdefault(path, rowid)
                if len(best) == limit:
                    break
            return [self._hit(path, rowid, expression) for path, rowid in best.items()]

    def _hit(self, path: str, rowid: int, expression: str) -> Hit:
        title, first, marked = self._connection.execute(
            "SELECT documents.title, line, highlight(passages, 1, ?, ?) "
            "FROM passages JOIN documents USING (path) WHERE passages MATCH ? AND passages.rowid = ?",
            (_MATCH_START, _MATCH_END, expression, rowid),
        ).fetchone()
        before, found, _ = marked.partition(_MATCH_START)
        line = first + before.count("\n") if found else first
        for mark in (_MATCH_START, _MATCH_END, _GAP):
            marked = marked.replace(mark, "")
        return Hit(Path(path), title, marked, line)

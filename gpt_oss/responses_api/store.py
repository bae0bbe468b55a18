"""Stored responses in SQLite: what was acknowledged survives a restart and a kill in the middle of a write.

In: records, one per response. Out: the same by id, by an item's id, or not any more: the store is bounded by number,
size and age, and forgets the oldest first. A record holds its whole conversation, so that forgetting or deleting one
never breaks another. Used from many threads; every method is short, but does I/O.
"""

import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt_oss.errors import CacheError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, created REAL NOT NULL, bytes INTEGER NOT NULL, open INTEGER NOT NULL, record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_created ON responses (created);
CREATE TABLE IF NOT EXISTS items (
    id TEXT NOT NULL, response TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE, PRIMARY KEY (id, response)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_response ON items (response);
"""


@dataclass
class Record:
    """A response and what is needed to continue it.

    response: as the API shows it. input: its input items, with ids. history: the conversation up to its end
    (`conversation.Entry.to_dict`), without instructions. events: all that were streamed. browser: what the browser of
    the conversation has seen (`HostedTools.browser_state`).
    """

    response: dict[str, Any]
    input: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    browser: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The response's id."""
        return self.response["id"]

    @property
    def is_open(self) -> bool:
        """Whether it is still being made."""
        return self.response["status"] in ("queued", "in_progress")


class Store:
    """The database at `path`, in memory without one. Raises CacheError where it cannot be opened."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_responses: int = 10_000,
        max_bytes: int = 1 << 30,
        max_age: float = 30 * 86400.0,
    ):
        self._limits = (max_responses, max_bytes, max_age)
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise CacheError(f"{path}: cannot be used to store responses ({error}); choose another --store") from error

    def put(self, record: Record) -> None:
        """Write a record, replacing an older one of its id; returns when it is safe. Raises sqlite3.Error."""
        packed = zlib.compress(json.dumps(vars(record)).encode(), 3)
        ids = {item["id"] for item in [*record.input, *record.response["output"]]}
        with self._lock, self._db:
            self._db.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "bytes = excluded.bytes, open = excluded.open, record = excluded.record",
                (record.id, time.time(), len(packed), record.is_open, packed),
            )
            self._db.executemany("INSERT OR IGNORE INTO items VALUES (?, ?)", [(id, record.id) for id in ids])
            self._forget()

    def get(self, id: str) -> Record | None:
        """The record, None if there is none."""
        with self._lock:
            row = self._db.execute("SELECT record FROM responses WHERE id = ?", (id,)).fetchone()
        return None if row is None else _unpack(row[0])

    def item(self, id: str) -> dict[str, Any] | None:
        """An item of any stored response."""
        with self._lock:
            row = self._db.execute(
                "SELECT record FROM responses JOIN items ON response = responses.id WHERE items.id = ? LIMIT 1", (id,)
            ).fetchone()
        if row is None:
            return None
        record = _unpack(row[0])
        return next(item for item in [*record.input, *record.response["output"]] if item["id"] == id)

    def delete(self, id: str) -> bool:
        """Forget a response; whether there was one."""
        with self._lock, self._db:
            return self._db.execute("DELETE FROM responses WHERE id = ?", (id,)).rowcount > 0

    def unfinished(self) -> list[Record]:
        """Records of responses that were being made when the process ended."""
        with self._lock:
            rows = self._db.execute("SELECT record FROM responses WHERE open").fetchall()
        return [_unpack(row[0]) for row in rows]

    def __len__(self) -> int:
        with self._lock:
            return self._db.execute("SELECT count(*) FROM responses").fetchone()[0]

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _forget(self) -> None:
        """Delete what is beyond the limits, but not what is still being made."""
        count, size, age = self._limits
        self._db.execute("DELETE FROM responses WHERE created < ? AND NOT open", (time.time() - age,))
        number, total = self._db.execute("SELECT count(*), sum(bytes) FROM responses").fetchone()
        if number <= count and total <= size:
            return
        self._db.execute(
            "DELETE FROM responses WHERE NOT open AND id IN (SELECT id FROM (SELECT id, "
            "row_number() OVER newest AS rank, sum(bytes) OVER newest AS total FROM responses "
            "WINDOW newest AS (ORDER BY created DESC, rowid DESC)) WHERE rank > ? OR (total > ? AND rank > 1))",
            (count, size),
        )


def _unpack(packed: bytes) -> Record:
    return Record(**json.loads(zlib.decompress(packed)))


def page(items: Sequence[dict[str, Any]], after: str | None, limit: int, order: str) -> dict[str, Any]:
    """A page of a list of items, in the API's form. after: the id of the last item of the page before."""
    chosen = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        ids = [item["id"] for item in chosen]
        chosen = chosen[ids.index(after) + 1 :] if after in ids else []
    shown = chosen[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(chosen) > limit,
    }

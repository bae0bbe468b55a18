"""What is stored, and what is forgotten: by number, by size, by age, never what is still being made."""

import random
import sqlite3
import time

import pytest

from gpt_oss.errors import CacheError
from gpt_oss.responses_api.store import Record, Store


def record(id, status="completed", size=0, items=()):
    noise = random.Random(id).randbytes(size // 2).hex()  # which does not shrink below half
    return Record({"id": id, "status": status, "output": [{"id": item} for item in items], "text": noise})


def test_it_comes_back_as_it_was(tmp_path):
    kept = Record({"id": "a", "status": "completed", "output": []}, [{"id": "i"}], [{"m": "é"}], [{"n": 1}], {"b": 2})
    store = Store(tmp_path / "s.sqlite")
    store.put(kept)
    store.close()
    assert Store(tmp_path / "s.sqlite").get("a") == kept


def test_a_later_record_replaces_the_first_and_keeps_its_age():
    store = Store(max_responses=2)
    for id in ("a", "b"):
        store.put(record(id))
    store.put(record("a", status="failed"))
    assert store.get("a").response["status"] == "failed" and len(store) == 2
    store.put(record("c"))
    assert [store.get(id) is not None for id in "abc"] == [False, True, True]


def test_size(tmp_path):
    store = Store(tmp_path / "s.sqlite", max_bytes=50_000)
    for number in range(20):
        store.put(record(str(number), size=10_000))
    assert 1 < len(store) < 20 and store.get("19") and store.get("0") is None
    store.put(record("huge", size=200_000))
    assert len(store) == 1 and store.get("huge")  # the newest stays, whatever its size: it was just acknowledged


def test_age():
    store = Store(max_age=0.3)
    store.put(record("old", items=["i"]))
    store.put(record("open", status="in_progress"))
    time.sleep(0.4)
    store.put(record("new"))
    assert store.get("old") is None and store.get("new") and store.get("open")
    assert store.item("i") is None


def test_what_is_still_being_made_is_not_forgotten():
    store = Store(max_responses=1)
    store.put(record("open", status="queued"))
    for id in ("a", "b"):
        store.put(record(id))
    assert store.get("open") and [found.id for found in store.unfinished()] == ["open"]


def test_items_are_found_until_their_response_is_deleted():
    store = Store()
    store.put(record("a", items=["i", "j"]))
    assert store.item("j") == {"id": "j"} and store.item("k") is None
    assert store.delete("a") and not store.delete("a")
    assert store.item("j") is None


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be looked at" * 30)
    with pytest.raises(CacheError, match="--store"):
        Store(tmp_path / "text")
    with pytest.raises(CacheError, match="--store"):
        Store(tmp_path / "absent" / "s.sqlite")


def test_a_write_that_fails_changes_nothing():
    store = Store()
    store.put(record("a"))
    with pytest.raises((sqlite3.Error, TypeError)):
        store.put(Record({"id": "a", "status": "completed", "output": [], "created": {1}}))
    assert store.get("a") == record("a")

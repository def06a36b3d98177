"""The table has each row once, or not at all."""

import sqlite3

import pytest

from recon_ad.errors import UserError
from recon_ad.line.store import Key, Store


def test_a_row_is_there_once_or_not_at_all(tmp_path):
    store = Store(tmp_path / "line.sqlite")
    key = Key("a.png", 10, 20)
    row = {"outcome": "good", "score": 1.0, "latency": 0.1, "waiting": 0}
    store.commit(key, row)
    store.commit(key, row | {"score": 2.0})
    assert [r["score"] for r in store.rows()] == [1.0]
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(Key("b.png", 1, 1), row | {"latency": None})
    assert store.known() == [key]
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["line.sqlite"]


def test_another_file_in_its_place_gets_a_sentence(tmp_path):
    (tmp_path / "line.sqlite").write_bytes(b"something else, long enough" * 10)
    with sqlite3.connect(tmp_path / "old.sqlite") as old:
        old.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, name TEXT)")
    for name, words in (("line", "cannot be used as the table"), ("old", "another version")):
        with pytest.raises(UserError, match=words):
            Store(tmp_path / f"{name}.sqlite")

"""Every image that a line has judged, in one SQLite file: a row is there whole or not at all, also
after a power cut (write-ahead log, synced at each commit). The disk has to be a local one.

An image is known by its name, size and time of last change: a camera may use a name again.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recon_ad.detector.image_files import BROKEN
from recon_ad.errors import UserError

# Of a row, with SQLite's types. Times are seconds since 1970, latency is in seconds.
COLUMNS = {
    "name": "TEXT NOT NULL",
    "bytes": "INTEGER NOT NULL",
    "changed_ns": "INTEGER NOT NULL",
    "committed": "REAL NOT NULL",
    "outcome": "TEXT NOT NULL",  # one of those above
    "score": "REAL",
    "threshold": "REAL",
    "anomalous": "INTEGER",
    "regions": "INTEGER",
    "registration": "REAL",  # its confidence, where parts are aligned
    "brightness": "REAL",
    "sharpness": "REAL",
    "latency": "REAL NOT NULL",
    "waiting": "INTEGER NOT NULL",
    "error": "TEXT",
    "defect_probability": "REAL",
}
HALF_WRITTEN = 600.0  # s in which a file that could not be read may become whole
BUSY = 10.0  # s that a reader may hold the file


class Key(NamedTuple):
    """What tells one image from another.

    Attributes:
      name: path below the watched folder, with forward slashes.
      bytes: the file's size.
      changed_ns: when it was last changed.
    """

    name: str
    bytes: int
    changed_ns: int


class Store:
    """The file, open.

    Args:
      path: made if it is not there.

    Raises:
      UserError: it is no such file.
      sqlite3.OperationalError: the disk is full, or another program holds it.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._connection = self._opened()
        self._connection.row_factory = sqlite3.Row

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            connection.execute(
                "CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY AUTOINCREMENT, "
                f"{columns}, UNIQUE (name, bytes, changed_ns))"
            )
            if not connection.execute("PRAGMA user_version").fetchone()[0]:
                connection.execute(f"PRAGMA user_version = {secrets.randbelow(2**31 - 1) + 1}")
            found = {row[1] for row in connection.execute("PRAGMA table_info(images)")}
        except sqlite3.DatabaseError as error:
            connection.close()
            if isinstance(error, sqlite3.OperationalError):  # a full disk, say: not the file's
                raise
            raise UserError(
                f"{self._path} cannot be used as the table of a line ({error}): move it away, or "
                "give another --output."
            ) from None
        if found != {"id", *COLUMNS}:
            connection.close()
            raise UserError(
                f"{self._path} was written by another version: move it away, or give another "
                "--output."
            )
        return connection

    def close(self) -> None:
        """Leaves one file: the log is merged into it."""
        self._connection.close()

    def known(self) -> set[Key]:
        """All images with a row."""
        rows = self._connection.execute("SELECT name, bytes, changed_ns FROM images")
        return {Key(*row) for row in rows}

    def known_as(self, name: str) -> set[Key]:
        """Images with a row that have that name."""
        command = "SELECT name, bytes, changed_ns FROM images WHERE name = ?"
        return {Key(*row) for row in self._connection.execute(command, (name,))}

    @property
    def identity(self) -> int:
        """A number that another table does not have."""
        return self._connection.execute("PRAGMA user_version").fetchone()[0]

    def commit(self, key: Key, row: Mapping[str, Any]) -> None:
        """Adds the row of an image, once; the same image again changes nothing.

        A row of a broken file that is some minutes old at most becomes that of another file with
        the same name: it was not yet whole when it was read. A row stays where it is in the order.

        Raises:
          sqlite3.OperationalError: the disk is full, or the file cannot be written; nothing of the
            row is there then.
        """
        values = {**row, **key._asdict(), "committed": time.time()}
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            half = self._connection.execute(
                f"SELECT id FROM images WHERE name = :name AND outcome = '{BROKEN}' AND "
                "(bytes, changed_ns) != (:bytes, :changed_ns) AND committed > :since",
                values | {"since": values["committed"] - HALF_WRITTEN},
            ).fetchone()
            if half and key not in self.known_as(key.name):
                blank = dict.fromkeys(COLUMNS) | values | {"id": half["id"]}
                given = ", ".join(f"{name} = :{name}" for name in COLUMNS)
                self._connection.execute(f"UPDATE images SET {given} WHERE id = :id", blank)
            else:
                self._connection.execute(
                    f"INSERT INTO images ({names}) VALUES ({places}) "
                    "ON CONFLICT (name, bytes, changed_ns) DO NOTHING",
                    values,
                )
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def rows(self, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """Rows with an id above that, in the order in which they were committed."""
        command = "SELECT * FROM images WHERE id > ? ORDER BY id"
        for row in self._connection.execute(command, (after,)):
            yield dict(row)

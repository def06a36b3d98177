"""Table of all images that a line has judged, in one SQLite file.

Rows are written whole or not at all, even in a power cut (write-ahead log, synced at each commit).
The disk must be a local one.

An image is identified by its name, size and time of last change and, if these are equal, by its
content, because a camera may reuse a name within one tick of a coarse clock.

Each attempt is recorded before the image is opened. An image that ended the process at two attempts
(too little memory, a fault in a library) gets a row as a broken file, so that a restart continues
with the others.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from recon_ad.detector.image_files import BROKEN
from recon_ad.errors import UserError
from recon_ad.runtime import files

# Columns with their SQLite types. Times are seconds since 1970, and latency is in seconds.
COLUMNS = {
    "name": "TEXT NOT NULL",
    "bytes": "INTEGER NOT NULL",
    "changed_ns": "INTEGER NOT NULL",
    "committed": "REAL NOT NULL",
    "outcome": "TEXT NOT NULL",  # one of those in detector.image_files
    "score": "REAL",
    "threshold": "REAL",
    "anomalous": "INTEGER",
    "regions": "INTEGER",
    "registration": "REAL",  # its confidence, if parts are aligned
    "brightness": "REAL",
    "sharpness": "REAL",
    "latency": "REAL NOT NULL",
    "waiting": "INTEGER NOT NULL",
    "error": "TEXT",
    "defect_probability": "REAL",
    "normalised_score": "REAL",
    "inode": "INTEGER",
    "status_ns": "INTEGER",
    "sha256": "TEXT",  # SHA-256 of the file's content; "" if it could not be read
}
ADDED = ("normalised_score", "inode", "status_ns", "sha256")  # some are missing in older tables
TRIED = 2  # attempts that ended the process before an image counts as broken
HALF_WRITTEN = 600.0  # s within which a file that could not be read may be completed
BUSY = 10.0  # s for which a reader may lock the file

_TABLE = (
    "CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    + ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    + ", UNIQUE (name, bytes, changed_ns, sha256))"
)
_KEY = "WHERE name = :name AND bytes = :bytes AND changed_ns = :changed_ns"
_SAME = f"{_KEY} AND (sha256 IS NULL OR sha256 = :sha256)"


class Key(NamedTuple):
    """Identity of an image.

    Attributes:
      name: Path below the watched folder, with forward slashes.
      bytes: Size of the file.
      changed_ns: Time of the last change of its content (mtime).
      inode: Inode of the file; 0 if unknown.
      status_ns: Time of the last change of its content or status (ctime); 0 if unknown.
    """

    name: str
    bytes: int
    changed_ns: int
    inode: int = 0
    status_ns: int = 0


class Store:
    """The line's table, open for reading and writing.

    Args:
      path: Path of the file, which is created if it does not exist.

    Raises:
      UserError: If the file is not a line's table.
      sqlite3.OperationalError: If the disk is full or another program holds the file.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._noted: Key | None = None  # the image that is being judged
        self._connection = self._opened()
        self._connection.row_factory = sqlite3.Row
        # Damaged text in one field must not make the other rows unreadable.
        self._connection.text_factory = lambda text: text.decode(errors="replace")
        self._file = files.identity(path)

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(
                "CREATE TABLE IF NOT EXISTS attempts (name TEXT, bytes INTEGER, changed_ns "
                "INTEGER, count INTEGER NOT NULL, PRIMARY KEY (name, bytes, changed_ns))"
            )
            if not connection.execute("PRAGMA user_version").fetchone()[0]:
                connection.execute(f"PRAGMA user_version = {secrets.randbelow(2**31 - 1) + 1}")
            found = [row[1] for row in connection.execute("PRAGMA table_info(images)")]
            columns = {"id", *COLUMNS}
            if columns - {*ADDED} <= set(found) < columns:
                _take_over(connection, found)
                found = [*columns]
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            connection.close()
            if isinstance(error, sqlite3.OperationalError):  # for example a full disk
                raise
            raise UserError(
                f"{self._path} cannot be used as the table of a line ({error}): move it away, or "
                "give another --output."
            ) from None
        if set(found) != {"id", *COLUMNS}:
            connection.close()
            raise UserError(
                f"{self._path} was written by another version: move it away, or give another "
                "--output."
            )
        return connection

    def close(self) -> None:
        """Close the table and merge its log into it, which leaves one file."""
        self._connection.close()

    def known(self) -> list[Key]:
        """Return all images with a row, in the order in which they were committed."""
        with self._sound():
            rows = self._connection.execute(
                "SELECT name, bytes, changed_ns, ifnull(inode, 0), ifnull(status_ns, 0) "
                "FROM images ORDER BY id"
            )
            return [Key(*row) for row in rows]

    def has(self, key: Key, sha256: str) -> bool:
        """Return whether an image with this key and content has a row, apart from its inode.

        A file that was moved or copied has one. The row takes its new inode, so that the file is
        known by it from then on.

        Args:
          key: Key of the file.
          sha256: SHA-256 of its content, or "" if it could not be read. Such a file has no row.
        """
        if not sha256:
            return False
        with self._sound():
            found = self._connection.execute(
                "UPDATE images SET inode = :inode, status_ns = :status_ns, sha256 = :sha256 "
                f"{_SAME}",
                key._asdict() | {"sha256": sha256},
            )
        return found.rowcount > 0

    @contextmanager
    def attempt(self, key: Key) -> Iterator[int]:
        """Record an attempt to open an image, and yield how many earlier ones ended the process.

        Raises:
          sqlite3.OperationalError: If the disk is full or the file cannot be written.
        """
        self._check_there()
        # The record must survive the end of the process, which needs no sync, but not a power cut.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        try:
            # Fetching all rows ends the transaction.
            ((count,),) = self._connection.execute(
                "INSERT INTO attempts VALUES (:name, :bytes, :changed_ns, 1) "
                "ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count",
                key._asdict(),
            ).fetchall()
        finally:
            self._connection.execute("PRAGMA synchronous=FULL")
        self._noted = key
        try:
            yield count - 1
        finally:
            if self._noted:  # no row was committed, and the process has not ended either
                with suppress(sqlite3.OperationalError):  # then one attempt too many is counted
                    self._connection.execute(f"DELETE FROM attempts {_KEY}", key._asdict())

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Raise UserError if the table's file turns out to be damaged."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.IntegrityError):
            raise
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self._path} is damaged ({error}): move it away and start the command again, "
                "which creates a new one."
            ) from None

    def _check_there(self) -> None:
        """Raise UserError if the table's file has been moved or deleted."""
        if files.identity(self._path) != self._file:
            raise UserError(
                f"{self._path} was moved or deleted while in use: start the command again, which "
                "creates a new one."
            )

    @property
    def identity(self) -> int:
        """A random number that identifies this table."""
        return self._connection.execute("PRAGMA user_version").fetchone()[0]

    def commit(self, key: Key, row: Mapping[str, Any]) -> None:
        """Add the row of an image. If the image already has a row, nothing changes.

        The row of a broken file that is at most a few minutes old is replaced by that of a new file
        with the same name, because the broken one was then only half written. The row keeps its
        place in the order.

        Raises:
          sqlite3.OperationalError: If the disk is full or the file cannot be written. Nothing of
            the row is stored then.
        """
        self._check_there()
        values = {"sha256": "", **row, **key._asdict(), "committed": time.time()}
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            same = self._connection.execute(f"SELECT 1 FROM images {_SAME}", values).fetchone()
            half = self._connection.execute(
                f"SELECT id FROM images WHERE name = :name AND outcome = '{BROKEN}' "
                "AND committed > :since",
                values | {"since": values["committed"] - HALF_WRITTEN},
            ).fetchone()
            if half and not same:
                blank = dict.fromkeys(COLUMNS) | values | {"id": half["id"]}
                given = ", ".join(f"{name} = :{name}" for name in COLUMNS)
                self._connection.execute(f"UPDATE images SET {given} WHERE id = :id", blank)
            elif not same:
                self._connection.execute(f"INSERT INTO images ({names}) VALUES ({places})", values)
            self._connection.execute(f"DELETE FROM attempts {_KEY}", values)
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            with self._sound():
                raise error
        self._noted = None

    def rows(self, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the rows with an id above `after`, in the order in which they were committed."""
        command = "SELECT * FROM images WHERE id > ? ORDER BY id"
        with self._sound():
            for row in self._connection.execute(command, (after,)):
                yield dict(row)


def _take_over(connection: sqlite3.Connection, columns: Sequence[str]) -> None:
    """Convert a table of an earlier version to the current columns."""
    kept = ", ".join(columns)
    connection.execute("ALTER TABLE images RENAME TO earlier")
    connection.execute(_TABLE)
    connection.execute(f"INSERT INTO images ({kept}) SELECT {kept} FROM earlier")
    connection.execute("DROP TABLE earlier")

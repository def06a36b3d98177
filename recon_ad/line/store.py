"""Every image that a line has judged, in one SQLite file: a row is there whole or not at all, also
after a power cut (write-ahead log, synced at each commit). The disk has to be a local one.

An image is known by its name, size and time of last change, and where these tie by its content: a
camera may use a name again within one tick of a coarse clock.

Before an image is opened the attempt is noted. What ended the process at two attempts (too little
memory, a fault of a library) gets a row as a broken file, so that a restart goes on with others.
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

# Of a row, with SQLite's types. Times are seconds since 1970, latency is in seconds.
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
    "registration": "REAL",  # its confidence, where parts are aligned
    "brightness": "REAL",
    "sharpness": "REAL",
    "latency": "REAL NOT NULL",
    "waiting": "INTEGER NOT NULL",
    "error": "TEXT",
    "defect_probability": "REAL",
    "normalised_score": "REAL",
    "inode": "INTEGER",
    "status_ns": "INTEGER",
    "sha256": "TEXT",  # of the file's content; "" if it could not be read
}
ADDED = ("normalised_score", "inode", "status_ns", "sha256")  # earlier versions lack some
TRIED = 2  # attempts that ended the process, after which an image counts as broken
HALF_WRITTEN = 600.0  # s in which a file that could not be read may become whole
BUSY = 10.0  # s that a reader may hold the file

_TABLE = (
    "CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    + ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    + ", UNIQUE (name, bytes, changed_ns, sha256))"
)
_KEY = "WHERE name = :name AND bytes = :bytes AND changed_ns = :changed_ns"
_SAME = f"{_KEY} AND (sha256 IS NULL OR sha256 = :sha256)"


class Key(NamedTuple):
    """What tells one image from another.

    Attributes:
      name: path below the watched folder, with forward slashes.
      bytes: the file's size.
      changed_ns: when its content was last changed (mtime).
      inode: of the file; 0 if not known.
      status_ns: when the file's content or status was last changed (ctime); 0 if not known.
    """

    name: str
    bytes: int
    changed_ns: int
    inode: int = 0
    status_ns: int = 0


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
        self._noted: Key | None = None  # the image that is being judged
        self._connection = self._opened()
        self._connection.row_factory = sqlite3.Row
        # A damaged word is no reason to read none of the others.
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
            if isinstance(error, sqlite3.OperationalError):  # a full disk, say: not the file's
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
        """Leaves one file: the log is merged into it."""
        self._connection.close()

    def known(self) -> list[Key]:
        """All images with a row, in the order in which they were committed."""
        with self._sound():
            rows = self._connection.execute(
                "SELECT name, bytes, changed_ns, ifnull(inode, 0), ifnull(status_ns, 0) "
                "FROM images ORDER BY id"
            )
            return [Key(*row) for row in rows]

    def has(self, key: Key, sha256: str) -> bool:
        """Whether an image of that content has a row, as a file that was moved or copied has; it is
        known by its inode from then on.

        Args:
          key: of the file.
          sha256: of its content; "" if it could not be read, which has no row.
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
        """Notes that an image is about to be opened; gives how often that ended the process.

        Raises:
          sqlite3.OperationalError: the disk is full, or the file cannot be written.
        """
        self._check_there()
        # It has to outlive the process, which needs no sync, and not a power cut.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        try:
            # All rows are fetched, which ends the transaction.
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
            if self._noted:  # there is no row, and none is owed to a fault
                with suppress(sqlite3.OperationalError):  # one attempt too many is counted then
                    self._connection.execute(f"DELETE FROM attempts {_KEY}", key._asdict())

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Raises UserError where the table's file turns out to be damaged."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.IntegrityError):
            raise
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self._path} is damaged ({error}): move it away and start the command again, "
                "which makes a new one."
            ) from None

    def _check_there(self) -> None:
        """Raises UserError where the table's file has been taken away."""
        if files.identity(self._path) != self._file:
            raise UserError(
                f"{self._path} was moved or deleted while it was written to: start the command "
                "again, which makes a new one."
            )

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
        """Rows with an id above that, in the order in which they were committed."""
        command = "SELECT * FROM images WHERE id > ? ORDER BY id"
        with self._sound():
            for row in self._connection.execute(command, (after,)):
                yield dict(row)


def _take_over(connection: sqlite3.Connection, columns: Sequence[str]) -> None:
    """Gives a table of an earlier version today's columns."""
    kept = ", ".join(columns)
    connection.execute("ALTER TABLE images RENAME TO earlier")
    connection.execute(_TABLE)
    connection.execute(f"INSERT INTO images ({kept}) SELECT {kept} FROM earlier")
    connection.execute("DROP TABLE earlier")

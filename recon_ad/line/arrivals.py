"""Which images of a watched folder are to be judged next.

A file that is being written is left alone: one counts as whole when neither size nor time of change
moved between two looks at least `settle` seconds apart.

A look at a folder of a million judged images costs 1.8 s of one core (EPYC, local disk). Whether
one of them has become another image costs 5 s and is seen to in a tenth of the time at most, so
that in such a folder a name that is used again is noticed within a minute.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from recon_ad.data.decode import SUFFIXES
from recon_ad.line.store import Key

SELDOM = 9  # times what a look at known names took, until the next


class Arrival(NamedTuple):
    """An image that is whole.

    Attributes:
      file: its path.
      key: what the store knows it by.
      seen: when it was first seen as it is, by the given clock.
    """

    file: Path
    key: Key
    seen: float


class Arrivals:
    """What has been seen of a folder.

    Args:
      folder: watched, with all folders below it.
      known: images that have been judged.
      settle: seconds for which a file has to stay as it is.
      clock: monotonic, in seconds.
    """

    def __init__(
        self, folder: Path, known: Iterable[Key], *, settle: float, clock: Callable[[], float]
    ):
        self._folder = folder
        self._latest: dict[str, Key] = {}  # done, by name
        self._older: set[Key] = set()  # done, of names that were used again
        self._settle, self._clock = settle, clock
        self._seen: dict[Key, float] = {}
        self._put_off: dict[Key, tuple[float, float]] = {}  # since when, until when
        self._thorough = float("-inf")  # when known names are to be looked at again
        for key in known:
            self.done(key)

    def ready(self) -> list[Arrival]:
        """Whole images that are not done, those that came first at the front."""
        now = self._clock()
        thorough = now >= self._thorough
        before, self._seen = self._seen, {}
        # A known name that has become another image stays in sight until that is done.
        changing = {key.name for key in before}
        whole = []
        for entry, path in _below(str(self._folder)):
            name = _storable(path)
            if not thorough and name in self._latest and name not in changing:
                continue
            key = _key(name, entry)
            if key is None or self._is_done(key):
                continue
            since = self._seen[key] = before.get(key, now)
            if now - since >= self._settle and self._put_off.get(key, (now, now))[1] <= now:
                whole.append(Arrival(self._folder / path, key, since))
        self._put_off = {k: v for k, v in self._put_off.items() if k in self._seen}
        if thorough:
            end = self._clock()
            self._thorough = end + SELDOM * (end - now)
        return sorted(whole, key=lambda a: (a.key.changed_ns, a.key.name))

    def key_of(self, file: Path) -> Key | None:
        """What the file is now; None if it is gone, or a dangling link that may yet be filled."""
        return _key(_storable(file.relative_to(self._folder).as_posix()), file)

    def done(self, key: Key) -> None:
        """The image has its row."""
        latest = self._latest.get(key.name)
        if latest and latest != key:
            self._older.add(latest)
        self._latest[key.name] = key

    def put_off(self, key: Key, *, pause: float, most: float) -> bool:
        """Leaves the image for so many seconds; False where that has gone on for `most`."""
        now = self._clock()
        since, _ = self._put_off.get(key, (now, now))
        self._put_off[key] = (since, now + pause)
        return now - since < most

    def _is_done(self, key: Key) -> bool:
        return self._latest.get(key.name) == key or key in self._older


def _key(name: str, file: Path | os.DirEntry) -> Key | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return Key(name, stat.st_size, stat.st_mtime_ns)


def _storable(path: str) -> str:
    """A name may hold bytes that are no UTF-8, which a table does not take."""
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def _below(folder: str, above: str = "") -> Iterator[tuple[os.DirEntry, str]]:
    """Images below the folder and their paths from there, no dotfiles; what vanishes or may not be
    read is left out."""
    # Unlike `data.listing`, which refuses what it cannot list: trays come and go here.
    folders = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and not (
                entry.is_symlink() and entry.is_dir()
            ):
                yield entry, above + entry.name
    for entry in folders:
        yield from _below(entry.path, f"{above}{entry.name}/")

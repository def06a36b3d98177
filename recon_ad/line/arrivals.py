"""Which images of a watched folder are to be judged next.

A file that is being written is left alone: one counts as whole when neither size nor time of change
moved between two looks at least `settle` seconds apart.

A file that does not come to rest for a minute is told.

A look at a folder of a million judged images costs 1.8 s of one core (EPYC, local disk). Whether
one of them has become another image costs 5 s and is seen to in a tenth of the time at most, so
that in such a folder a name that is used again is noticed within a minute.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from recon_ad.data.decode import SUFFIXES
from recon_ad.line.store import Key

SELDOM = 9  # times what a look at known names took, until the next
RESTLESS = 60.0  # s for which a file has been changing, at which that is told
INT64 = 2**63 - 1  # the largest number that a table takes

logger = logging.getLogger("recon_ad")


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
      known: images that have been judged, of one name the latest last.
      settle: seconds for which a file has to stay as it is.
      clock: monotonic, in seconds.
    """

    def __init__(
        self, folder: Path, known: Iterable[Key], *, settle: float, clock: Callable[[], float]
    ):
        self._folder = folder
        self._done = {key.name: key for key in known}  # the latest of each name
        self._settle, self._clock = settle, clock
        self._seen: dict[Key, float] = {}
        self._moving: dict[str, float] = {}  # since when, by name
        self._put_off: dict[Key, tuple[float, float]] = {}  # since when, until when
        self._thorough = float("-inf")  # when known names are to be looked at again
        self._gone = False  # whether the folder was away at the last look

    def ready(self) -> list[Arrival]:
        """Whole images that are not done, those that came first at the front."""
        now = self._clock()
        self._tell_if_gone()
        thorough = now >= self._thorough
        before, self._seen = self._seen, {}
        moving, self._moving = self._moving, {}
        # A known name that has become another image stays in sight until that is done.
        changing = {key.name for key in before}
        whole = []
        for entry, path in _below(str(self._folder)):
            name = _storable(path)
            if not thorough and name in self._done and name not in changing:
                continue
            key = _key(name, entry)
            if key is None or self._done.get(name) == key:
                continue
            since = self._seen[key] = before.get(key, now)
            if now - since < self._settle:
                self._moving[name] = self._told_if_restless(name, moving.get(name, now), now)
            elif self._put_off.get(key, (now, now))[1] <= now:
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
        self._done[key.name] = key

    def put_off(self, key: Key, *, pause: float, most: float) -> bool:
        """Leaves the image for so many seconds; False where that has gone on for `most`."""
        now = self._clock()
        since, _ = self._put_off.get(key, (now, now))
        self._put_off[key] = (since, now + pause)
        return now - since < most

    def _tell_if_gone(self) -> None:
        """Warns where the watched folder cannot be seen any more, and where it can again."""
        gone = not self._folder.is_dir()
        if gone and not self._gone:
            logger.warning("%s cannot be seen: no image arrives until it is back", self._folder)
        elif self._gone and not gone:
            logger.warning("%s is back", self._folder)
        self._gone = gone

    def _told_if_restless(self, name: str, since: float, now: float) -> float:
        """Since when the file has been changing; infinity once that was told."""
        if now - since < RESTLESS:
            return since
        logger.warning(
            "%s has been changing for %g s: it is judged when it has been at rest for %g s",
            name, now - since, self._settle,
        )  # fmt: skip
        return float("inf")


def _key(name: str, file: Path | os.DirEntry) -> Key | None:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    except OSError:  # a link to itself, say, which is a broken image
        try:
            stat = os.lstat(file)
        except OSError:
            return None
    # Some file systems know times beyond 2262, and inodes of 64 bits without a sign.
    changed, status = (max(-INT64, min(ns, INT64)) for ns in (stat.st_mtime_ns, stat.st_ctime_ns))
    return Key(name, stat.st_size, changed, stat.st_ino & INT64, status)


def _storable(path: str) -> str:
    """A name may hold bytes that are no UTF-8, which a table does not take."""
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def _below(folder: str) -> Iterator[tuple[os.DirEntry, str]]:
    """Images below the folder and their paths from there, no dotfiles; what vanishes or may not be
    read is left out."""
    # Unlike `data.listing`, which refuses what it cannot list: trays come and go here.
    folders = [(folder, "")]
    while folders:
        path, above = folders.pop()
        with suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{above}{entry.name}/"))
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and not _links_to_folder(
                    entry
                ):
                    yield entry, above + entry.name


def _links_to_folder(entry: os.DirEntry) -> bool:
    """Tells whether it is a link to a folder; one that leads nowhere is a broken image."""
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself, say
        return False

"""Trials of damaged tables of a line, and of damaged archives of public data sets."""

import io
import logging
import random
import shutil
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.robustness.damage import HOSTILE, damaged
from benchmarks.robustness.trials import Verdict
from recon_ad.data.tfds_builders.downloads import find_root
from recon_ad.errors import UserError
from recon_ad.line.alarms import parse_period
from recon_ad.line.follow import follow
from recon_ad.line.store import COLUMNS, Key, Store
from recon_ad.runtime.stopping import Stop

ROWS, REFERENCE = 120, 60


class Looks(Stop):
    """A stop request that comes after one read of the table."""

    def wait(self, seconds: float) -> bool:
        """Return True without waiting."""
        return True


def tables(folder: Path, seed: int) -> Callable[[int], Verdict]:
    """Make trials of a monitor on a table with damaged bytes or with values no line writes."""
    logging.disable(logging.CRITICAL)
    whole, made = folder / "whole", folder / "made"
    store, rng = Store(whole / "line.sqlite"), random.Random(seed)
    for i in range(ROWS):
        row = {
            "outcome": "good", "score": rng.gauss(1, 0.1), "threshold": 2.0, "anomalous": False,
            "regions": 0, "brightness": 0.5 + rng.gauss(0, 0.01), "sharpness": 0.1, "latency": 0.1,
            "waiting": 0,
        }  # fmt: skip
        store.commit(Key(f"{i}.png", 1, i), row)
    store.close()

    def trial(i: int) -> Verdict:
        rng = random.Random(seed * 1_000_003 + i)
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(whole, made)
        file = made / "line.sqlite"
        if i % 2:
            what = f"trial {i}: a table with damaged bytes"
            file.write_bytes(damaged(file.read_bytes(), rng))
        else:
            name = rng.choice([name for name, kind in COLUMNS.items() if "NOT NULL" not in kind])
            value = rng.choice([v for v in HOSTILE if isinstance(v, str | float | bool | None)])
            what = f"trial {i}: {name} = {str(value)[:20]!r}"
            with sqlite3.connect(file) as table:
                command = f"UPDATE images SET {name} = ? WHERE id = ?"
                table.execute(command, (value, rng.randint(1, ROWS)))
            table.close()
        try:
            found = follow(
                made, references=[parse_period(str(REFERENCE))], run_length=1e4, webhook="",
                stop=Looks(),
            )  # fmt: skip
        except UserError:
            return "refused", what
        lost = i % 2 == 0 and found.images != ROWS
        return ("wrong", f"{what}: {found.images} rows") if lost else ("accepted", what)

    return trial


def archives(folder: Path, seed: int) -> Callable[[int], Verdict]:
    """Make trials of unpacking a damaged archive, which may not write outside its folder."""
    members = {
        "set/train/good/0.png": b"x" * 300, "set/test/good/1.png": b"y" * 300,
        "../outside.png": b"z", "/tmp/outside.png": b"z",
    }  # fmt: skip
    made: dict[str, bytes] = {}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    made["set.zip"] = packed.getvalue()
    for ending in ("", "gz", "xz"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode=f"w:{ending}") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo("set/train/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        made[f"set.tar.{ending}".rstrip(".")] = packed.getvalue()

    def root_of(path: Path) -> Path | None:
        return path if (path / "train").is_dir() else None

    def trial(i: int) -> Verdict:
        rng = random.Random(seed * 1_000_003 + i)
        inside, scratch = folder / "archives", folder / "unpacked"
        for path in (inside, scratch):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        name = rng.choice(list(made))
        (inside / name).write_bytes(damaged(made[name], rng))
        what = f"trial {i}: a damaged {name}"
        try:
            find_root(
                inside, root_of, archives=["set"], wanted=lambda path: True, scratch=scratch,
                what="set",
            )  # fmt: skip
            verdict = "accepted"
        except UserError:
            verdict = "refused"
        others = [path for path in folder.iterdir() if path not in (inside, scratch)]
        links = [path for path in scratch.rglob("*") if path.is_symlink()]
        if others or links or Path("/tmp/outside.png").exists():
            return "wrong", f"{what}: wrote {[*others, *links]}"
        return verdict, what

    return trial

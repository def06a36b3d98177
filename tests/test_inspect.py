"""A line judges every image once, whatever happens to it."""

import errno
import itertools
import os
import sqlite3
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from recon_ad import inspect
from recon_ad.data import decode
from recon_ad.errors import UserError
from recon_ad.inference import Inference, Prediction, Thresholds
from recon_ad.inspection.arrivals import Arrivals
from recon_ad.inspection.store import Key, Store
from recon_ad.runtime import waiting
from recon_ad.runtime.stopping import Stop


class Bright(Inference):
    """Anomalous is what is brighter than half; counts its calls."""

    def __init__(self):
        self.plan = SimpleNamespace(channels=1, input_range=(0.0, 0.0))
        self.thresholds = Thresholds(0.5, 0.5)
        self.calls = 0

    calibrated_on_regions = False

    def run_core(self, images, *, reconstruct):
        raise NotImplementedError

    def run_tail(self, residual_map, valid, thresholds):
        raise NotImplementedError

    def predict(self, image, *, roi=None, reconstruct=True):
        self.calls += 1
        values = image[..., 0].astype(np.float32) / 255
        score = values.mean()
        return Prediction(score, score > 0.5, values, values > 0.5, None)


def write(path, level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 12), level, np.uint8)).save(path)


@pytest.fixture
def quick(monkeypatch):
    """A line that does not wait long."""
    monkeypatch.setattr(inspect, "SETTLE", 0.05)
    monkeypatch.setattr(inspect, "POLL", 0.01)
    monkeypatch.setattr(waiting, "RETRY", 0.01)


def watch(folder, output, *, until, detector=None, during=lambda: None):
    """Runs the line until there are so many rows; the rows, and the detector."""
    detector, stop = detector or Bright(), Stop()
    line = threading.Thread(
        target=inspect.run_line, args=(detector, folder, output), kwargs={"stop": stop}
    )
    line.start()
    during()
    end = time.monotonic() + 20
    while time.monotonic() < end and line.is_alive():
        if (output / "line.sqlite").exists() and until(rows_of(output)):
            break
        time.sleep(0.02)
    stop.ask()
    line.join()
    rows = rows_of(output)
    assert until(rows), rows
    return rows, detector


def rows_of(output):
    store = Store(output / "line.sqlite")
    rows = list(store.rows())
    store.close()
    return rows


def test_what_arrives_is_judged_and_sorted(quick, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    write(folder / "a.png", 100)

    def arrive():
        write(folder / "tray" / "b.png", 200)
        (folder / "c.png").write_bytes(b"no image")
        (folder / "notes.txt").write_text("no image either")

    rows, _ = watch(folder, output, until=lambda rows: len(rows) == 3, during=arrive)
    by_name = {row["name"]: row for row in rows}
    assert set(by_name) == {"a.png", "tray/b.png", "c.png"}
    assert (by_name["a.png"]["anomalous"], by_name["tray/b.png"]["anomalous"]) == (0, 1)
    assert by_name["a.png"]["brightness"] == pytest.approx(100 / 255)
    assert by_name["a.png"]["sharpness"] == 0 and by_name["a.png"]["latency"] >= 0
    broken = by_name["c.png"]
    assert "c.png" in broken["error"] and broken["score"] is None
    overlays = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}
    assert overlays == {"good/a.png.png", "reject/tray/b.png.png"}


def test_a_restart_judges_nothing_again(quick, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    for i in range(3):
        write(folder / f"{i}.png")
    before, _ = watch(folder, output, until=lambda rows: len(rows) == 3)
    write(folder / "new.png")
    after, detector = watch(folder, output, until=lambda rows: len(rows) == 4)
    assert after[:3] == before and detector.calls == 1


def test_a_name_that_is_used_again_is_another_image(quick, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    write(folder / "a.png", 100)
    watch(folder, output, until=lambda rows: len(rows) == 1)
    write(folder / "a.png", 200)
    os.utime(folder / "a.png", (1, 1))
    rows, _ = watch(folder, output, until=lambda rows: len(rows) == 2)
    assert [row["anomalous"] for row in rows] == [0, 1]


def test_a_file_that_was_read_half_written_is_read_again_when_it_is_whole(quick, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    write(folder / "a.png")
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[:40])
    (row,), _ = watch(folder, output, until=lambda rows: len(rows) == 1)
    assert row["error"]
    (folder / "a.png").write_bytes(whole)
    (row,), _ = watch(
        folder, output, until=lambda rows: len(rows) == 1 and rows[0]["error"] is None
    )
    assert row["score"] == pytest.approx(100 / 255)


def test_a_file_that_grows_is_left_alone(tmp_path):
    now = 0.0
    arrivals = Arrivals(tmp_path, [], settle=1.0, clock=lambda: now)
    write(tmp_path / "a.png")
    assert arrivals.ready() == []
    now = 0.9
    with (tmp_path / "a.png").open("ab") as file:
        file.write(b"more")
    assert arrivals.ready() == []
    now = 1.8  # it has been as it is for 0.9 s
    assert arrivals.ready() == []
    now = 2.0
    (arrival,) = arrivals.ready()
    assert arrival.key.name == "a.png" and arrival.seen == 0.9
    arrivals.done(arrival.key)
    assert arrivals.ready() == []


def test_the_oldest_comes_first(tmp_path):
    arrivals = Arrivals(tmp_path, [], settle=0.0, clock=lambda: 0.0)
    for name, changed in (("a.png", 30), ("b.png", 10), ("c.png", 20)):
        write(tmp_path / name)
        os.utime(tmp_path / name, (changed, changed))
    assert [arrival.key.name for arrival in arrivals.ready()] == ["b.png", "c.png", "a.png"]


@pytest.mark.parametrize("what", ["overlay", "row"])
def test_a_full_disk_is_waited_for_and_nothing_is_lost(quick, tmp_path, monkeypatch, caplog, what):
    folder, output = tmp_path / "in", tmp_path / "out"
    for i in range(3):
        write(folder / f"{i}.png")
    failures = 4

    def fail(error):
        nonlocal failures
        failures -= 1
        if failures > 0:
            raise error

    if what == "overlay":
        write_bytes = inspect.files.write_bytes
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(
            inspect.files, "write_bytes", lambda *args: (fail(full), write_bytes(*args))
        )
    else:
        commit = Store.commit
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        monkeypatch.setattr(Store, "commit", lambda *args: (fail(full), commit(*args)))
    rows, _ = watch(folder, output, until=lambda rows: len(rows) == 3)
    assert [row["name"] for row in rows] == ["0.png", "1.png", "2.png"]
    # Told once, not at each try.
    assert sum("the disk is full" in message for message in caplog.messages) == 1


def test_what_is_no_full_disk_is_not_waited_for(quick, tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.png")

    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(inspect.files, "write_bytes", refuse)
    with pytest.raises(PermissionError):
        inspect.run_line(Bright(), tmp_path / "in", tmp_path / "out", stop=Stop())


def test_a_row_is_there_once_or_not_at_all(tmp_path):
    store = Store(tmp_path / "line.sqlite")
    key = Key("a.png", 10, 20)
    row = {"outcome": "good", "score": 1.0, "latency": 0.1, "waiting": 0}
    store.commit(key, row)
    store.commit(key, row | {"score": 2.0})
    assert [r["score"] for r in store.rows()] == [1.0]
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(
            Key("b.png", 1, 1), {"outcome": "good", "score": 1.0, "latency": None, "waiting": 0}
        )
    assert store.known() == {key}
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["line.sqlite"]


def test_another_file_in_its_place_gets_a_sentence(tmp_path):
    (tmp_path / "line.sqlite").write_bytes(b"something else, long enough" * 10)
    with pytest.raises(UserError, match="cannot be used as the table of a line"):
        Store(tmp_path / "line.sqlite")
    with sqlite3.connect(tmp_path / "old.sqlite") as old:
        old.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, name TEXT)")
    with pytest.raises(UserError, match="another version"):
        Store(tmp_path / "old.sqlite")


def test_a_line_needs_no_jax():
    block = (
        "import sys; sys.path.insert(0, '.'); "
        "sys.modules.update(dict.fromkeys(('jax', 'flax', 'orbax', 'grain', 'ml_collections', "
        "'optax', 'tensorflow_datasets'))); "
        "import recon_ad.inspect, recon_ad.monitor, recon_ad.inspection.registration"
    )
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_judged_holds_up_nothing(quick, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    names = [f"{'x' * 240}.png", os.fsdecode(b"bad\xff.png"), "strange.png", "z.png"]
    for i, name in enumerate(names):
        write(folder / name, 100 + i)
        os.utime(folder / name, (i, i))

    class Failing(Bright):
        def predict(self, image, *, roi=None, reconstruct=True):
            if image[0, 0, 0] == 102:
                raise RuntimeError("out of memory on some device")
            return super().predict(image, roi=roi, reconstruct=reconstruct)

    rows, _ = watch(folder, output, until=lambda rows: len(rows) == 4, detector=Failing())
    assert [row["error"] is None for row in rows] == [True, True, False, True]
    assert rows[2]["error"] == "RuntimeError: out of memory on some device"
    assert rows[1]["name"] == "bad\\udcff.png"
    assert len(list(output.rglob("*.png"))) == 3


def test_a_folder_that_vanishes_while_it_is_looked_through_ends_nothing(tmp_path, monkeypatch):
    write(tmp_path / "tray" / "a.png")
    write(tmp_path / "b.png")
    arrivals = Arrivals(tmp_path, [], settle=0.0, clock=lambda: 0.0)
    scandir = os.scandir

    def gone(path):
        if str(path).endswith("tray"):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert [arrival.key.name for arrival in arrivals.ready()] == ["b.png"]


def test_a_file_that_is_overwritten_while_it_is_judged_is_judged_as_what_it_became(quick, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    write(folder / "a.png", 100)

    class Late(Bright):
        def predict(self, image, *, roi=None, reconstruct=True):
            if image[0, 0, 0] == 100:
                write(folder / "a.png", 200)
                os.utime(folder / "a.png", (5, 5))
            return super().predict(image, roi=roi, reconstruct=reconstruct)

    (row,), _ = watch(folder, output, until=lambda rows: len(rows) == 1, detector=Late())
    assert row["anomalous"] == 1 and row["brightness"] == pytest.approx(200 / 255)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_that_cannot_be_read_just_now_is_tried_again(quick, tmp_path, monkeypatch, number):
    monkeypatch.setattr(inspect, "AGAIN", 0.05)
    folder, output = tmp_path / "in", tmp_path / "out"
    for name in "abc":
        write(folder / f"{name}.png")
    failures = {"a.png": 2, "b.png": 10**6}

    def read(name, mode):
        if failures.get(name[-5:], 0):
            failures[name[-5:]] -= 1
            raise OSError(number, "for now")
        return open(name, mode)

    monkeypatch.setattr(decode, "open", read, raising=False)
    monkeypatch.setattr(inspect, "UNREADABLE", 1e6)
    rows, _ = watch(folder, output, until=lambda rows: len(rows) == 2)
    # c did not wait for a, nor for b, which has no row yet.
    assert [row["name"] for row in rows] == ["c.png", "a.png"]
    assert [row["error"] for row in rows] == [None, None]
    monkeypatch.setattr(inspect, "UNREADABLE", 0.2)
    rows, _ = watch(folder, output, until=lambda rows: len(rows) == 3)
    assert rows[2]["name"] == "b.png" and "cannot be read" in rows[2]["error"]


def test_an_image_that_is_put_off_comes_again_until_that_is_enough(tmp_path):
    now = 0.0
    arrivals = Arrivals(tmp_path, [], settle=0.0, clock=lambda: now)
    write(tmp_path / "a.png")
    (arrival,) = arrivals.ready()
    assert arrivals.put_off(arrival.key, pause=2.0, most=5.0)
    now = 1.0
    assert arrivals.ready() == []
    now = 3.0
    assert arrivals.ready() == [arrival]
    assert arrivals.put_off(arrival.key, pause=2.0, most=5.0)
    now = 5.0
    assert arrivals.ready() == [arrival]
    assert not arrivals.put_off(arrival.key, pause=2.0, most=5.0)


def test_known_names_are_looked_at_in_a_tenth_of_the_time(tmp_path):
    clock = itertools.count()  # a look that asks at its beginning and end takes 1 s
    arrivals = Arrivals(tmp_path, [], settle=2.0, clock=lambda: float(next(clock)))
    write(tmp_path / "a.png")

    def looks(name):
        """How many until that name is ready, and done."""
        for count in range(1, 30):
            for arrival in arrivals.ready():
                arrivals.done(arrival.key)
                if arrival.key.name == name:
                    return count
        raise AssertionError("never")

    assert looks("a.png") <= 3
    write(tmp_path / "b.png")
    assert looks("b.png") <= 3  # a new name is seen at each look
    write(tmp_path / "a.png", 200)
    os.utime(tmp_path / "a.png", (5, 5))
    # Seen some looks later, and then at each until it is done.
    assert 4 < looks("a.png") <= 12
    # What it was before is done, too.
    os.utime(tmp_path / "a.png", (6, 6))
    assert looks("a.png") < 20
    os.utime(tmp_path / "a.png", (5, 5))
    with pytest.raises(AssertionError, match="never"):
        looks("a.png")


def test_two_lines_do_not_share_a_folder(tmp_path):
    lock = tmp_path / "inspect.lock"
    refused = pytest.raises(UserError, match="another process")
    with waiting.alone(lock), refused, waiting.alone(lock):
        pass
    with waiting.alone(lock):
        pass

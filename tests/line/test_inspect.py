"""A line judges every image once, whatever happens to it."""

import contextlib
import errno
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from helpers.lines import rows_of, write
from PIL import Image

from benchmarks.studies.line import disturbed
from recon_ad.data import pillow_files
from recon_ad.detector import image_files
from recon_ad.detector.inference import Inference, Prediction, Thresholds
from recon_ad.errors import UserError
from recon_ad.line import run as line_run
from recon_ad.line.arrivals import Arrivals
from recon_ad.line.store import ADDED, Store
from recon_ad.runtime import waiting
from recon_ad.runtime.stopping import Stop


class Bright(Inference):
    """A detector of bright images that counts its calls and first runs a given function."""

    def __init__(self, first=lambda image: None):
        self.plan = SimpleNamespace(channels=1, input_range=(0.0, 0.0))
        self.thresholds = Thresholds(0.5, 0.5)
        self.first, self.calls = first, 0

    calibrated_on_regions = False
    run_core = run_tail = None  # it has no graphs

    def predict(self, image, *, roi=None, reconstruct=True):
        self.calls += 1
        self.first(image)
        values = image[..., 0].astype(np.float32) / 255
        score = values.mean()
        normalised = np.float64(2 * score - 0.5)
        return Prediction(score, score > 0.5, values, values > 0.5, None, None, normalised)


@pytest.fixture
def line(monkeypatch, tmp_path):
    """Return the folders that a line watches and writes, with short waiting times."""
    monkeypatch.setattr(line_run, "SETTLE", 0.05)
    monkeypatch.setattr(line_run, "POLL", 0.01)
    monkeypatch.setattr(waiting, "RETRY", 0.01)
    return tmp_path / "in", tmp_path / "out"


class Rows(Stop):
    """A stop request once a line has so many rows, or after a minute."""

    def __init__(self, output, count):
        self.output, self.count, self.end = output, count, time.monotonic() + 60

    @property
    def asked(self):
        return len(rows_of(self.output)) >= self.count or time.monotonic() > self.end


def watch(line, count, detector=None):
    """Run the line until it has so many rows, and return them."""
    line_run.run_line(detector or Bright(), *line, stop=Rows(line[1], count))
    rows = rows_of(line[1])
    assert len(rows) == count, rows
    return rows


def test_what_arrives_is_judged_and_sorted(line):
    folder, output = line
    write(folder / "a.png", 100)

    def arrive(image):
        if image[0, 0, 0] == 100:
            write(folder / "tray" / "b.png", 200)
            (folder / "c.png").write_bytes(b"no image")
            (folder / "notes.txt").write_text("no image either")

    by_name = {row["name"]: row for row in watch(line, 3, Bright(arrive))}
    assert set(by_name) == {"a.png", "tray/b.png", "c.png"}
    assert (by_name["a.png"]["anomalous"], by_name["tray/b.png"]["anomalous"]) == (0, 1)
    assert by_name["a.png"]["brightness"] == pytest.approx(100 / 255)
    assert by_name["a.png"]["normalised_score"] == pytest.approx(200 / 255 - 0.5)
    assert by_name["a.png"]["sharpness"] == 0 and by_name["a.png"]["latency"] >= 0
    broken = by_name["c.png"]
    assert "c.png" in broken["error"] and broken["score"] is None
    overlays = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}
    assert overlays == {"good/a.png.png", "reject/tray/b.png.png"}


def test_a_restart_judges_nothing_again_but_another_image_of_a_known_name(line):
    folder, output = line
    for name in "abc":
        write(folder / f"{name}.png")
    before = watch(line, 3)
    write(folder / "new.png")
    write(folder / "a.png", 200)
    os.utime(folder / "a.png", (1, 1))
    detector = Bright()
    after = watch(line, 5, detector)
    assert after[:3] == before and detector.calls == 2
    assert {row["name"]: row["anomalous"] for row in after[3:]} == {"a.png": 1, "new.png": 0}
    overlays = {path.relative_to(output).as_posix() for path in output.rglob("a.png.png")}
    assert overlays == {"reject/a.png.png"}


def test_a_name_used_again_within_a_tick_of_the_clock_is_told_by_its_content(line):
    folder, output = line
    file = folder / "shot.bmp"
    write(file, 100)
    os.utime(file, (5, 5))
    watch(line, 1)
    write(file, 200)
    os.utime(file, (5, 5))  # the same size, too
    rows = watch(line, 2)
    assert [row["anomalous"] for row in rows] == [0, 1]
    # A copy of the folder has other inodes but no new images.
    shutil.copytree(folder, folder.with_name("copy"), copy_function=shutil.copy2)
    detector = Bright()
    write(folder.with_name("copy") / "next.png")
    line_run.run_line(detector, folder.with_name("copy"), output, stop=Rows(output, 3))
    assert detector.calls == 1
    detector = Bright()
    write(folder.with_name("copy") / "last.png")
    line_run.run_line(detector, folder.with_name("copy"), output, stop=Rows(output, 4))
    assert detector.calls == 1 and len(rows_of(output)) == 4


@pytest.mark.parametrize("lacking", [ADDED, ADDED[:1]], ids=len)
def test_a_table_of_an_earlier_version_goes_on(line, lacking):
    folder, output = line
    write(folder / "a.png")
    (before,) = watch(line, 1)
    with sqlite3.connect(output / "line.sqlite") as table:
        for name in lacking:
            table.execute(f"UPDATE images SET {name} = NULL")
        kept = ", ".join(name for name in before if name not in lacking)
        table.execute(f"CREATE TABLE earlier AS SELECT {kept} FROM images")
        table.execute("DROP TABLE images")
        table.execute("ALTER TABLE earlier RENAME TO images")
    write(folder / "b.png")
    detector = Bright()
    rows = watch(line, 2, detector)
    assert detector.calls == 1 and rows[1]["name"] == "b.png"
    assert (
        rows[0] == before | {"normalised_score": None} and rows[1]["normalised_score"] is not None
    )


def test_an_image_that_ended_the_process_twice_is_broken_at_the_third_start(line):
    """Simulate a process that is killed while it judges, for example for its memory."""
    folder, output = line
    names = ["a.png", "bomb.png", "z.png"]
    for i, name in enumerate(names):
        write(folder / name, 100 + i)
        os.utime(folder / name, (i, i))
    dying = (
        "import os, sys; sys.path[:0] = ['.', 'tests', 'tests/line']\n"
        "from pathlib import Path\n"
        "from test_inspect import Bright, Stop, line_run\n"
        "line_run.SETTLE = 0.05\n"
        "end = Bright(lambda image: os._exit(9) if image[0, 0, 0] == 101 else None)\n"
        "line_run.run_line(end, *map(Path, sys.argv[1:]), stop=Stop())"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", dying, *line], check=False)
        assert done.returncode == 9
        assert [row["name"] for row in rows_of(output)] == ["a.png"]
    rows = watch(line, 3)
    assert [row["name"] for row in rows] == names
    assert [row["outcome"] for row in rows] == ["good", "broken", "good"]
    assert "ended twice" in rows[1]["error"]
    # Another file of the same name is tried.
    write(folder / "bomb.png", 120)
    write(folder / "zz.png")
    assert watch(line, 4)[1]["outcome"] == "good"
    with sqlite3.connect(output / "line.sqlite") as table:
        assert table.execute("SELECT count(*) FROM attempts").fetchone() == (0,)


def test_an_image_that_takes_too_much_is_given_up_and_the_line_starts_anew(line):
    folder, output = line
    for i, (name, value) in enumerate((("slow.png", 101), ("large.png", 102))):
        write(folder / name, value)
        os.utime(folder / name, (i + 1, i + 1))
    write(folder / "z.png")
    slow = (
        "import sys, time; sys.path[:0] = ['.', 'tests', 'tests/line']\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from test_inspect import Bright, Rows, line_run\n"
        "line_run.SETTLE = 0.05\n"
        "def work(image):\n"
        "    held = np.ones(60_000_000 * (image[0, 0, 0] == 102))\n"  # 480 MB
        "    time.sleep(60 * (image[0, 0, 0] in (101, 102)) + 0 * len(held))\n"
        "folders = [Path(p) for p in sys.argv[1:]]\n"
        "stop = Rows(folders[1], 3)\n"
        "line_run.run_line(Bright(work), *folders, stop=stop, seconds=5.0, gib=0.3)"
    )
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", slow, *line], check=False, capture_output=True)
    assert done.returncode == 0 and time.monotonic() - begin < 50, done.stderr
    rows = {row["name"]: row for row in rows_of(output)}
    outcomes = {name: row["outcome"] for name, row in rows.items()}
    assert outcomes == {"slow.png": "broken", "large.png": "broken", "z.png": "good"}
    assert "longer than 5 s" in rows["slow.png"]["error"]
    if sys.platform == "linux":
        assert "more than 0.3 GiB of memory" in rows["large.png"]["error"]


def test_a_table_that_is_taken_away_ends_the_line_with_a_sentence(line):
    write(line[0] / "a.png")
    watch(line, 1)
    write(line[0] / "b.png")
    with pytest.raises(UserError, match="moved or deleted"):
        line_run.run_line(Bright(lambda image: shutil.rmtree(line[1])), *line, stop=Stop())


def test_a_file_that_was_read_half_written_is_read_again_when_it_is_whole(line):
    file = line[0] / "a.png"
    write(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:40])
    (row,) = watch(line, 1)
    assert row["error"]
    file.write_bytes(whole)
    os.utime(file, (1, 1))
    write(file.with_name("b.png"))  # judged after it
    row, _ = watch(line, 2)
    assert row["error"] is None and row["score"] == pytest.approx(100 / 255)


def test_a_link_to_itself_hides_no_other_image(line):
    folder, _ = line
    for i in range(5):
        write(folder / f"{i}.png")
    (folder / "3x.png").symlink_to(folder / "3x.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "kernel.png").symlink_to("/proc/kmsg")
    (folder / "endless.png").symlink_to("/dev/zero")
    rows = {row["name"]: row for row in watch(line, 9)}
    assert sum(row["outcome"] == "good" for row in rows.values()) == 5
    assert "levels of symbolic links" in rows["3x.png"]["error"]
    for name in ("pipe.png", "kernel.png", "endless.png"):
        assert "not a regular file" in rows[name]["error"]


@pytest.mark.parametrize("what", ["overlay", "row"])
def test_a_full_disk_is_waited_for_and_nothing_is_lost(line, monkeypatch, caplog, what):
    names = [f"{i}.png" for i in range(3)]
    for name in names:
        write(line[0] / name)
    owner, name = (image_files.files, "write_bytes") if what == "overlay" else (Store, "commit")
    full = OSError(errno.ENOSPC, "") if what == "overlay" else sqlite3.OperationalError()
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    failures, done = itertools.repeat(full, 3), getattr(owner, name)

    def failing(*args):
        for error in failures:
            raise error
        done(*args)

    monkeypatch.setattr(owner, name, failing)
    assert [row["name"] for row in watch(line, 3)] == names
    # Logged once, not at each try.
    assert sum("the disk is full" in message for message in caplog.messages) == 1


def test_an_error_other_than_a_full_disk_is_not_waited_for(line, monkeypatch):
    write(line[0] / "a.png")
    refuse = mock.Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(image_files.files, "write_bytes", refuse)
    with pytest.raises(PermissionError):
        line_run.run_line(Bright(), *line, stop=Stop())


def test_a_line_needs_no_jax():
    block = (
        "import sys; sys.path.insert(0, '.'); "
        "sys.modules.update(dict.fromkeys(('jax', 'flax', 'orbax', 'grain', 'ml_collections', "
        "'optax', 'tensorflow_datasets'))); "
        "import recon_ad.inspect, recon_ad.monitor, recon_ad.alignment.registration"
    )
    subprocess.run([sys.executable, "-c", block], check=True)


def test_what_cannot_be_judged_holds_up_nothing(line):
    folder, output = line
    names = [f"{'x' * 240}.png", os.fsdecode(b"bad\xff.png"), "strange.png", "z.png"]
    for i, name in enumerate(names):
        write(folder / name, 100 + i)
        os.utime(folder / name, (i, i))

    def fail(image):
        if image[0, 0, 0] == 102:
            raise RuntimeError("out of memory on some device")

    rows = watch(line, 4, Bright(fail))
    error = "RuntimeError: out of memory on some device"
    assert [row["error"] for row in rows] == [None, None, error, None]
    assert rows[1]["name"] == "bad\\udcff.png"
    assert len(list(output.rglob("*.png"))) == 3


def test_odd_places_and_times_hold_up_nothing(line):
    folder, _ = line
    write(folder / "a.png")
    os.utime(folder / "a.png", (2**34, 2**34))  # in 2514: more nanoseconds than SQLite stores
    write(folder / "clash.png")
    os.utime(folder / "clash.png", (1, 1))
    write(folder / "clash.png.png" / "b.png")  # a folder with the name of the overlay
    with contextlib.chdir(folder):
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        Image.fromarray(np.full((8, 12), 100, np.uint8)).save("deep.png")
    rows = {row["name"]: row for row in watch(line, 4)}
    assert rows["a.png"]["outcome"] == "good" and rows["clash.png"]["outcome"] == "good"
    clash = rows["clash.png.png/b.png"]
    assert clash["outcome"] == "broken" and "overlay cannot be written" in clash["error"]
    assert clash["score"] == rows["a.png"]["score"]
    assert "too deep" in rows["d/" * 1200 + "deep.png"]["error"]
    arrivals = Arrivals(folder, [], settle=0.0, clock=time.monotonic)
    assert [arrival.key.name for arrival in arrivals.ready()][-1] == "a.png"
    subprocess.run(["rm", "-r", folder / "d"], check=True)  # shutil.rmtree recurses


def test_a_file_that_is_overwritten_while_it_is_judged_is_judged_as_what_it_became(line):
    file = line[0] / "a.png"
    write(file, 100)

    def overwrite(image):
        if image[0, 0, 0] == 100:
            write(file, 200)
            os.utime(file, (5, 5))

    (row,) = watch(line, 1, Bright(overwrite))
    assert row["anomalous"] == 1 and row["brightness"] == pytest.approx(200 / 255)


def test_a_file_that_cannot_be_read_just_now_is_tried_again(line, monkeypatch):
    monkeypatch.setattr(line_run, "AGAIN", 0.05)
    for name in "abc":
        write(line[0] / f"{name}.png")
    failures = {"a.png": 2, "b.png": 10**6}

    def read(name, mode):
        if failures.get(name[-5:], 0):
            failures[name[-5:]] -= 1
            raise OSError(errno.EIO, "for now")
        return open(name, mode)

    monkeypatch.setattr(pillow_files, "open", read, raising=False)
    monkeypatch.setattr(line_run, "UNREADABLE", 1e6)
    rows = watch(line, 2)
    # c waited neither for a nor for b, which has no row yet.
    assert [(row["name"], row["error"]) for row in rows] == [("c.png", None), ("a.png", None)]
    monkeypatch.setattr(line_run, "UNREADABLE", 0.2)
    rows = watch(line, 3)
    assert rows[2]["name"] == "b.png" and "cannot be read" in rows[2]["error"]


def test_errors_that_may_pass_are_those_of_networks_and_rights():
    for number in (errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOENT):
        caused = UserError("cannot be read")
        caused.__cause__ = OSError(number, "for now")
        assert line_run.is_transient(caused) == (number != errno.ENOENT)
    assert not line_run.is_transient(UserError("no image"))


def test_two_lines_do_not_share_a_folder(tmp_path):
    lock = tmp_path / "inspect.lock"
    with (
        waiting.exclusive_lock(lock),
        pytest.raises(UserError, match="another"),
        waiting.exclusive_lock(lock),
    ):
        pass
    with waiting.exclusive_lock(lock):
        pass


@pytest.mark.slow
def test_every_image_has_one_row_though_it_is_killed_and_the_disk_is_full(
    finished_run, chess_folder, tmp_path
):
    """Run benchmarks/studies/line.py with real processes at a smaller size."""
    images = sorted((chess_folder / "test" / "good").iterdir())
    model, output = finished_run() / "model.onnx", tmp_path / "line"
    result = disturbed(model, images, output, count=120, kills=2)
    assert result["rows"] == 120 and result["broken"] == 5
    assert result["rows_when_it_was_full"] < 120 and "the disk is full" in result["said"]

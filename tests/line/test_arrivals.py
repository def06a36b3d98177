"""Arriving files are found when they are whole, the oldest first."""

import itertools
import os
import time

import pytest
from helpers.lines import write

from recon_ad.line.arrivals import Arrivals


def test_a_file_that_does_not_come_to_rest_is_told_once(tmp_path, caplog):
    arrivals = Looked(tmp_path, settle=1.0)
    for second in range(200):
        write(tmp_path / "latest.bmp")
        os.utime(tmp_path / "latest.bmp", (second, second))
        assert arrivals.names(float(second)) == []
    (told,) = caplog.messages
    assert "latest.bmp has been changing for 60 s" in told
    assert arrivals.names(201.0) == ["latest.bmp"]


class Looked(Arrivals):
    """Arrivals at times that a test sets."""

    def __init__(self, folder, *, settle=0.0):
        self.now = 0.0
        super().__init__(folder, [], settle=settle, clock=lambda: self.now)

    def names(self, now=0.0):
        self.now = now
        return [arrival.key.name for arrival in self.ready()]


def test_a_file_that_grows_is_left_alone(tmp_path):
    arrivals = Looked(tmp_path, settle=1.0)
    write(tmp_path / "a.png")
    assert arrivals.names() == []
    with (tmp_path / "a.png").open("ab") as file:
        file.write(b"more")
    assert arrivals.names(0.9) == arrivals.names(1.8) == []  # unchanged for 0.9 s
    arrivals.now = 2.0
    (arrival,) = arrivals.ready()
    assert arrival.key.name == "a.png" and arrival.seen == 0.9
    arrivals.done(arrival.key)
    assert arrivals.names(2.0) == []


def test_the_oldest_comes_first_and_a_folder_that_vanishes_ends_nothing(tmp_path, monkeypatch):
    for name, changed in (("a.png", 30), ("b.png", 10), ("c.png", 20), ("tray/d.png", 5)):
        write(tmp_path / name)
        os.utime(tmp_path / name, (changed, changed))
    assert Looked(tmp_path).names() == ["tray/d.png", "b.png", "c.png", "a.png"]
    scandir = os.scandir

    def gone(path):
        if str(path).endswith("tray"):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert Looked(tmp_path).names() == ["b.png", "c.png", "a.png"]


def test_a_folder_that_is_taken_away_is_told_once(tmp_path, caplog):
    folder = tmp_path / "watched"
    write(folder / "a.png")
    arrivals = Arrivals(folder, [], settle=0.0, clock=time.monotonic)
    assert len(arrivals.ready()) == 1
    folder.rename(tmp_path / "away")
    assert arrivals.ready() == arrivals.ready() == []
    (tmp_path / "away").rename(folder)
    assert len(arrivals.ready()) == 1
    assert [m.rpartition("watched ")[2] for m in caplog.messages] == [
        "is not accessible: no image is judged until it is back", "is back",
    ]  # fmt: skip


def test_an_image_that_is_put_off_comes_again_until_that_is_enough(tmp_path):
    arrivals = Looked(tmp_path)
    write(tmp_path / "a.png")
    (arrival,) = arrivals.ready()
    assert arrivals.put_off(arrival.key, pause=2.0, most=5.0)
    assert arrivals.names(1.0) == []
    assert arrivals.names(3.0) == ["a.png"]
    assert arrivals.put_off(arrival.key, pause=2.0, most=5.0)
    assert arrivals.names(5.0) == ["a.png"]
    assert not arrivals.put_off(arrival.key, pause=2.0, most=5.0)


def test_known_names_are_looked_at_in_a_tenth_of_the_time(tmp_path):
    clock = itertools.count()  # a scan asks at its beginning and end, so it takes 1 s
    arrivals = Arrivals(tmp_path, [], settle=2.0, clock=lambda: float(next(clock)))
    write(tmp_path / "a.png")

    def looks(name):
        """Return the number of scans until that name is ready, and mark it as done."""
        for count in range(1, 30):
            for arrival in arrivals.ready():
                arrivals.done(arrival.key)
                if arrival.key.name == name:
                    return count
        raise AssertionError("never")

    assert looks("a.png") <= 3
    write(tmp_path / "b.png")
    assert looks("b.png") <= 3  # a new name is found at each scan
    write(tmp_path / "a.png", 200)
    os.utime(tmp_path / "a.png", (5, 5))
    # Found some scans later, and then at each one until it is done.
    assert 4 < looks("a.png") <= 12
    with pytest.raises(AssertionError, match="never"):
        looks("a.png")

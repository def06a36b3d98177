"""Regular files, which are opened without waiting."""

import os
import socket

import pytest

from recon_ad.runtime.files import NotRegularError, is_regular, open_regular


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with files of all kinds; names of sockets must be short."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for name, target in (("kernel", "/proc/kmsg"), ("cpu", "/proc/cpuinfo"), ("zero", "/dev/zero")):
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.mark.parametrize("name", ["file", "link"])
def test_a_regular_file_is_opened(folder, name):
    assert is_regular(folder / name)
    with open_regular(folder / name) as file:
        assert file.read() == b"content"


@pytest.mark.parametrize("name", ["pipe", "socket", "kernel", "cpu", "zero"])
def test_what_may_never_end_is_not_opened(folder, name, monkeypatch):
    monkeypatch.setattr(os, "open", None)
    assert not is_regular(folder / name)
    with pytest.raises(NotRegularError):
        open_regular(folder / name)


def test_a_file_that_turns_into_a_pipe_is_noticed(folder, monkeypatch):
    regular, pipe = os.stat(folder / "file"), folder / "pipe"
    monkeypatch.setattr(os, "stat", lambda path: regular)
    with pytest.raises(NotRegularError):
        open_regular(pipe)


def test_folders_and_missing_files_are_other_errors(folder):
    assert not is_regular(folder) and not is_regular(folder / "gone")
    for path, error in ((folder, IsADirectoryError), (folder / "gone", FileNotFoundError)):
        with pytest.raises(error):
            open_regular(path)

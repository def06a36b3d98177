"""Encoders in the hub's cache, compared with the answer of the hub's client."""

import logging
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.commands import refusal

from recon_ad.errors import UserError
from recon_ad.pretrained import cached, hub, read_encoder
from recon_ad.pretrained.hub import cache_folder

NAME = "vit_small_patch14_reg4_dinov2"
REPOSITORY = "models--timm--vit_small_patch14_reg4_dinov2.lvd142m"


def lay(cache: Path, content: bytes = b"weights", commit: str = "1" * 40) -> Path:
    """Write a file to a cache as the client does, and return its path there."""
    repository = cache / REPOSITORY
    file = repository / "snapshots" / commit / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return file


def test_a_file_in_the_cache_is_found_as_the_client_finds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert cached(NAME) is None
    lay(tmp_path, commit="0" * 40)
    file = lay(tmp_path)  # a later commit counts
    assert cached(NAME) == file
    assert cached("deit_tiny_patch16_224") is None
    client = pytest.importorskip("huggingface_hub")
    repository = "timm/vit_small_patch14_reg4_dinov2.lvd142m"
    theirs = client.try_to_load_from_cache(repository, "model.safetensors", cache_dir=tmp_path)
    assert theirs == str(file)
    file.unlink()
    assert cached(NAME) is None
    with pytest.raises(UserError, match="unknown encoder"):
        cached("resnet50")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "{home}/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "/h"}, "/h/hub"),
        ({"HF_HOME": "/h", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "$HOME/c"}, "{home}/c"),
    ],
)
def test_the_cache_is_where_the_clients_variables_say(tmp_path, monkeypatch, variables, folder):
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": str(tmp_path)} | variables).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder.format(home=tmp_path))


def test_looking_takes_neither_jax_nor_the_client():
    code = (
        "import sys; from recon_ad.pretrained import cached; cached('deit_tiny_patch16_224');"
        "sys.exit(any(name in sys.modules for name in ('jax', 'flax', 'huggingface_hub')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """Return an empty cache, without a proxy or a setting of the client."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_the_client_weights_come_with_how_to_get_them(empty, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    told = r'weights=hub, which is the default, .*pip install "recon_ad\[hub\]", or fetch its '
    with pytest.raises(UserError, match=told + "model.safetensors .* add weights=FILE"):
        read_encoder(NAME, "hub")
    # Files in the cache need no client.
    file = lay(empty)
    assert hub.fetched(NAME) == file


@pytest.mark.parametrize("listens", [False, True])
def test_without_a_network_there_is_a_sentence_within_five_seconds(empty, monkeypatch, listens):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # which never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        if not listens:
            server.close()
        begin = time.monotonic()
        sentence = refusal("weights", "--fetch", NAME)
    assert time.monotonic() - begin < 5
    why = "timed out|no answer" if listens else "Connection refused"
    assert re.search(rf"cannot fetch .*({why}).*: go online, or fetch its", sentence)


def test_a_client_that_fails_is_a_sentence(empty, monkeypatch):
    def fail(*_):
        raise ConnectionError

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=fail))
    monkeypatch.setattr(hub, "unreachable", lambda address: "")
    with pytest.raises(UserError, match=r"cannot fetch .*ConnectionError.*go online, or fetch"):
        read_encoder(NAME, "hub")


def test_the_clients_warnings_are_not_shown(empty, monkeypatch, caplog):
    def fetch(*_):
        logging.getLogger("huggingface_hub.file_download").warning("trying again")
        return str(lay(empty))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=fetch))
    monkeypatch.setattr(hub, "unreachable", lambda address: "")
    assert hub.fetched(NAME).read_bytes() == b"weights" and not caplog.messages


def test_a_client_that_is_to_stay_offline_is_not_tried(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.unreachable("http://127.0.0.1:9") == "HF_HUB_OFFLINE is set"


def test_any_answer_is_a_network(empty):
    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(401)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub.unreachable(f"http://127.0.0.1:{server.server_port}/timm/a") == ""

"""What of the encoders lies in the hub's cache, beside what its client says."""

import subprocess
import sys
from pathlib import Path

import pytest

from recon_ad.errors import UserError
from recon_ad.pretrained import cached
from recon_ad.pretrained.hub import cache_folder

NAME = "vit_small_patch14_reg4_dinov2"
REPOSITORY = "models--timm--vit_small_patch14_reg4_dinov2.lvd142m"


def lay(cache: Path, content: bytes = b"weights", commit: str = "1" * 40) -> Path:
    """Puts a file into a cache as the client does; returns its path there."""
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
    hub = pytest.importorskip("huggingface_hub")
    repository = "timm/vit_small_patch14_reg4_dinov2.lvd142m"
    theirs = hub.try_to_load_from_cache(repository, "model.safetensors", cache_dir=tmp_path)
    assert theirs == str(file)
    file.unlink()
    assert cached(NAME) is None
    with pytest.raises(UserError, match="no encoder here"):
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

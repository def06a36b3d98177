"""`python -m recon_ad.weights`: the list of encoders, downloading and verifying their files."""

import hashlib

import numpy as np
import pytest
import safetensors.numpy
from helpers import vit_reference
from helpers.commands import refusal, run_command
from helpers.vit_reference import SMALL

from recon_ad.pretrained import PRESETS, presets
from recon_ad.pretrained.encoders import parameters
from recon_ad.pretrained.presets import IMAGENET, Preset


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return a preset of few parameters, with its file in an empty hub cache, and the file."""
    preset = Preset(SMALL, *IMAGENET, "timm/small.made", "Apache-2.0")
    monkeypatch.setattr(presets, "PRESETS", {**PRESETS, "small": preset})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--timm--small.made"
    file = repository / "snapshots" / "1" / "model.safetensors"
    file.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1")
    tensors = vit_reference.make_tensors()
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, file)
    return file, tensors


def test_encoders_are_listed_with_what_is_in_the_cache(small, monkeypatch):
    done = run_command("weights")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*presets.PRESETS]
    (row,) = (line for line in lines if line.startswith("vit_small_patch14_reg4_dinov2 "))
    assert " ".join(row.split()[1:]) == "22.1 M 14 px 518 px 88 MB Apache-2.0 on the hub"
    assert lines[-1].endswith(" 0 MB  Apache-2.0  in the cache")


def test_the_parameters_are_those_of_the_tensors(small):
    _, tensors = small
    assert parameters("small") == sum(value.size for value in tensors.values())


def test_a_file_that_is_fetched_or_given_is_verified_and_its_digest_printed(small, tmp_path):
    file, tensors = small
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for given in (["--fetch=small"], [f"--verify={file}", "--name=small"]):
        done = run_command("weights", *given)
        count = f"{parameters('small'):,}"
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{file}: small, {count} parameters, SHA-256 {digest}\n"
    del tensors["norm.weight"]
    safetensors.numpy.save_file(tensors, tmp_path / "other.safetensors")
    given = [f"--verify={tmp_path / 'other.safetensors'}", "--name=small"]
    assert "missing: norm.weight" in refusal("weights", *given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--fetch=resnet50"], "unknown encoder 'resnet50'"),
        (["--verify=a.safetensors"], "--verify and --name go together"),
        (["--name=deit_tiny_patch16_224"], "--verify and --name go together"),
        (["--fetch=deit_tiny_patch16_224", "--verify=a"], "--fetch cannot be combined"),
        (["--verify=a.safetensors", "--name=deit_tiny_patch16_224"], "no weights at a.safetensors"),
    ],
)
def test_mistakes_end_in_one_sentence(given, says):
    assert says in refusal("weights", *given)

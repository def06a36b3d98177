"""What commands say of flags, files and folders that are missing or are others than they need."""

import gc
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_runs import by_command
from test_export import make_detector

from recon_ad import predict
from recon_ad.data import Record
from recon_ad.data.pipeline import Images, check_fits
from recon_ad.errors import UserError
from recon_ad.pretrained import read_encoder


@pytest.mark.parametrize(
    ("command", "given", "says"),
    [
        ("predict", ["--onnx", "m.onnx"], "--input and --output are missing: see python -m"),
        ("classify", [], "--detector, --images and --labels are missing"),
        ("predict", ["--input", "a", "--onnx", "b"], "--output is missing: see python -m recon_ad"),
        ("train", ["--config.train.steps=3", "--config=configs/demo.py"], "--config.train.steps "),
        ("train", ["--config.train.steps=3"], "give --config FILE before it."),
    ],
)
def test_flags_that_are_missing_or_in_another_order_are_told(command, given, says):
    done = by_command(command, *given)
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.splitlines()) == 1
    assert "None" not in done.stderr and "argv" not in done.stderr


@pytest.mark.parametrize("command", ["predict", "inspect"])
def test_help_shows_the_flags_that_tell_of_the_detector(command):
    told = by_command(command, "--help").stdout
    assert all(f"\n  --{flag}:" in told for flag in ("detector", "onnx", "runtime", "output"))


def test_a_file_to_watch_is_no_folder(tmp_path):
    (tmp_path / "a.png").touch()
    arguments = ("--onnx", "m.onnx", "--watch", tmp_path / "a.png", "--output", tmp_path / "o")
    done = by_command("inspect", *arguments)
    assert done.returncode == 2
    assert "a.png is a file: give the folder in which images arrive" in done.stderr


def test_patches_far_larger_than_all_images_are_refused():
    small, large = (
        Record(f"{w}.png", lambda w=w: np.zeros((20, w, 1), np.uint8)) for w in (30, 40)
    )
    check_fits([small, large], size=None, patch_size=160)
    wrong = r"config\.data\.patch_size is 161, and the largest good image, 40\.png, has 40 px"
    with pytest.raises(UserError, match=wrong):
        check_fits([small, large, small], size=None, patch_size=161)
    check_fits([small], size=(50, 20), patch_size=200)
    with pytest.raises(UserError, match="has 50 px on its longer side: choose"):
        Images([small], size=(50, 20), patch_size=201, memory_mib=1, disk_mib=1)


def test_weights_that_cannot_be_fetched_are_told_how_to_get(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    told = r'weights=hub, which is the default, .*pip install "recon_ad\[hub\]", or fetch its '
    with pytest.raises(UserError, match=told + "model.safetensors .* name it by weights=FILE"):
        read_encoder("deit_tiny_patch16_224", "hub")
    hub = SimpleNamespace(hf_hub_download=fail, errors=None)
    errors = SimpleNamespace(HfHubHTTPError=KeyError, LocalEntryNotFoundError=ConnectionError)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    with pytest.raises(UserError, match=r"cannot be fetched .*go online, or fetch its model\."):
        read_encoder("deit_tiny_patch16_224", "hub")


def fail(*_):
    raise ConnectionError


def test_files_that_are_not_judged_leave_no_image_in_memory(tmp_path, monkeypatch):
    for name, side in (("a.png", 8), ("roi.png", 5)):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / name)
    seen = []

    def decoded(*_):
        image = np.zeros((8, 8, 1), np.uint8)
        seen.append(weakref.ref(image))
        return image

    monkeypatch.setattr(predict, "decoded", decoded)
    judged = predict.judge_and_draw(
        make_detector(), "a.png", tmp_path / "a.png",
        regions=predict.Regions(tmp_path), overlays=tmp_path / "overlays",
    )  # fmt: skip
    gc.collect()
    assert "has 5 × 5 pixels" in judged.row["error"] and seen[0]() is None
    said = predict.summary([judged], tmp_path).splitlines()
    assert said[1] == f"  {judged.row['error']}"  # which names the file itself

"""Work that a command does only once: decoding an image, building and compiling a detector."""

import collections
import shutil

import jax
import pytest
from helpers.commands import run_command

from recon_ad.data import decode
from recon_ad.detector import jax_detector


@pytest.fixture
def counts(monkeypatch):
    """Count how often each file is decoded, a detector is built and its core is traced."""
    found = collections.Counter()
    pixels, init, core = decode._decoded, jax_detector.Detector.__init__, jax_detector.core

    def counted_pixels(name):
        found[name] += 1
        return pixels(name)

    def counted_init(self, *args, **fields):
        found["detector"] += 1
        init(self, *args, **fields)

    def counted_core(variables, images, **fields):
        found["core", images.shape] += 1
        return core(variables, images, **fields)

    monkeypatch.setattr(decode, "_decoded", counted_pixels)
    monkeypatch.setattr(jax_detector.Detector, "__init__", counted_init)
    monkeypatch.setattr(jax_detector, "core", counted_core)
    jax.clear_caches()
    return found


def once(counts, folder):
    images = [*folder.glob("train/*/*.png"), *folder.glob("test/*/*.png")]
    assert {counts[str(file)] for file in images} == {1}, counts
    assert counts["detector"] == 1
    # Once for batches of sixteen tiles, those of one image, and of fewer; the export traces it for
    # its own shapes.
    traced = {key[1][0]: times for key, times in counts.items() if key[0] == "core"}
    assert traced[16] == 1 and {traced.get(size, 1) for size in (2, 4, 8)} == {1}, counts


def test_train_and_evaluate_decode_an_image_once_and_build_one_detector(
    chess_folder, counts, tmp_path
):
    folder = shutil.copytree(chess_folder, tmp_path / "data")
    spec = f"configs/folder.py:method=cae,path={folder}"
    small = {
        "data.patch_size": 32, "data.channels": 1, "method.n_z": 8, "method.width": 0.25,
        "train.steps": 2, "train.batch_size": 8, "inference.stride": 32, "evaluation.bootstrap": 20,
        "evaluation.panels": 1, "train.heldout_patches": 16,
    }  # fmt: skip
    fields = [f"--config.{name}={value}" for name, value in small.items()]
    run = tmp_path / "run"
    done = run_command("train", "--config", spec, *fields, "--workdir", run)
    assert done.returncode == 0, done.stderr
    once(counts, folder)
    counts.clear()
    jax.clear_caches()  # otherwise evaluation would use what training has traced
    (run / "metrics.json").unlink()
    done = run_command("evaluate", "--workdir", run)
    assert done.returncode == 0, done.stderr
    once(counts, folder)

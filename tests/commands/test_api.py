"""`recon_ad.fit`, `recon_ad.load` and the package itself, as a notebook uses them."""

import subprocess
import sys

import numpy as np
import pytest
from helpers.small_runs import small_config

import recon_ad
from recon_ad.data import Record, synthetic_source
from recon_ad.data.source import KNOWN, digest, training_digests
from recon_ad.errors import UserError


def test_fit_takes_arrays_or_a_folder_and_load_opens_what_it_made(chess_folder, tmp_path):
    config = small_config("configs/folder.py:smoke")
    images = [record.load() for record in synthetic_source("chess", side=128).train]
    from_arrays = recon_ad.fit(images, config)
    from_folder = recon_ad.fit(chess_folder, config, workdir=tmp_path)
    a, b = from_arrays(images[0]), from_folder(images[0])
    np.testing.assert_array_equal(a.anomaly_map, b.anomaly_map)
    c = recon_ad.load(tmp_path / "detector")(images[0])
    np.testing.assert_array_equal(b.anomaly_map, c.anomaly_map)
    assert config.data.source == "synthetic"  # not changed


def test_held_out_images_are_none_that_were_trained_on():
    records = [Record(f"{i}.png", lambda i=i: np.full((2, 2, 1), i, np.uint8)) for i in range(9)]
    known = training_digests(records, kept=records[:8], but=records[:2])
    assert known == [digest(record.load()) for record in records[2:8]]
    assert len(training_digests(records * 200, kept=records, but=())) == KNOWN == 1000
    images = [np.full((64, 64, 1), i, np.uint8) for i in range(12)]
    detector = recon_ad.fit(images, small_config("configs/folder.py:smoke"))
    assert len(detector.record["learnt_from"]) == 12 - detector.record["calibration"]["images"] < 12


def test_importing_the_package_imports_no_jax():
    code = "import sys, recon_ad; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_of_the_package_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing"):
        recon_ad.nothing  # noqa: B018
    with pytest.raises(UserError):
        recon_ad.load("/no/such/detector")

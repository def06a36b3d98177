"""Fixtures for the tests of public data sets."""

from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def manual(tmp_path) -> Path:
    """Return the folder of a download."""
    return tmp_path / "manual"


@pytest.fixture
def source(tmp_path, manual):
    """Return `tfds_source`, which prepares the content of `manual`."""
    from recon_ad.data.tfds_source import tfds_source  # imports TFDS, which takes a second

    return partial(tfds_source, data_dir=tmp_path / "prepared", manual_dir=manual)

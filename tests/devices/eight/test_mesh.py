"""Batches cut over eight devices."""

import jax
import numpy as np
import pytest

from recon_ad.errors import UserError
from recon_ad.runtime import mesh


def test_batches_must_be_shared_evenly():
    devices = mesh.data_mesh()
    assert devices.size == 8
    mesh.check_batch_size(16, devices)
    for size in (0, 12):
        with pytest.raises(UserError, match="multiple of 8"):
            mesh.check_batch_size(size, devices)


def test_a_batch_is_cut_along_its_first_axis():
    batch = mesh.put_batch(mesh.data_mesh(), {"x": np.arange(16.0)})
    assert [s.data.shape for s in batch["x"].addressable_shards] == [(2,)] * 8
    np.testing.assert_array_equal(jax.device_get(batch["x"]), np.arange(16.0))

"""SSIM maps of a batch that several devices share."""

import re

import jax
import numpy as np
import pytest
from helpers.ssim_reference import pairs
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recon_ad.ops.ssim import ssim_map


@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_batches_stay_on_their_devices(border):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    x, y = pairs((80, 30, 3), images=16)

    def loss(x, y):
        maps = ssim_map(x, y, data_range=1.0, window=11, kind="gaussian", border=border)
        return maps.mean(), maps

    step = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (mean, maps), gradients = step(x, y)
    split = [jax.device_put(z, sharding) for z in (x, y)]
    program = step.lower(*split).compile()
    assert not re.findall(r"all-gather|all-to-all|collective-permute", program.as_text())
    (split_mean, split_maps), split_gradients = program(*split)
    assert split_maps.sharding.is_equivalent_to(sharding, 4)
    for a, b in zip(
        (mean, maps, *gradients), (split_mean, split_maps, *split_gradients), strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6 * np.abs(a).max())

"""Described GPUs: when JAX is told not to search for any, and missing packages."""

import jax
import pytest

from recon_ad.errors import UserError
from recon_ad.runtime import targets


@pytest.mark.parametrize(
    ("plugin", "device", "told"),
    [(True, False, ["cpu"]), (True, True, []), (False, False, [])],
)
def test_jax_looks_for_no_gpu_where_only_the_plugin_is(tmp_path, monkeypatch, plugin, device, told):
    found = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: found.append((name, value)))
    monkeypatch.setattr(targets.util, "find_spec", lambda name: object() if plugin else None)
    monkeypatch.setattr(targets, "_DEVICES", (str(tmp_path if device else tmp_path / "none"),))
    targets.expect_no_gpu()
    assert found == [("jax_platforms", value) for value in told]


@pytest.mark.parametrize(("count", "topology"), [(1, "1x1x1"), (8, "1x1x8"), (16, "1x2x8")])
def test_there_are_up_to_eight_gpus_in_a_host(monkeypatch, count, topology):
    asked = []

    def describe(**given):
        asked.append(given)
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(targets.topologies, "get_topology_desc", describe)
    with pytest.raises(UserError, match="not implemented for cuda"):
        targets.described_mesh(count)
    assert asked[0]["topology"] == topology and "H100" in asked[0]["target_config"]

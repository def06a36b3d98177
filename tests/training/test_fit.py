"""The largest batch that fits: parsing of memory sizes, the search, and a compiled step."""

import re

import pytest
from helpers.commands import refusal
from helpers.small_runs import small_config

from recon_ad.errors import UserError
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import targets
from recon_ad.training import fit
from recon_ad.training.programs import device_bytes, step_program


def test_memory_is_a_number_with_its_unit():
    assert fit.parse_memory("80GiB") == fit.parse_memory(" 80 gib") == 80 * 2**30
    assert fit.parse_memory("1.5 MB") == 1_500_000
    for text in ("80 apples", "80", "GiB", "-1GiB", "0GiB", "80 GiB of it", "9" * 400 + "GB", ""):
        with pytest.raises(UserError, match="such as 80GiB"):
            fit.parse_memory(text)


@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize("most", [1, 7, 8, 100, 1000, 50_000])
def test_the_search_finds_the_largest_that_fits_with_few_looks(most, unit):
    looked_at = []

    def needed(size):
        looked_at.append(size)
        return 1000 + 10 * size

    fits, fails = fit.largest(needed, limit=1000 + 10 * most, start=32, unit=unit)
    assert fits <= most < fails and fits % unit == fails % unit == 0
    assert fails - fits <= max(unit, fits // fit.SHARE)
    assert len(looked_at) <= 16


def test_the_search_ends_where_all_fits():
    fits, fails = fit.largest(lambda size: size, limit=10**12, start=32, unit=2)
    assert (fits, fails) == (2 * fit.MOST, None)


def test_the_sentence_is_about_a_step_that_is_compiled_and_not_taken(monkeypatch):
    # A CPU instead of the GPU, which also reports the memory that a program needs.
    mesh = meshes.data_mesh()
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    monkeypatch.setattr(targets, "described_mesh", lambda count: mesh)
    monkeypatch.setattr(fit, "SHARE", 1)  # each try compiles
    config = small_config("configs/demo.py:smoke")
    one, many = (
        device_bytes(step_program(with_batch(config, size), mesh, channels=1).compile())
        for size in (8, 64)
    )
    assert one < many
    said = fit.fit_check(config, f"{2 * one / 1e6 + 0.01:.3f}MB")
    fits, fails = map(
        int, re.search(r"batch of (\d+) fits .* batch of (\d+) does not", said).groups()
    )
    assert 8 <= fits < fails <= 64 and "cae at 32 px" in said and "\n" not in said
    assert fit.fit_check(config, "0.1MB").startswith("Not even a batch of 1 fits")
    assert config.train.batch_size == 8


def with_batch(config, size):
    other = config.copy_and_resolve_references()
    other.train.batch_size = size
    return other


def test_the_command_says_what_is_wrong_and_makes_no_folder(tmp_path, monkeypatch):
    given = ("--config=configs/demo.py:smoke", f"--workdir={tmp_path / 'run'}")
    assert "80 apples" in refusal("train", *given, "--fit_check=80 apples")

    def absent(*args, **kwargs):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(targets.topologies, "get_topology_desc", absent)
    assert "pip install -e '.[aot]'" in refusal("train", *given, "--fit_check=80GiB")
    assert not (tmp_path / "run").exists()

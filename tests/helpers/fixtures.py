"""JAX's settings for all tests, and fixtures that several folders share.

Rank promotion is an error, and programs are cached for all clones on a machine.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from absl import flags

from helpers import typechecker
from helpers.paths import SHARED
from helpers.shared_folders import made_once
from helpers.small_runs import small_config
from recon_ad import methods
from recon_ad.data import synthetic_source
from recon_ad.data.synthetic import write_folder
from recon_ad.evaluation import run as evaluation
from recon_ad.runtime.compilation import keep_compiled
from recon_ad.training import run as trainer

jax.config.update("jax_numpy_rank_promotion", "raise")
keep_compiled()
# For processes that are not commands of the project.
os.environ["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
# Grain reads absl flags, which pytest does not parse.
flags.FLAGS.mark_as_parsed()


def material(name: str) -> Path:
    """Return a folder with material for development, or skip the test if it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} at {SHARED / name}")
    return SHARED / name


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with real inspection images."""
    return material("data")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Return the folder with pretrained weights."""
    return material("weights")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """Return a folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the size and time of each file below a folder, to detect changes."""
    found = {file: file.stat() for file in folder.rglob("*") if file.is_file()}
    return {file: (stat.st_size, stat.st_mtime_ns) for file, stat in found.items()}


@pytest.fixture(scope="session")
def finished_run(shared_folder) -> Iterator[Callable[[str], Path]]:
    """Yield a function that returns a method's finished run, with report and ONNX model.

    Each method is trained once, with the smoke config of configs/folder.py. Its run is read-only: a
    test that changes a file copies it first.
    """
    used: dict[Path, dict] = {}

    def run(method: str = "cae") -> Path:
        def make(workdir: Path) -> None:
            trainer.train(small_config(f"configs/folder.py:method={method},smoke"), workdir)
            evaluation.evaluate_workdir(workdir)

        folder = made_once(shared_folder / "runs" / method, make)
        used.setdefault(folder, listing(folder))
        return folder

    yield run
    for folder, before in used.items():
        assert listing(folder) == before, f"a test changed the shared run {folder}"


@pytest.fixture(scope="session")
def chess_folder(shared_folder) -> Path:
    """Return the images of `finished_run` as files in the MVTec layout, which are read-only."""
    source = synthetic_source("chess", side=128)
    return made_once(shared_folder / "chess", lambda scratch: write_folder(source, scratch))


@pytest.fixture(autouse=True, scope="module")
def _start_anew():
    """Release methods and compiled programs after each test file, and check shapes and types again.

    Each program has about ten memory mappings. Linux allows 65,530 per process, and with more the
    compiler crashes.
    """
    yield
    methods.built.cache_clear()
    jax.clear_caches()
    typechecker.start_anew()

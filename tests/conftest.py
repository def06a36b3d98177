"""Strict settings for every test: warnings are errors, ranks do not promote, eight CPU devices."""

import os
from pathlib import Path

# Most of the tests' time goes into compiling programs that run for milliseconds. The processes
# that tests start inherit it.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1"

import jax
import pytest
from absl import flags

CACHE = Path(__file__).parent.parent / ".cache" / "jax"

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# One compilation cache for all tests and the processes they start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
# Grain reads absl flags, which under pytest nobody parses.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real inspection images; tests that need it skip where it is absent."""
    folder = Path(__file__).parent.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Lets go of compiled programs after each file of tests.

    Each is some ten mappings of memory, of which Linux gives a process 65,530: with more, the
    compiler crashes.
    """
    yield
    jax.clear_caches()

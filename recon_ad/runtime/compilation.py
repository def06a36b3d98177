"""Compiled programs kept from one run to the next."""

import os
from pathlib import Path

import jax

# `compiler_options` of a program that runs once: the compiler's work would never pay.
ONCE = {"xla_backend_optimization_level": 1}


def keep_compiled() -> None:
    """Lets JAX keep what it compiles in the user's cache folder, unless a folder is set already.

    JAX_COMPILATION_CACHE_DIR sets another one. Small programs are kept too: a command compiles some
    dozens of them, which together take longer than the large one.
    """
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "recon_ad" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

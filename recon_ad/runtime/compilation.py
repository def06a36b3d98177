"""A cache of compiled programs that persists from one run to the next."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def keep_compiled() -> None:
    """Cache JAX's compiled programs in the user's cache folder, unless another folder is set.

    JAX_COMPILATION_CACHE_DIR sets another one. Small programs are cached too: a command compiles
    some dozens of them, which together take longer than the large one.
    """
    if jax.config.jax_compilation_cache_dir is None:
        try:
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:  # a container's user without a name and a home folder has no cache
            return
        jax.config.update("jax_compilation_cache_dir", str(cache / "recon_ad" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def jit_for_one_call(
    function: Callable, *arguments: Any, out_shardings: jax.sharding.Sharding
) -> Any:
    """Return the function's result, jitted at low optimisation because it is called only once."""
    options = {"xla_backend_optimization_level": 1}
    return jax.jit(function, out_shardings=out_shardings, compiler_options=options)(*arguments)

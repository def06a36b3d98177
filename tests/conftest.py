"""Settings for all tests. The fixtures that several folders share are in helpers/fixtures.py.

Warnings are errors, and there is one CPU device. Programs are compiled quickly rather than well.
"""

import gc
import importlib
import os
from importlib import metadata

import pytest

# Tracing makes millions of small objects that reference counts free. A collection for each 700 of
# them, Python's default, takes 7 % of the tests' time.
gc.set_threshold(50_000, 50, 100)
# Most of the tests' time is spent compiling programs that run for milliseconds. Processes started
# by tests inherit these flags.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1"
if metadata.version("jaxlib").startswith("0.10."):
    # Reduces the time to two thirds. Later versions have only fusion emitters, and do not start
    # with an unknown flag.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Overrides the shell's value. tests/devices/test_eight_devices.py sets eight.
os.environ["JAX_NUM_CPU_DEVICES"] = os.environ.get("RECON_AD_TEST_DEVICES", "1")
# On small matrices, threads that wait for each other cost more than they save, especially if
# several processes share the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# No test connects to the hub or finds files that somebody has downloaded from it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = "/nonexistent"


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import what takes seconds, where warnings are errors already.

    The process that only starts those that run tests does without.
    """
    option = session.config.option
    if option.collectonly or not getattr(option, "numprocesses", None):
        for name in ("helpers.small_encoder", "helpers.fixtures"):
            session.config.pluginmanager.register(importlib.import_module(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the folders of the longest files, so that no process waits at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("devices", "project"))

"""Versions and hardware, which every protocol contains."""

import os
import platform
from importlib import metadata
from pathlib import Path

import jax

PACKAGES = ("recon_ad", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the main packages."""
    return {"python": platform.python_version()} | versions_of(*PACKAGES)


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of installed packages."""
    return {name: metadata.version(name) for name in packages}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware() -> str:
    """Return one line: accelerators, if any, and the processor with the cores for this process."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count()
    devices = jax.devices()
    cpu = f"{_processor()}, {cores} cores"
    if devices[0].platform == "cpu":
        return cpu
    return f"{len(devices)} × {devices[0].device_kind}; {cpu}"

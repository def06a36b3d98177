"""What every benchmark writes beside its figures: when, on which hardware, with which versions."""

import datetime
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from recon_ad.runtime import files, provenance

RESULTS = Path("results")


def installed(*packages: str) -> dict[str, str]:
    """Versions of those that are there; a borrowed machine may lack some that nothing asks for."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def facts(*packages: str) -> dict[str, Any]:
    """Date, hardware and versions, those of `packages` too."""
    versions = {"python": platform.python_version()}
    return {
        "measured": datetime.date.today().isoformat(),
        "hardware": provenance.hardware(),
        "versions": versions | installed(*provenance.PACKAGES, *packages),
    }


def write(name: str, content: Mapping[str, Any], *packages: str) -> None:
    """results/NAME.json: the content and its `facts`."""
    files.write_json(RESULTS / f"{name}.json", {**content, **facts(*packages)})

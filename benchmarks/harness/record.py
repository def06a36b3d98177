"""Facts that every benchmark writes beside its figures: date, hardware and versions."""

import datetime
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from recon_ad.runtime import files, provenance

RESULTS = Path("results")


def installed(*packages: str) -> dict[str, str]:
    """Return the versions of the installed packages; a machine may lack some that are unused."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def facts(*packages: str) -> dict[str, Any]:
    """Return the date, the hardware and the versions, including those of `packages`."""
    versions = {"python": platform.python_version()}
    return {
        "measured": datetime.date.today().isoformat(),
        "hardware": provenance.hardware(),
        "versions": versions | installed(*provenance.PACKAGES, *packages),
    }


def write(name: str, content: Mapping[str, Any], *packages: str) -> None:
    """Write the content and its `facts` to results/NAME.json."""
    files.write_json(RESULTS / f"{name}.json", {**content, **facts(*packages)})

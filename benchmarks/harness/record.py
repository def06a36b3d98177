"""Facts that every benchmark writes beside its figures: date, hardware and versions."""

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_ad.runtime import files, provenance
from recon_ad.runtime.packages import installed

RESULTS = Path("results")


def facts(*packages: str) -> dict[str, Any]:
    """Return the date, the hardware and the versions, including those of `packages`."""
    versions = {"python": platform.python_version()}
    return {
        "measured": datetime.date.today().isoformat(),
        "hardware": provenance.hardware(),
        # A machine may lack packages that are not needed there.
        "versions": versions | installed(*provenance.PACKAGES, *packages),
    }


def write(name: str, content: Mapping[str, Any], *packages: str) -> None:
    """Write the content and its `facts` to results/NAME.json."""
    files.write_json(RESULTS / f"{name}.json", {**content, **facts(*packages)})

"""Draw the README's picture, a typical defective image of the demo, from a finished run.

python -m benchmarks.demo_picture runs/demo results/demo.png
"""

import sys
from pathlib import Path

from recon_ad.data.build import build_source
from recon_ad.detector.directory import load
from recon_ad.evaluation.panels import panel
from recon_ad.report import panel_sheet
from recon_ad.runtime import files


def main(workdir: str, output: str) -> None:
    """Draw the first defective test image."""
    detector = load(Path(workdir) / "detector")
    record = next(r for r in build_source(detector.config).test if r.anomalous)
    files.write_bytes(
        Path(output), panel_sheet([panel(detector, record, scale=None)], long_side=320)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

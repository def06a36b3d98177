"""Where the repository and the material for development are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"  # real images and weights; absent on most machines

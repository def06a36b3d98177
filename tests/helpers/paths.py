"""Paths of the repository and of the material for development."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCAL_LAUNCHER = ROOT / "launch" / "local.sh"
SHARED = ROOT.parent / "shared"  # real images and weights; absent on most machines

"""Reconstruction-based defect detection in industrial images, trained on good images only.

    detector = recon_ad.fit("my_good_images/", recon_ad.load_config("configs/folder.py"))
    prediction = detector(image)
    detector = recon_ad.load("runs/demo/detector")  # or an exported "model.onnx", without JAX

Importing the package does not import JAX: each name is imported when it is first used.
"""

import importlib
import os
from typing import Any

# From version 1.29 on, ONNX Runtime sends names and digests of models to its maker unless it finds
# this variable when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "fit": "recon_ad.api",
    "load": "recon_ad.detector.open",
    "load_config": "recon_ad.config",
    "Detector": "recon_ad.detector.jax_detector",
    "Prediction": "recon_ad.detector.inference",
    "UserError": "recon_ad.errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recon_ad' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

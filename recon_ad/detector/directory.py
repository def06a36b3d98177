"""Reading of a detector directory: its files are checked against each other and against the rules.

`Detector.save` writes it.
"""

import json
import reprlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util
from flax.errors import FlaxError
from ml_collections import ConfigDict

from recon_ad.alignment import part as parts
from recon_ad.config import RULES, check_config, flatten
from recon_ad.detector import classifier as classifiers
from recon_ad.detector.bounds import (
    check_calibration,
    check_fields,
    check_finite,
    check_json,
    check_numbers,
)
from recon_ad.detector.classifier import Classifier
from recon_ad.detector.damage import brief, reason
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import FORMAT, Detector
from recon_ad.detector.older import OLDER, as_today
from recon_ad.errors import UserError
from recon_ad.runtime import files
from recon_ad.runtime.files import is_regular, sha256

# Exceptions that impossible numbers and names raise.
DAMAGED = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError,
    MemoryError, FlaxError,
)  # fmt: skip


def load(path: Path | str) -> Detector:
    """Open a detector directory; if it is replaced meanwhile, open the new one.

    Raises:
      UserError: If it is not a detector directory, or its files do not fit each other.
    """
    path = Path(path)
    while True:
        before = files.identity(path)
        try:
            detector = _load(path)
        except (UserError, OSError):
            if files.identity(path) == before:
                raise
        else:
            if files.identity(path) == before:
                return detector


def _load(path: Path) -> Detector:
    for name in ("detector.json", "variables.safetensors"):
        if not is_regular(path / name):
            raise UserError(
                f"{path} is not a detector directory: {name} is missing. "
                "Give the folder `detector` of a finished run."
            )
    try:
        described = json.loads((path / "detector.json").read_text())
        content = (path / "variables.safetensors").read_bytes()
        flat = safetensors.numpy.load(content)
    except (*DAMAGED, safetensors.SafetensorError) as error:
        text = brief(str(error))
        raise UserError(f"the detector in {path} is damaged ({text}); copy it anew.") from None
    form = described.get("format") if isinstance(described, dict) else None
    if type(form) is not int or form not in (*OLDER, FORMAT):
        raise UserError(
            f"{path / 'detector.json'} is in format {reprlib.repr(form)}, and this version reads "
            f"{OLDER[0]} to {FORMAT}: train it anew, or open it by the version that wrote it."
        )
    try:
        check_fields(described)
        if described["format"] > 6 and not described["variables_sha256"]:
            raise ValueError("variables_sha256 is not a digest")
        described = as_today(described)
        digest = described["variables_sha256"]
        if digest is not None and digest != sha256(content):
            raise UserError(
                "variables.safetensors is not the file that its detector.json was written with: "
                "copy the detector anew."
            )
        check_finite(flat)
        _check_tensors(described, flat)
        part = _part(path / parts.FILE) if described["has_part"] else None
        return _assembled(described, flat, part=part, classifier=classifiers.load(path))
    except UserError as error:
        named = str(error).startswith(str(path))
        raise UserError(str(error) if named else f"{path}: {brief(str(error))}") from None
    except DAMAGED as error:
        raise UserError(
            f"{path / 'detector.json'} is damaged ({reason(error)}); copy the detector anew."
        ) from error


def _part(path: Path) -> parts.Part:
    if not is_regular(path):
        raise UserError(f"{path.name}, which its detector.json mentions, is missing.")
    return parts.read(path)


def _check_tensors(described: dict[str, Any], flat: dict[str, np.ndarray]) -> None:
    shapes = {name: list(value.shape) for name, value in flat.items()}
    if shapes != described["tensors"]:
        wrong = sorted(
            name
            for name in shapes.keys() | described["tensors"].keys()
            if shapes.get(name, ...) != described["tensors"].get(name, ...)
        )
        raise UserError(
            "variables.safetensors does not belong to its detector.json: "
            f"{', '.join(wrong[:3])} differ or are missing."
        )


def _assembled(
    described: dict[str, Any],
    flat: dict[str, np.ndarray],
    *,
    part: parts.Part | None,
    classifier: Classifier | None,
) -> Detector:
    thresholds, given = _thresholds(described["thresholds"])
    categories = {str(k): _thresholds(each) for k, each in described["categories"].items()}
    config = ConfigDict(described["config"])
    fields = flatten(config.to_dict())
    if absent := [name for name in RULES if name not in fields]:
        raise ValueError(f"config.{absent[0]} is missing")
    check_config(config)  # before anything is allocated by its sizes
    record = dict(described["record"])
    check_json(record, name="record")
    check_calibration(record)
    detector = Detector(
        config,
        channels=described["channels"],
        variables=traverse_util.unflatten_dict(
            {tuple(name.split("/")): value for name, value in flat.items()}
        ),
        thresholds=thresholds,
        record=record,
        part=part,
        classifier=classifier,
        categories={name: each for name, (each, _) in categories.items()},
    )
    for numbers in (given, *(numbers for _, numbers in categories.values())):
        check_numbers(detector.plan, numbers)
    # Misfits of settings and tensors show here, and not at the first image.
    size = (1, *detector.plan.geometry.tile, detector.channels)
    jax.eval_shape(detector.core, detector.variables, jax.ShapeDtypeStruct(size, jnp.float32))
    return detector


def _thresholds(described: dict[str, Any]) -> tuple[Thresholds, dict[str, float]]:
    """Return the thresholds of a file, and those of its numbers that are not null."""
    given = {name: described[name] for name in Thresholds._fields}
    found = Thresholds(*(np.inf if value is None else float(value) for value in given.values()))
    return found, {name: value for name, value in given.items() if value is not None}

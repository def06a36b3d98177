"""Arrays and a description of them in one file that is safe to open from an untrusted source.

The file is safetensors, with JSON in its header. This module does not need JAX.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

NAME = "recon_ad"  # key of the JSON in the header


def to_bytes(arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> bytes:
    """Return the file's content.

    Raises:
      ValueError: If the description contains NaN or infinity, which JSON lacks.
    """
    header = {NAME: json.dumps(description, allow_nan=False)}
    return safetensors.numpy.save(dict(arrays), metadata=header)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a file's arrays and the description in its header.

    Raises:
      ValueError: If the file is not of this format.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, json.loads(file.metadata()[NAME])
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None

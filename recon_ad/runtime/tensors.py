"""Arrays and a description of them in one file that is safe to open from a stranger.

The file is safetensors, with JSON in its header. No JAX.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

NAME = "recon_ad"  # of the JSON in the header


def to_bytes(arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> bytes:
    """Returns the file's content; a description with NaN or infinity, which JSON lacks, raises."""
    header = {NAME: json.dumps(description, allow_nan=False)}
    return safetensors.numpy.save(dict(arrays), metadata=header)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns a file's arrays and what its header says of them.

    Raises:
      ValueError: it is no such file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, json.loads(file.metadata()[NAME])
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None

"""Arrays and what is to be said of them in one file that is safe to open from a stranger:
safetensors, with JSON in its header. No JAX."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

NAME = "recon_ad"  # of the JSON in the header


def to_bytes(arrays: Mapping[str, np.ndarray], said: Mapping[str, Any]) -> bytes:
    """The file's content; refuses NaN and infinity in what is said, which are not JSON."""
    header = {NAME: json.dumps(said, allow_nan=False)}
    return safetensors.numpy.save(dict(arrays), metadata=header)


def from_bytes(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and what is said of them; raises ValueError where it is no such file."""
    try:
        arrays = safetensors.numpy.load(content)
        # As the format has it; the library reads a header from files only.
        length = int.from_bytes(content[:8], "little")
        return arrays, json.loads(json.loads(content[8 : 8 + length])["__metadata__"][NAME])
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None

"""Trials: an image and what the detector says of it, kept in a file as soon as it is known.

`trials.jsonl` begins with a line on the detector, the images and the settings; each further line is
a trial. The same command goes on after the last whole line, and its random numbers depend on the
name of a trial alone, so that an interruption changes nothing.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Bool, Shaped

from recon_ad.alignment.part import NotRegistered
from recon_ad.detector.inference import Inference, Prediction
from recon_ad.errors import UserError
from recon_ad.runtime import files

FILE = "trials.jsonl"

Row = dict[str, Any]


class Trials:
    """The rows of a certificate's trials.

    Args:
      path: Path of their file.
      run: Settings that must be equal for rows to be used again, plain JSON.

    Raises:
      UserError: The file holds the trials of another study.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]):
        self._rows = _read(path, run)
        lines = [_line(name, row) for name, row in self._rows.items()]
        # Written anew, as the last line of an interrupted run may be a half one.
        files.write_text(path, json.dumps(run) + "\n" + "".join(lines))
        self._file: TextIO = path.open("a", encoding="utf-8", errors="backslashreplace")
        self.kept = len(lines)

    def run(self, name: str, make: Callable[[], Row]) -> Row:
        """Return the row of that name, which is made unless it is known."""
        if name not in self._rows:
            self._rows[name] = make()
            self._file.write(_line(name, self._rows[name]))
            self._file.flush()
        return self._rows[name]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(name: str, row: Row) -> str:
    return json.dumps({"trial": name, **row}, allow_nan=False) + "\n"


def _read(path: Path, run: Mapping[str, Any]) -> dict[str, Row]:
    """Read the rows of the same run; none where the file is damaged."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        first, *rows = (json.loads(line) for line in whole)
        kept = {row.pop("trial"): row for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    if first != run:
        raise UserError(
            f"{path} holds the trials of another study (another detector, other images, regions "
            "or seed): give another --output, or remove that file."
        )
    return kept


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of a trial."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))


def judge(
    detector: Inference,
    image: Shaped[np.ndarray, "h w c"],
    roi: Bool[np.ndarray, "h w"] | None,
) -> Prediction | None:
    """Return the detector's prediction; None where it does not find the part in the image."""
    try:
        return detector.predict(image, roi=roi, reconstruct=False)
    except NotRegistered:
        return None


def row_of(prediction: Prediction | None, defect: Bool[np.ndarray, "h w"] | None = None) -> Row:
    """Return what is kept of a prediction.

    Args:
      prediction: None where the part was not found, which counts as not stopped.
      defect: True at defective pixels. None for a good image.

    Returns:
      The score, whether the image is stopped and, with a defect, whether the marks overlap it.
    """
    if prediction is None:
        row: Row = {"score": None, "stopped": False, "registered": False}
    else:
        row = {
            "score": float(prediction.score),
            "stopped": bool(prediction.label),
            "registered": True,
        }
    if defect is not None:
        row["located"] = prediction is not None and bool((prediction.marks & defect).any())
    return row

"""Judging of image files: the row, the overlay and the outcome of each.

An image that is accepted has no marks: `regions` is 0 and nothing is outlined, though single pixels
may be above the pixel threshold.
"""

import errno
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from recon_ad.alignment.part import NotRegistered
from recon_ad.data.arrays import given_range, to_unit
from recon_ad.data.decode import SUFFIXES, decode_image
from recon_ad.data.listing import files_below
from recon_ad.data.truth import Regions
from recon_ad.detector import maps
from recon_ad.detector.inference import Inference, Prediction
from recon_ad.detector.submission import Submission
from recon_ad.errors import UserError
from recon_ad.ops.masks import count_regions
from recon_ad.report import wording
from recon_ad.report.caption import with_caption
from recon_ad.report.pictures import MASK_COLOUR, encode, outlined, rgb
from recon_ad.runtime import files

logger = logging.getLogger("recon_ad")

# Outcomes of an image. One whose part is not found has no score, and is not a broken file.
GOOD, REJECT, NOT_REGISTERED, BROKEN = "good", "reject", "not registered", "broken"
# Errors of a file system for an impossible name, or one that a folder has.
NAMES = (
    errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EINVAL,
)  # fmt: skip
LONGEST_NAME = 200  # bytes of an overlay's name; file systems take 255
WHITE = (255, 255, 255)
FIELDS = (
    "path", "score", "threshold", "anomalous", "regions", "error", "defect_probability",
    "normalised_score",
)  # fmt: skip


def inputs(path: Path, *, output: Path) -> list[Path]:
    """List one image, or all images in a folder and below it, sorted.

    The overlays of this output and of earlier ones, and the truth masks of a data set are left out.
    """
    if not path.is_dir():
        return [path]
    apart = [output.resolve()]
    apart += [table.parent.resolve() / "overlays" for table in path.rglob("predictions.csv")]
    if (path / "test").is_dir():
        apart.append((path / "ground_truth").resolve())
    apart.append((path / "test_public" / "ground_truth").resolve())
    found = [
        file
        for file in files_below(path)
        if not any(file.parent.resolve().is_relative_to(folder) for folder in apart)
    ]
    images = [file for file in found if file.suffix.lower() in SUFFIXES]
    if not images:
        raise UserError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))}).")
    if len(images) < len(found):
        print(f"{len(found) - len(images)} other files in {path} left out for their suffix")
    return images


def decoded(detector: Inference, file: Path) -> Shaped[np.ndarray, "h w c"]:
    """Return the image with the detector's channels and range; raise as `decode_image`."""
    return decode_image(
        file,
        channels=detector.plan.channels,
        input_range=given_range(detector.plan.input_range),
    )


class FileResult(NamedTuple):
    """The result of judging a file.

    Attributes:
      row: Its fields, `error` alone where it could not be judged.
      image: The decoded image; None where that failed.
      overlay: PNG of the image with its marks outlined, below a strip with verdict, scores and
        threshold; b"" without one.
      outcome: `GOOD`, `REJECT`, `NOT_REGISTERED` or `BROKEN`.
      confidence: Confidence of the registration; None without one.
      cause: Reason why it is broken, else None.
      prediction: The detector's prediction; None where that failed.
    """

    row: dict[str, Any]
    image: Shaped[np.ndarray, "h w c"] | None
    overlay: bytes
    outcome: str
    confidence: float | None = None
    cause: Exception | None = None
    prediction: Prediction | None = None


def judge_file(detector: Inference, name: str, file: Path, *, regions: Regions) -> FileResult:
    """Decode and judges a file, and draws its overlay."""
    row: dict[str, Any] = dict.fromkeys(FIELDS)
    row["path"] = name
    image = None
    try:
        image = decoded(detector, file)
        prediction = detector.predict(image, roi=regions.load(file), reconstruct=False)
    except NotRegistered as error:
        row["error"] = str(error)
        return FileResult(row, image, b"", NOT_REGISTERED, error.registration.confidence)
    except (UserError, MemoryError) as error:
        row["error"] = str(error) or "not enough memory for this image."
        return FileResult(row, image, b"", BROKEN, cause=error)
    except Exception as error:  # one image must not stop the others
        logger.exception("%s could not be judged", name)
        row["error"] = f"{type(error).__name__}: {error}"
        return FileResult(row, image, b"", BROKEN, cause=error)
    if not np.isfinite(prediction.score):
        row["error"] = f"the score is {prediction.score}: the detector or the image is damaged."
        return FileResult(row, image, b"", BROKEN)
    row |= {
        "score": float(prediction.score),
        "threshold": float(detector.thresholds.image),
        "anomalous": bool(prediction.label),
        "regions": count_regions(prediction.marks),
    }
    if prediction.defect_probability is not None:
        row["defect_probability"] = float(prediction.defect_probability)
    if prediction.normalised_score is not None:
        row["normalised_score"] = float(prediction.normalised_score)
    outcome = REJECT if prediction.label else GOOD
    found = prediction.registration
    return FileResult(
        row,
        image,
        _overlay(image, prediction, [outcome, *_figures(row)], anomalous=row["anomalous"]),
        outcome,
        None if found is None else found.confidence,
        prediction=prediction,
    )


def _figures(row: dict[str, Any]) -> list[str]:
    """Return the overlay's scores, with enough digits to tell score from threshold."""
    digits = wording.digits_apart(row["score"], row["threshold"])
    words = [f"{name} {wording.score(row[name], digits)}" for name in ("score", "threshold")]
    if (normalised := row["normalised_score"]) is not None:
        digits = wording.digits_apart(
            normalised, 0.5
        )  # distinguishes it from the threshold on its scale
        words.append(f"normalised score {wording.score(normalised, digits)}")
    if row["defect_probability"] is not None:
        words.append(f"defect probability {wording.score(row['defect_probability'])}")
    return words


def _overlay(
    image: Shaped[np.ndarray, "h w c"], prediction: Prediction, words: list[str], *, anomalous: bool
) -> bytes:
    shown = image if image.dtype == np.uint8 else to_unit(image)
    drawn = outlined(rgb(shown), truth=None, mask=prediction.marks)
    return encode(
        with_caption(drawn, words, colour=MASK_COLOUR if anomalous else WHITE), quality=None
    )


def overlay_path(folder: Path, name: str, *, end: str = ".png") -> Path:
    """Return the path of an image's overlay, or of another file for it with the given `end`.

    A name too long for a file system is shortened.
    """
    path = folder / f"{name}{end}"
    encoded = os.fsencode(path.name)
    if len(encoded) <= LONGEST_NAME:
        return path
    short = encoded[: LONGEST_NAME // 2].decode(errors="ignore")
    return path.with_name(f"{short}-{files.sha256(os.fsencode(name))[:16]}{end}")


def overlay_error(path: Path, content: bytes, *, what: str = "overlay") -> str:
    """Write an overlay, or another file (`what`) for an image; return why its name is impossible.

    "" means that it was written.

    Raises:
      OSError: If the disk is full, or another problem does not concern this name alone.
    """
    try:
        files.write_bytes(path, content)
    except OSError as error:
        if error.errno not in NAMES:
            raise
        return f"its {what} cannot be written: {error.strerror}."
    except RecursionError:  # of pathlib
        return f"its {what} cannot be written: its folder is too deep."
    return ""


def judge_and_draw(
    detector: Inference,
    name: str,
    file: Path,
    *,
    regions: Regions,
    overlays: Path,
    submission: Submission | None = None,
    form: str = "",
) -> FileResult:
    """Judge a file and write its overlay.

    Args:
      detector: Calibrated detector.
      name: Name of the file in the table.
      file: Path of the image.
      regions: Regions of interest.
      overlays: Folder of the overlays, and of maps beside them.
      submission: Submission that its map belongs to.
      form: Form of its map, one of `maps.FORMS`; "" writes none.

    Returns:
      The result without its pictures.

    Raises:
      OSError: If the disk is full, for example.
    """
    judged = judge_file(detector, name, file, regions=regions)
    if submission is not None and judged.prediction is not None:
        submission.write(file, judged.prediction)
    reason = ""
    if judged.overlay:
        reason = overlay_error(overlay_path(overlays, name), judged.overlay)
    if form and judged.prediction is not None and not reason:
        content = maps.FORMS[form](judged.prediction.anomaly_map)
        path = overlay_path(overlays, name, end=f".map.{form}")
        reason = overlay_error(path, content, what="map")
    if reason:
        judged = judged._replace(row=judged.row | {"error": reason}, outcome=BROKEN)
    # An error keeps the image that it was raised about, and there may be many.
    return judged._replace(image=None, overlay=b"", cause=None, prediction=None)

"""Data set with moved images, as parts lie on a line: each moved by a random similarity.

It is written in the MVTec layout, images and masks as PNG. Pixels of a picture that were outside
the image are black and outside its region of interest, as they would otherwise reveal the motion.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image

from recon_ad.alignment.geometry import Matrix, similarity
from recon_ad.data import folder_source
from recon_ad.evaluation.judge import truth_of

ANGLE, SCALE, SHIFT = 15.0, 0.1, 40.0  # degrees, share, px: largest change in either direction
TEMPLATE, GROUND = "template.png", "foreground.png"


def random_pose(random: np.random.Generator, shape: tuple[int, int]) -> Matrix:
    """Draw a pose, uniform within the limits."""
    return similarity(
        angle=random.uniform(-ANGLE, ANGLE),
        scale=random.uniform(1 - SCALE, 1 + SCALE),
        shift=tuple(random.uniform(-SHIFT, SHIFT, 2)),
        shape=shape,
    )


def moved(
    image: Shaped[np.ndarray, "h w c"], pose: Matrix
) -> tuple[Shaped[np.ndarray, "h w c"], Bool[np.ndarray, "h w"]]:
    """Return the image in that pose, and which of the pixels were inside the image."""
    size = image.shape[1::-1]
    picture = cv2.warpAffine(image, pose, size, flags=cv2.INTER_CUBIC).reshape(image.shape)
    valid = cv2.warpAffine(np.ones(image.shape[:2], np.float32), pose, size) > 0.999
    # Eroded by the neighbours that a cubic interpolation uses.
    return picture, cv2.erode(valid.astype(np.uint8), np.ones((5, 5))) > 0


def write_moved(
    folder: Path, target: Path, *, outline: Sequence[tuple[float | int, float | int]]
) -> None:
    """Move all images of a folder in the MVTec layout.

    The template, in a file beside the sets, is the middle one of the good images, unmoved. Another
    file marks which of its pixels are the part.

    Args:
      folder: Folder of the set.
      target: Folder to fill.
      outline: Outline of the part in the template, (x, y) as shares of its width and height.
    """
    source = folder_source(folder, on_error="skip")
    random = np.random.default_rng(0)
    kept = source.train[len(source.train) // 2].load()
    _write(target / TEMPLATE, kept)
    _write(target / GROUND, _inside(outline, kept.shape[:2])[..., None])
    for record in (*source.train, *source.test):
        image = record.load()
        pose = random_pose(random, image.shape[:2])
        picture, valid = moved(image, pose)
        place = Path(record.name).with_suffix(".png")
        truth = truth_of(record, image.shape[:2])
        if record.anomalous:
            if truth is None:
                continue
            size = image.shape[1::-1]
            truth = cv2.warpAffine(truth.astype(np.float32), pose, size)[..., None] >= 0.5
            if not (truth[..., 0] & valid).any():
                continue  # the defect was moved out of the picture
            mask = f"{place.stem}_mask.png"
            _write(target / "ground_truth" / record.defect / mask, truth)
        _write(target / place, picture)
        _write(target / "roi" / place, valid[..., None])


def _inside(
    outline: Sequence[tuple[float | int, float | int]], shape: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    corners = np.array(outline, float) * (shape[1], shape[0])
    drawn = cv2.fillPoly(np.zeros(shape, np.uint8), [np.rint(corners).astype(np.int32)], (255,))
    return drawn > 0


def _write(path: Path, image: Shaped[np.ndarray, "h w c"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image.astype(np.uint8) * 255 if image.dtype == bool else image
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path, compress_level=1)

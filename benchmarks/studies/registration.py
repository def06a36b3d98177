"""Measure the accuracy and speed of registration, and its answer for images without the part.

    python -m benchmarks.studies.registration --data FOLDER [--strangers FOLDER,FOLDER]

FOLDER contains good images of a part at a fixed position, in the MVTec layout; the first one is the
template. The others are rotated by up to 15°, scaled by up to 10 % and shifted by up to 40 px;
pixels that were not in the original image do not count. The error is that of the template's worst
corner, relative to the pose of the same image unmoved. Images without the part are those of
--strangers, and images with the part mirrored, half covered, or moved beyond the search.

The time is compared with OpenCV's generalised Hough transform (Guil) at 256 px, the smallest size
at which its poses were right on ball screws. It runs on the first images only, because it takes
half a minute for each. The result is written to results/registration.json.
"""

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.alignment.coarse_search import Search
from recon_ad.alignment.geometry import corners, similarity
from recon_ad.alignment.registration import Registration, make_template, register
from recon_ad.data.arrays import resize, to_unit
from recon_ad.data.decode import decode_image
from recon_ad.data.listing import images_in
from recon_ad.tables.moved import ANGLE, SCALE, SHIFT, moved, random_pose

SEARCH = Search(angle=ANGLE, scale=SCALE, overlap=0.5, confidence=0.85)
MOVED, STRANGERS, HOUGH = 100, 20, 3  # numbers of images
SIDE = 256  # px, for Hough


def after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the matrix of the first transform followed by the second."""
    return (np.vstack([second, [0, 0, 1]]) @ np.vstack([first, [0, 0, 1]]))[:2]


def error(found: np.ndarray, expected: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the error of the worst corner in px."""
    return float(np.linalg.norm(corners(found, shape) - corners(expected, shape), axis=1).max())


def without_part(images: list[np.ndarray], strangers: list[np.ndarray]) -> dict[str, list[Any]]:
    """Return images, with their valid pixels, in which the part is not within the search."""
    shape = images[0].shape[:2]
    beyond = {
        "turned by 45°": similarity(angle=45, scale=1, shift=(0, 0), shape=shape),
        "turned by 180°": similarity(angle=180, scale=1, shift=(0, 0), shape=shape),
        "scaled by 0.7": similarity(angle=0, scale=0.7, shift=(0, 0), shape=shape),
        "out of the picture": similarity(angle=0, scale=1, shift=(0.7 * shape[1], 0), shape=shape),
    }
    pictures = {name: [moved(i, pose) for i in images] for name, pose in beyond.items()}
    whole = np.ones(shape, bool)
    pictures["mirrored"] = [(i[:, ::-1].copy(), whole) for i in images]
    covered = []
    for image in images:
        half = image.copy()
        half[:, : shape[1] // 2] = 0
        covered.append((half, whole))
    pictures["covered by half"] = covered
    if strangers:
        pictures["another part"] = [(s, np.ones(s.shape[:2], bool)) for s in strangers]
    return pictures


def hough(template: np.ndarray) -> cv2.GeneralizedHoughGuil:
    """Return OpenCV's detector for the same search."""
    found = cv2.createGeneralizedHoughGuil()
    for name, value in {
        "MinDist": SIDE, "Levels": 180, "Dp": 2, "MaxBufferSize": 20_000, "AngleStep": 1,
        "MinAngle": 0, "MaxAngle": 360,  # negative angles are not allowed
        "AngleThresh": 100, "MinScale": 1 - SEARCH.scale, "MaxScale": 1 + SEARCH.scale,
        "ScaleStep": 0.02, "ScaleThresh": 30, "PosThresh": 10,
        "CannyLowThresh": 30, "CannyHighThresh": 90,
    }.items():  # fmt: skip
        getattr(found, f"set{name}")(value)
    found.setTemplate(template)
    return found


def small(image: np.ndarray) -> np.ndarray:
    """Convert an image to 8-bit gray at Hough's size."""
    gray = to_unit(image).mean(axis=2, keepdims=True, dtype=np.float32)
    factor = SIDE / max(image.shape[:2])
    size = (round(image.shape[0] * factor), round(image.shape[1] * factor))
    return np.rint(255 * resize(gray, size)[..., 0]).clip(0, 255).astype(np.uint8)


def by_hough(
    detector: cv2.GeneralizedHoughGuil, image: np.ndarray, shape: tuple[int, int]
) -> np.ndarray | None:
    """Return the template's pose, or None if Hough does not find it."""
    positions, _ = detector.detect(small(image))
    if positions is None:
        return None
    x, y, scale, angle = positions[0][0].astype(float)
    h, w = small(image).shape
    shift = ((x - w / 2) * shape[1] / w, (y - h / 2) * shape[0] / h)
    return similarity(angle=-angle, scale=scale, shift=shift, shape=shape)


def main() -> None:
    """Measure, write the result and print it."""
    random = np.random.default_rng(0)
    paths = images_in(Path(_DATA.value) / "train" / "good")
    template_image = decode_image(paths[0])
    shape = template_image.shape[:2]
    template = make_template(template_image)
    others = [decode_image(path) for path in paths[1 : MOVED + 1]]
    errors, milliseconds, confidences = [], [], []
    hough_errors, hough_milliseconds = [], []
    detector = hough(small(template_image))
    for k, image in enumerate(others):
        pose = random_pose(random, shape)
        picture, valid = moved(image, pose)
        own = register(image, template, SEARCH)
        expected = after(pose, own.matrix)
        begin = time.perf_counter()
        found: Registration = register(picture, template, SEARCH, valid=valid)
        milliseconds.append(1000 * (time.perf_counter() - begin))
        errors.append(error(found.matrix, expected, shape) if found.registered else None)
        confidences.append(found.confidence)
        if k < HOUGH:
            begin = time.perf_counter()
            matrix = by_hough(detector, picture, shape)
            hough_milliseconds.append(1000 * (time.perf_counter() - begin))
            hough_errors.append(None if matrix is None else error(matrix, expected, shape))
    strangers = [
        decode_image(path)
        for folder in _STRANGERS.value
        for path in images_in(Path(folder) / "train" / "good")[:STRANGERS]
    ]
    refused = {}
    for name, pictures in without_part(others[:STRANGERS], strangers).items():
        found = [register(p, template, SEARCH, valid=valid) for p, valid in pictures]
        refused[name] = {
            "pictures": len(found),
            "registered": sum(f.registered for f in found),
            "greatest_confidence": max(f.confidence for f in found),
        }
    wrong = sum(row["pictures"] - row["registered"] for row in refused.values())
    all_wrong = sum(row["pictures"] for row in refused.values())
    lost = errors.count(None)
    known = [e for e in errors if e is not None]
    result = {
        "command": f"python -m benchmarks.studies.registration, of {Path(_DATA.value).name}",
        "search": SEARCH._asdict() | {"shift": SHIFT},
        "pictures": len(errors),
        "size": list(shape),
        "corner_error_px": {
            "median": float(np.median(known)),
            "p95": float(np.percentile(known, 95)),
            "greatest": max(known),
        },
        "least_confidence": min(confidences),
        "flag": {
            "of": "not registered",
            "precision": wrong / max(1, wrong + lost),
            "recall": wrong / max(1, all_wrong),
            "registered_although_not_there": refused,
            "not_registered_although_there": lost,
        },
        "ms_per_image": float(np.median(milliseconds)),
        "opencv_guil": {
            "side": SIDE,
            "pictures": len(hough_errors),
            "corner_error_px": hough_errors,
            "ms_per_image": float(np.median(hough_milliseconds)),
        },
    }
    record.write("registration", result, "opencv-python-headless")
    for key in ("corner_error_px", "flag", "ms_per_image", "opencv_guil"):
        print(key, result[key])


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", None, "Folder in the MVTec layout.", required=True)
    _STRANGERS = flags.DEFINE_list("strangers", [], "Folders with images of other parts.")
    cli.run(main)

"""The synthetic sets of Schneider et al. 2022 (VISAPP), section 3.1: chess and noise.

The paper gives what is drawn but no sizes, so those are chosen here. Images are 512×512×1 uint8;
`side` gives another size, with windows and lines in proportion. Every image is a function of (seed,
kind, split, index, side) alone and is drawn when it is loaded.

Two truths of what is anomalous, since the paper does not say which one it scores:
- "A", what was done: pixels displaced by half a pixel or more (chess), overdrawn pixels (noise);
- "B", what can be seen: pixels whose 8-bit value differs by more than 1/255 from that of the same
  image without the anomaly. Inside a displaced black square nothing changed, so B is part of A
  but for the pixels displaced by less than half a pixel across an edge.
"""

import os
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from recon_ad.data.source import GOOD, Record, Source
from recon_ad.errors import UserError

# Chosen by the look of the pictures, before a model was trained on them beyond a smoke test; never
# tuned to a score, and fixed since.
SIZE = 512  # px, height and width
SMALLEST = 96  # px, the smallest side: the largest window and some surface beside it
IMAGES = 4  # in each of: train, test good, test anomalous
SQUARE = 16  # px, side of a chess square
WINDOWS = 6  # displaced windows in an anomalous chess image
WINDOW_SIDE = (56, 80)  # px, both included: six windows cover 7 to 15 % of the image
ELASTIC_SIGMA = 8.0  # px, of the Gaussian that smooths the displacements
ELASTIC_RMS = 5.0  # px, of either component in the window, before the taper
TAPER = 0.25  # of a window's side, at each end, over which the displacement rises from zero
NOISE_MEAN, NOISE_SIGMA = 0.5, 0.15  # of 1 = white
LINES = 2
LINE_WIDTH = 7  # px, down the column (or along the row)
LINE_JITTER = 2.0  # px, standard deviation per column
LINE_MEAN, LINE_SIGMA = 1.0, 0.05
DISPLACED = 0.5  # px, truth A of chess
CHANGED = 1  # gray levels, truth B: more than this

_KINDS = {"chess": "elastic", "noise": "line"}  # kind -> defect type
_TRUTHS = ("A", "B")
# Parts of the random key: the order must stay, or the images change.
_KIND_KEYS = {"chess": 0, "noise": 1}
_SPLIT_KEYS = {"train": 0, "test_good": 1, "test_anomalous": 2}


class _Drawn(NamedTuple):
    image: UInt8[np.ndarray, "h w"]
    normal: UInt8[np.ndarray, "h w"]  # the same without the anomaly
    touched: Bool[np.ndarray, "h w"]  # truth A


def synthetic_source(kind: str, *, seed: int = 0, truth: str = "B", side: int = SIZE) -> Source:
    """Make the chess or the noise set: four training images, four good and four anomalous tests.

    The paper has no normal test images; they are here so that image-level metrics exist.

    Args:
      kind: "chess", squares displaced elastically (Simard et al. 2003, ICDAR, section 2) in six
        windows; or "noise", Gaussian noise with two noisy straight lines drawn on top.
      seed: Non-negative number; another seed gives other images of the same kind.
      truth: "A" or "B" (module docstring), the truth that `load_mask` gives; the other one is in
        `other_masks` under its letter.
      side: Height and width of the images in px, 96 or more.

    Returns:
      Records that load [side, side, 1] uint8 and bool [side, side], named as in the MVTec layout.

    Raises:
      UserError: If the kind or truth is unknown, the seed is negative, or the side is below 96 px.
    """
    if kind not in _KINDS:
        raise UserError(f'unknown synthetic set "{kind}": give {" or ".join(_KINDS)}')
    if truth not in _TRUTHS:
        raise UserError(f'unknown truth "{truth}" of the synthetic sets: give A or B')
    if side < SMALLEST:
        raise UserError(f"the side of a synthetic set is {side} px: give {SMALLEST} or more")
    if seed < 0:
        raise UserError(f"the seed of a synthetic set is {seed}: give 0 or more")
    train = tuple(
        Record(f"train/{GOOD}/{i:03d}.png", partial(_load, kind, seed, side, "train", i))
        for i in range(IMAGES)
    )
    good = tuple(
        Record(f"test/{GOOD}/{i:03d}.png", partial(_load, kind, seed, side, "test_good", i))
        for i in range(IMAGES)
    )
    defect = _KINDS[kind]
    anomalous = tuple(
        Record(
            f"test/{defect}/{i:03d}.png",
            partial(_load, kind, seed, side, "test_anomalous", i),
            defect,
            partial(_load_truth, kind, seed, side, i, truth),
            {t: partial(_load_truth, kind, seed, side, i, t) for t in _TRUTHS if t != truth},
        )
        for i in range(IMAGES)
    )
    return Source(train, anomalous + good)


def undisturbed(kind: str, *, seed: int, side: int = SIZE) -> list[UInt8[np.ndarray, "h w 1"]]:
    """Return the anomalous test images without their anomaly, in the order of `Source.test`."""
    drawn = (_draw(kind, seed, side, "test_anomalous", i) for i in range(IMAGES))
    return [image.normal[..., None] for image in drawn]


def write_folder(source: Source, path: str | os.PathLike[str]) -> None:
    """Write a source as PNG files in the MVTec layout, which `folder_source` reads back.

    Names keep their last part; floating-point images in [0, 1] are rounded to 8 bits. Of the truth
    masks only the primary one (`load_mask`) is written.

    Raises:
      UserError: If a file of that name exists already, or two records end in the same name.
    """
    root = Path(path)
    for split, records in (("train", source.train), ("test", source.test)):
        for record in records:
            stem = PurePosixPath(record.name).stem
            _write(root / split / record.defect / f"{stem}.png", record.load())
            if record.load_mask is not None:
                mask = root / "ground_truth" / record.defect / f"{stem}_mask.png"
                _write(mask, np.where(record.load_mask(), np.uint8(255), np.uint8(0)))


def _write(file: Path, image: np.ndarray) -> None:
    if file.exists():
        raise UserError(f"{file}: exists already: give an empty folder and names that differ")
    file.parent.mkdir(parents=True, exist_ok=True)
    if image.dtype != np.uint8:
        image = np.rint(image * 255).astype(np.uint8)
    Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(file)


def _load(kind: str, seed: int, side: int, split: str, index: int) -> UInt8[np.ndarray, "h w 1"]:
    return _draw(kind, seed, side, split, index).image[..., None]


def _load_truth(kind: str, seed: int, side: int, index: int, truth: str) -> Bool[np.ndarray, "h w"]:
    drawn = _draw(kind, seed, side, "test_anomalous", index)
    if truth == "A":
        return drawn.touched
    return np.abs(drawn.image.astype(np.int16) - drawn.normal.astype(np.int16)) > CHANGED


def _draw(kind: str, seed: int, side: int, split: str, index: int) -> _Drawn:
    key = (_KIND_KEYS[kind], _SPLIT_KEYS[split], index)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    normal = _chess(rng, side) if kind == "chess" else _noise(rng, side)
    if split != "test_anomalous":
        return _Drawn(normal, normal, np.zeros(normal.shape, bool))
    image, touched = _deform(rng, normal) if kind == "chess" else _draw_lines(rng, normal)
    return _Drawn(image, normal, touched)


def _to_8_bits(intensity: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    return np.rint(np.clip(intensity, 0, 1) * 255).astype(np.uint8)


def _chess(rng: np.random.Generator, side: int) -> UInt8[np.ndarray, "h w"]:
    row, column = rng.integers(0, 2 * SQUARE, 2)
    rows = (np.arange(side) + row) // SQUARE
    columns = (np.arange(side) + column) // SQUARE
    return ((rows[:, None] + columns[None, :]) % 2 * 255).astype(np.uint8)


def _noise(rng: np.random.Generator, side: int) -> UInt8[np.ndarray, "h w"]:
    return _to_8_bits(rng.normal(NOISE_MEAN, NOISE_SIGMA, (side, side)))


def _deform(
    rng: np.random.Generator, normal: UInt8[np.ndarray, "h w"]
) -> tuple[UInt8[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Displace the pattern in compact windows; return the image and the displaced pixels."""
    shift = _displacement(rng, len(normal))
    grid = np.indices(normal.shape, dtype=np.float64)
    image = ndimage.map_coordinates(
        normal.astype(np.float64), grid + shift, order=1, mode="nearest"
    )
    return np.rint(image).astype(np.uint8), np.hypot(*shift) >= DISPLACED


def _displacement(rng: np.random.Generator, size: int) -> Float[np.ndarray, "2 h w"]:
    """Return the displacement (rows, columns) in px, zero outside the windows."""
    shift = np.zeros((2, size, size))
    for top, left, side in _windows(rng, size):
        # Wider than the window, so that no convolution sees a border.
        margin = int(4 * ELASTIC_SIGMA)
        wide = rng.uniform(-1, 1, (2, side + 2 * margin, side + 2 * margin))
        smooth = ndimage.gaussian_filter(wide, ELASTIC_SIGMA, axes=(1, 2))
        field = smooth[:, margin:-margin, margin:-margin]
        rms = np.sqrt(np.mean(field**2, axis=(1, 2), keepdims=True))
        taper = _taper(side)
        field = field * (ELASTIC_RMS / rms) * (taper[:, None] * taper[None, :])
        shift[:, top : top + side, left : left + side] = field
    return shift


def _windows(rng: np.random.Generator, size: int) -> list[tuple[int, int, int]]:
    """Return non-overlapping windows in the image, each (top, left, side) in px."""
    windows: list[tuple[int, int, int]] = []
    count = max(1, round(WINDOWS * (size / SIZE) ** 2))
    while len(windows) < count:
        side = int(rng.integers(*WINDOW_SIDE, endpoint=True))
        top, left = (int(v) for v in rng.integers(0, size - side, 2, endpoint=True))
        if all(
            top + side <= t or t + s <= top or left + side <= l0 or l0 + s <= left
            for t, l0, s in windows
        ):
            windows.append((top, left, side))
    return windows


def _taper(side: int) -> Float[np.ndarray, " side"]:
    """Return 1 in the middle, falling as a cosine to 0 over the last quarter at either end."""
    from_end = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5)
    return 0.5 - 0.5 * np.cos(np.pi * np.minimum(from_end / (TAPER * side), 1.0))


def _draw_lines(
    rng: np.random.Generator, normal: UInt8[np.ndarray, "h w"]
) -> tuple[UInt8[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Draw y = a + s x + noise, or x = a + s y + noise; return image and drawn pixels."""
    drawn = np.zeros(normal.shape, bool)
    size = len(normal)
    rows = np.arange(size)[:, None]
    for _ in range(max(1, round(LINES * size / SIZE))):
        slope = rng.uniform(-1, 1)
        middle = rng.uniform(size / 4, 3 * size / 4)  # keeps most of every line in the image
        jitter = rng.normal(0, LINE_JITTER, size)
        along = np.rint(middle + slope * (np.arange(size) - size / 2) + jitter)
        line = np.abs(rows - along[None, :]) <= LINE_WIDTH // 2
        drawn |= line.T if rng.integers(2) else line
    intensity = _to_8_bits(rng.normal(LINE_MEAN, LINE_SIGMA, normal.shape))
    return np.where(drawn, intensity, normal), drawn

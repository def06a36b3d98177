"""Truth masks and regions of interest beside images: finding, checking, reading.

All are bool [h, w] of their image's size. A mask belongs to the image of the same name, with or
without `_mask` at its end; or it is a folder of that name with several masks, which are united
(MVTec LOCO AD). A region of interest lies under `roi/` at the image's own relative path, or is one
file `roi.png` (any image suffix) for all images.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from recon_ad.data.decode import SUFFIXES, decode_mask, decode_mask_and_rest, image_size
from recon_ad.data.listing import images_below, images_in
from recon_ad.errors import UserError

ROI = "roi"
MUCH = 0.5  # of an image; a truth mask that marks more is rarely meant
RIM = 0.9  # of the border, which an inverted mask marks and a defect seldom does


def united_mask(paths: Sequence[Path]) -> Bool[np.ndarray, "h w"]:
    """Return the union of masks of one size.

    Raises:
      UserError: If `decode_mask` raises it, or the masks differ in size.
    """
    return _united(paths)[0]


def _united(
    paths: Sequence[Path],
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Return the union of masks of one size, and where they are neither black nor marked."""
    union, rest = decode_mask_and_rest(paths[0])
    for path in paths[1:]:
        mask, more = decode_mask_and_rest(path)
        _check_size(mask.shape, path, union.shape, paths[0])
        union |= mask
        rest |= more
    return union, rest & ~union


def stems(folder: Path) -> dict[str, Path]:
    """Return the images below a folder by relative path without suffix; {} without a folder."""
    if not folder.is_dir():
        return {}
    return {_stem(file, folder): file for file in images_below(folder)}


def masks_of(image: Path, folder: Path, masks: dict[str, Path]) -> list[Path]:
    """Return the masks of an image.

    Args:
      image: File below `folder`.
      folder: Folder with the images of one defect type.
      masks: Masks of that defect type, from `stems`.
    """
    stem = _stem(image, folder)
    for name in (f"{stem}_mask", stem):
        if name in masks:
            return [masks[name]]
    return [mask for name, mask in masks.items() if name.startswith(f"{stem}/")]


class MaskState(NamedTuple):
    """State of an image's truth masks.

    Attributes:
      state: "usable", "missing", "empty" or "unusable".
      grays: Whether pixels are neither black nor marked, as in masks with a gray level per class.
      inverted: Whether nearly all of the border is marked, and most of the image.
    """

    state: str
    grays: bool = False
    inverted: bool = False


def is_inverted(*, share: float, rim: float) -> bool:
    """Return whether a mask probably marks the good pixels.

    It then marks more than half of the image and nearly all of the border.
    """
    return share > MUCH and rim >= RIM


def rim_share(marked: Bool[np.ndarray, "h w"]) -> float:
    """Return the share of the border that is marked, in [0, 1]."""
    return float(np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]]).mean())


def mask_state(image: Path, masks: Sequence[Path], *, on_error: str) -> MaskState:
    """Check an image's truth; with on_error="skip" a broken one is unusable.

    Raises:
      UserError: If a mask is broken or has another size than its image.
    """
    if not masks:
        return MaskState("missing")
    try:
        truth, rest = _united(masks)
        size = _size_or_none(image)
        if size is not None:
            _check_size(truth.shape, masks[0], size, image)
    except UserError:
        if on_error == "raise":
            raise
        return MaskState("unusable")
    state = "usable" if truth.any() else "empty"
    inverted = is_inverted(share=float(truth.mean()), rim=rim_share(truth))
    return MaskState(state, bool(rest.any()), inverted)


class Regions:
    """The regions of interest of a folder of images, or of a separate one.

    Args:
      root: Folder that images are named relative to.
      given: Folder laid out as `root` is, or one image for all. None searches `root` for `roi/` and
        for `roi.png` (any image suffix), which applies where the folder has none.

    Raises:
      UserError: If the given path does not exist.
    """

    def __init__(self, root: Path, given: Path | None = None):
        self._root = root
        if given is None:
            single = [file for file in images_in(root) if file.stem.lower() == ROI]
            self._single = single[0] if single else None
            self._by_stem = stems(root / ROI)
            return
        if not given.exists():
            raise UserError(f"{given}: region of interest not found: check the path")
        self._single = given if given.is_file() else None
        self._by_stem = stems(given)

    def __bool__(self) -> bool:
        return self._single is not None or bool(self._by_stem)

    def of(self, image: Path) -> Callable[[], Bool[np.ndarray, "h w"]] | None:
        """Return a loader of the region of an image below the root; None where all pixels count."""
        file = self.file_of(image)
        return None if file is None else partial(load_region, file, image)

    def file_of(self, image: Path) -> Path | None:
        """Return the file of an image's region, or None where all of its pixels count."""
        return self._by_stem.get(_stem(image, self._root), self._single)

    def load(self, image: Path) -> Bool[np.ndarray, "h w"] | None:
        """Return the region of an image below the root, or None where all of its pixels count.

        Raises:
          UserError: As for `load_region`.
        """
        load = self.of(image)
        return load() if load else None

    def is_region(self, image: Path) -> bool:
        """Return whether the file is itself a region, and not an image to judge."""
        return image == self._single or image in self._by_stem.values()


def load_region(file: Path, image: Path) -> Bool[np.ndarray, "h w"]:
    """Return the region of interest of one image.

    Raises:
      UserError: If it cannot be decoded, has another size than its image, or marks no pixel.
    """
    roi = decode_mask(file)
    _check_size(roi.shape, file, image_size(image), image, what="region of interest")
    if not roi.any():
        raise UserError(
            f"{file}: the region of interest marks no pixel, so nothing in {image} would count: "
            "draw what counts in white"
        )
    return roi


def _check_size(
    size: tuple[int, ...], file: Path, wanted: tuple[int, ...], image: Path, *, what: str = "mask"
) -> None:
    if size != wanted:
        raise UserError(
            f"{file}: the {what} has {size[0]} × {size[1]} pixels (height × width) and its image "
            f"{image} has {wanted[0]} × {wanted[1]}: draw the {what} on the image's own pixels"
        )


def _stem(file: Path, folder: Path) -> str:
    relative = file.relative_to(folder).as_posix()
    stem, suffix = os.path.splitext(relative)
    return stem if suffix.lower() in SUFFIXES else relative


def _size_or_none(image: Path) -> tuple[int, int] | None:
    """Return the size of a test image, or None if it is broken, which decoding reports later."""
    try:
        return image_size(image)
    except UserError:
        return None

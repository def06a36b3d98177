"""Truth masks and regions of interest that lie beside images: finding, checking, reading.

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
    """The union of masks of one size.

    Raises:
      UserError: as `decode_mask`, or they differ in size.
    """
    return _united(paths)[0]


def _united(
    paths: Sequence[Path],
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Unites masks of one size, and where they are neither black nor marked."""
    union, rest = decode_mask_and_rest(paths[0])
    for path in paths[1:]:
        mask, more = decode_mask_and_rest(path)
        _check_size(mask.shape, path, union.shape, paths[0])
        union |= mask
        rest |= more
    return union, rest & ~union


def stems(folder: Path) -> dict[str, Path]:
    """The images below a folder by relative path without suffix; {} where there is no folder."""
    if not folder.is_dir():
        return {}
    return {_stem(file, folder): file for file in images_below(folder)}


def masks_of(image: Path, folder: Path, masks: dict[str, Path]) -> list[Path]:
    """The masks of an image.

    Args:
      image: a file below `folder`.
      folder: of one defect type's images.
      masks: of that defect type, from `stems`.
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
      grays: whether pixels are neither black nor marked, as those of some classes are where each
        has a gray level.
      inverted: whether nearly all of the border is marked, and most of the image.
    """

    state: str
    grays: bool = False
    inverted: bool = False


def is_inverted(*, share: float, rim: float) -> bool:
    """Returns whether a mask that marks so much of the image and of its border marks what is good,
    as it seems."""
    return share > MUCH and rim >= RIM


def rim_share(marked: Bool[np.ndarray, "h w"]) -> float:
    """Returns how much of the border is marked, in [0, 1]."""
    return float(np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]]).mean())


def mask_state(image: Path, masks: Sequence[Path], *, on_error: str) -> MaskState:
    """Looks at an image's truth; with on_error="skip" a broken one is unusable.

    Raises:
      UserError: a mask is broken or of another size than its image.
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
    """The regions of interest of a folder of images, or of one that lies elsewhere.

    Args:
      root: the folder that images are named relative to.
      given: a folder laid out as `root` is, or one image for all; None looks in `root` for `roi/`
        and for `roi.png` (any image suffix), which holds where the folder has none.

    Raises:
      UserError: what is given does not exist.
    """

    def __init__(self, root: Path, given: Path | None = None):
        self._root = root
        if given is None:
            single = [file for file in images_in(root) if file.stem.lower() == ROI]
            self._single = single[0] if single else None
            self._by_stem = stems(root / ROI)
            return
        if not given.exists():
            raise UserError(f"{given}: there is no such region of interest: check the path")
        self._single = given if given.is_file() else None
        self._by_stem = stems(given)

    def __bool__(self) -> bool:
        return self._single is not None or bool(self._by_stem)

    def of(self, image: Path) -> Callable[[], Bool[np.ndarray, "h w"]] | None:
        """Loads the region of an image below the root; None where all of its pixels count."""
        file = self.file_of(image)
        return None if file is None else partial(load_region, file, image)

    def file_of(self, image: Path) -> Path | None:
        """The file of an image's region; None where all of its pixels count."""
        return self._by_stem.get(_stem(image, self._root), self._single)

    def load(self, image: Path) -> Bool[np.ndarray, "h w"] | None:
        """The region of an image below the root; None where all of its pixels count.

        Raises:
          UserError: as `load_region`.
        """
        load = self.of(image)
        return load() if load else None

    def is_region(self, image: Path) -> bool:
        """Whether the file is itself a region, and no image to judge."""
        return image == self._single or image in self._by_stem.values()


def load_region(file: Path, image: Path) -> Bool[np.ndarray, "h w"]:
    """The region of interest of one image.

    Raises:
      UserError: it cannot be decoded, has another size than its image, or marks no pixel.
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
    """The size of a test image, None where it is broken: who decodes it later says so."""
    try:
        return image_size(image)
    except UserError:
        return None

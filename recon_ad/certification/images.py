"""The good images of a certificate: which count, and which pixels of them."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from recon_ad.alignment.part import NotRegistered
from recon_ad.data.listing import images_below
from recon_ad.data.source import digest
from recon_ad.data.truth import Regions
from recon_ad.detector.image_files import decoded
from recon_ad.detector.inference import Inference
from recon_ad.errors import UserError
from recon_ad.runtime.progress import progress

FEWEST = 10  # good images; the bound of fewer is above one in four
NAMED = 3  # images that a message names, at most
MEMORY = 512 * 2**20  # bytes of decoded images that are kept


class Good(NamedTuple):
    """A good image that counts.

    Attributes:
      name: Relative to the folder that was given.
      file: Path of the file.
      digest: Digest of its pixels.
    """

    name: str
    file: Path
    digest: str


class GoodImages:
    """Good images that a detector has never seen.

    Args:
      detector: Says channels, range, part, and what it has seen.
      folder: Folder of the images.
      roi: Region of interest, one image or a folder laid out as `folder` is.

    Attributes:
      images: Images that count, by name.
      copies: Names of images that are copies of others.

    Raises:
      UserError: Too few images, one that cannot be read, or one that the detector has seen.
    """

    def __init__(self, detector: Inference, folder: Path, *, roi: Path | None):
        if not folder.is_dir():
            raise UserError(f"--normals {folder}: no such folder: give a folder of good images.")
        self._detector = detector
        self._regions = Regions(folder, roi)
        every = [file for file in images_below(folder) if not self._regions.is_region(file)]
        found: dict[str, Good] = {}
        self.copies: list[str] = []
        largest = 1
        for file in progress(every, "reading good images"):
            image = decoded(detector, file)
            largest = max(largest, image.nbytes)
            name, content = file.relative_to(folder).as_posix(), digest(image)
            if content in found:
                self.copies.append(name)
            else:
                found[content] = Good(name, file, content)
        self.images: Sequence[Good] = list(found.values())
        _check_unseen(self.images, detector.seen)
        if len(self.images) < FEWEST:
            raise UserError(
                f"{folder} holds {len(self.images)} different good images, too few for a "
                f"certificate: give {FEWEST} or more; each further one tightens the bounds."
            )
        self.load = lru_cache(maxsize=max(1, MEMORY // largest))(self._load)
        self.allowed = lru_cache(maxsize=max(1, MEMORY // largest))(self._allowed)

    def _load(self, image: Good) -> Shaped[np.ndarray, "h w c"]:
        return decoded(self._detector, image.file)

    def roi(self, image: Good) -> Bool[np.ndarray, "h w"] | None:
        """Return the region of interest that the user gave; None where all pixels count."""
        return self._regions.load(image.file)

    def _allowed(self, image: Good) -> Bool[np.ndarray, "h w"] | None:
        """Return the pixels of an image that count, without what the detector excludes.

        None where all do. Defects are inserted there.
        """
        roi = self.roi(image)
        if self._detector.part is None:
            return roi
        try:
            placement = self._detector.align(self.load(image), roi=roi)
        except NotRegistered:
            return roi
        if placement.valid is None:
            return roi
        valid = placement.mask_back(placement.valid)
        return valid if roi is None else valid & roi


def _check_unseen(images: Sequence[Good], seen: frozenset[str]) -> None:
    known = [image.name for image in images if image.digest in seen]
    if known:
        shown = ", ".join(known[:NAMED]) + ", …" * (len(known) > NAMED)
        raise UserError(
            f"the detector was trained on or calibrated with {len(known)} of the {len(images)} "
            f"good images ({shown}), so that they prove nothing: give images that it has never "
            "seen."
        )

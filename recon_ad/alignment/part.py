"""The part that a detector inspects: its place in an image, and the pixels that belong to it.

Alignment runs on the host before the core (Buzzega et al., section 3.1). An image is aligned to the
template and scored there, at the template's size; maps and masks are mapped back to the image
through the matrix. Pixels outside the image, and the background, never score. A part that is not
found raises `NotRegistered` and never gets a score. This module uses NumPy, SciPy and OpenCV only.

Images are [h, w, c] as in `recon_ad.data.arrays`; masks are bool [h, w], True where pixels count.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from recon_ad.alignment.coarse_search import Search
from recon_ad.alignment.geometry import Template, align, size_text, unalign
from recon_ad.alignment.registration import Registration, register
from recon_ad.data.source import Record, roi_of
from recon_ad.errors import UserError
from recon_ad.runtime import tensors
from recon_ad.runtime.progress import progress

FILE = "part.safetensors"  # name of the file in a detector directory
MOST_LOST = 0.5  # share of the good images in which the part may be missing


class NotRegistered(UserError):
    """Error for an image in which the part was not found, and which therefore has no score.

    Attributes:
      registration: The best registration that was found.
    """

    def __init__(self, registration: Registration, search: Search):
        self.registration = registration
        found = registration
        failed = []
        if found.confidence < search.confidence:
            failed.append(
                f"has a correlation of {found.confidence:.2f} with the template (at least "
                f"{search.confidence:g} needed)"
            )
        if found.overlap < search.overlap:
            failed.append(
                f"shows {found.overlap:.0%} of the template (at least {search.overlap:.0%} needed)"
            )
        if not failed:
            failed.append(
                f"is rotated by {found.angle:.1f}° and scaled by {found.scale:.2f} (allowed: "
                f"{search.angle:g}° and {1 - search.scale:g} to {1 + search.scale:g})"
            )
        super().__init__(f"not registered: the best match of the part {' and '.join(failed)}.")


class Placement(NamedTuple):
    """Image as the core sees it.

    Attributes:
      image: Aligned image at the template's size, or the image itself without alignment.
      valid: Mask of its pixels that count. None counts all.
      registration: Pose of the part. None without alignment.
      shape: Height and width of the original image.
      fill: Whether pixels that are not scored, such as a part's background, get the least valid
        value.
    """

    image: Shaped[np.ndarray, "h w c"]
    valid: Bool[np.ndarray, "h w"] | None
    registration: Registration | None
    shape: tuple[int, int]
    fill: bool = True

    def map_back(self, aligned: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "p q"]:
        """Return a map in the image's own frame, with its least valid value at unscored pixels."""
        if not self.fill or self.valid is None:
            return aligned
        least = float(aligned[self.valid].min())
        kept = np.where(self.valid, aligned, np.float32(least))
        if self.registration is None:
            return kept
        return unalign(kept, self.registration.matrix, self.shape, fill=least)

    def mask_back(self, aligned: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "p q"]:
        """Return a mask in the image's own frame."""
        if self.registration is None:
            return aligned
        shares = unalign(aligned.astype(np.float32), self.registration.matrix, self.shape, fill=0.0)
        return shares >= 0.5

    def image_back(self, aligned: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "p q c"]:
        """Return a reconstruction in the image's own frame, black outside the template."""
        if self.registration is None:
            return aligned
        back = functools.partial(
            unalign, matrix=self.registration.matrix, shape=self.shape, fill=0.0
        )
        return np.stack([back(aligned[..., c]) for c in range(aligned.shape[2])], axis=-1)


class Part(NamedTuple):
    """A detector's data on the part.

    Attributes:
      search: Range in which the part is searched for. None expects it at the template's place.
      template: Template that images are aligned to, and the mask of its pixels used for that.
      foreground: Mask of the pixels of the template's frame that may score.
    """

    search: Search | None
    template: Template
    foreground: Bool[np.ndarray, "h w"]

    def align(
        self, image: Shaped[np.ndarray, "p q c"], *, roi: Bool[np.ndarray, "p q"] | None = None
    ) -> Placement:
        """Find the part and align the image.

        Args:
          image: Image that shows the part.
          roi: Mask of the image's pixels that count. None counts all. The part is searched for in
            them and, since they may be too few to recognise it, also in the whole image.

        Raises:
          NotRegistered: If the part is not found.
          UserError: If the image does not have the template's size and there is no search.
        """
        shape = (image.shape[0], image.shape[1])
        if self.search is None:
            if shape != self.foreground.shape:
                raise UserError(
                    f"the image has {size_text(shape)} px and the mask of the background "
                    f"{size_text(self.foreground.shape)}: give images of the size that the "
                    "detector was trained with, or enable alignment (config.part.align)."
                )
            valid = self.foreground if roi is None else self.foreground & roi
            return Placement(image, valid, None, shape)
        found = register(image, self.template, self.search, valid=roi)
        if not found.registered and roi is not None:
            found = register(image, self.template, self.search)
        if not found.registered:
            raise NotRegistered(found, self.search)
        return self._aligned(image, found, roi)

    def _aligned(
        self,
        image: Shaped[np.ndarray, "p q c"],
        found: Registration,
        roi: Bool[np.ndarray, "p q"] | None,
    ) -> Placement:
        aligned, seen = align(image, found.matrix, self.foreground.shape, valid=roi)
        shape = (image.shape[0], image.shape[1])
        return Placement(aligned, seen & self.foreground, found, shape)

    def aligned(self, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
        """Return records whose images and regions of interest are in the template's frame.

        Returns:
          The records in which the part is found, and a sentence for each other record.

        Raises:
          UserError: If the part is found in less than half of the records.
        """
        kept, notes = [], []
        for record in progress(records, "registration"):
            image, roi = record.load(), roi_of(record)
            try:
                registration = self.align(image, roi=roi).registration
            except NotRegistered as error:
                notes.append(f"Left out: {record.name} is {error}")
                continue
            kept.append(self._moved(record, registration))
        if len(kept) < max(1, MOST_LOST * len(records)):
            raise UserError(
                f"the part was found in only {len(kept)} of {len(records)} good images: give "
                "another config.part.template, a wider search (config.part.angle, scale), or turn "
                f"config.part.align off. The first of the others: {notes[0]}"
            )
        return kept, notes

    def _moved(self, record: Record, found: Registration | None) -> Record:
        def placed() -> Placement:
            image, roi = record.load(), roi_of(record)
            return self.align(image, roi=roi) if found is None else self._aligned(image, found, roi)

        # Training images are good ones, so they have no truth masks to align.
        return record._replace(load=lambda: placed().image, load_roi=lambda: placed().valid)

    def packed(self) -> bytes:
        """Return the part as the bytes of one safetensors file."""
        arrays = {
            "gray": self.template.gray,
            "mask": self.template.mask,
            "foreground": self.foreground,
        }
        search = None if self.search is None else self.search._asdict()
        return tensors.to_bytes(arrays, {"search": search})


def read(path: Path) -> Part:
    """Read a part from a file written with `Part.packed`.

    Raises:
      UserError: If the file is damaged.
    """
    try:
        arrays, description = tensors.read(path)
        search = description["search"]
        part = Part(
            None if search is None else Search(**search),
            Template(arrays["gray"], arrays["mask"]),
            arrays["foreground"],
        )
        _check(part)
        return part
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): copy it again.") from None
    except (KeyError, TypeError):
        raise UserError(
            f"{path} is damaged (its description is not that of a part): copy it again."
        ) from None


def _check(part: Part) -> None:
    """Raise ValueError or TypeError if arrays or settings are not those of a part."""
    gray, mask = part.template
    if gray.ndim != 2 or gray.dtype != np.float32 or not np.isfinite(gray).all():
        raise ValueError(f"the template is {gray.dtype} {list(gray.shape)}, or not finite")
    for name, array in (("mask", mask), ("foreground", part.foreground)):
        if array.shape != gray.shape or array.dtype != bool or not array.any():
            raise ValueError(f"its {name} is {array.dtype} {list(array.shape)}, or empty")
    if part.search is not None:
        s = part.search
        # The limits of recon_ad.config.RULES, which needs ml_collections and is not imported here.
        if not (
            0 <= s.angle <= 180 and 0 <= s.scale < 1 and 0 < s.overlap <= 1 and 0 < s.confidence < 1
        ):
            raise ValueError(f"its {s} is out of bounds")

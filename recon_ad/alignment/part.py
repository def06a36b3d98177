"""The part that a detector looks at: where it is in an image, and which pixels belong to it.

A host step before the core (Buzzega et al., section 3.1): an image is aligned to the template and
judged there, at the template's size; maps and masks go back to the image through the matrix. Pixels
that the picture does not show, and those of the ground, never score. A part that is not found is
`NotRegistered`, never a score. NumPy, SciPy and OpenCV only.

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

FILE = "part.safetensors"  # in a detector directory
MOST_LOST = 0.5  # share of the good images that may be without the part


class NotRegistered(UserError):
    """The part was not found in an image, which therefore has no score.

    Attributes:
      registration: the best there was.
    """

    def __init__(self, registration: Registration, search: Search):
        self.registration = registration
        found = registration
        failed = []
        if found.confidence < search.confidence:
            failed.append(
                f"agrees with the template by {found.confidence:.2f} and not by "
                f"{search.confidence:g}"
            )
        if found.overlap < search.overlap:
            failed.append(f"is seen to {found.overlap:.0%} and not to {search.overlap:.0%}")
        if not failed:
            failed.append(
                f"is turned by {found.angle:.1f}° and scaled by {found.scale:.2f}, beyond "
                f"{search.angle:g}° or {1 - search.scale:g} to {1 + search.scale:g}"
            )
        super().__init__(
            f"not registered: the part, where it is found best, {' and '.join(failed)}."
        )


class Placement(NamedTuple):
    """An image as the core sees it.

    Attributes:
      image: aligned, at the template's size; the image itself without alignment.
      valid: its pixels that count; None: all.
      registration: where the part was; None without alignment.
      shape: height and width of the image before.
      fill: whether what is not judged gets the least valid value, as of a part's ground.
    """

    image: Shaped[np.ndarray, "h w c"]
    valid: Bool[np.ndarray, "h w"] | None
    registration: Registration | None
    shape: tuple[int, int]
    fill: bool = True

    def map_back(self, aligned: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "p q"]:
        """A map in the image's own frame: its least valid value where nothing was judged."""
        if not self.fill or self.valid is None:
            return aligned
        least = float(aligned[self.valid].min())
        kept = np.where(self.valid, aligned, np.float32(least))
        if self.registration is None:
            return kept
        return unalign(kept, self.registration.matrix, self.shape, fill=least)

    def mask_back(self, aligned: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "p q"]:
        """A mask in the image's own frame."""
        if self.registration is None:
            return aligned
        shares = unalign(aligned.astype(np.float32), self.registration.matrix, self.shape, fill=0.0)
        return shares >= 0.5

    def image_back(self, aligned: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "p q c"]:
        """A reconstruction in the image's own frame, black where the template is not."""
        if self.registration is None:
            return aligned
        back = functools.partial(
            unalign, matrix=self.registration.matrix, shape=self.shape, fill=0.0
        )
        return np.stack([back(aligned[..., c]) for c in range(aligned.shape[2])], axis=-1)


class Part(NamedTuple):
    """What a detector knows of the part.

    Attributes:
      search: where it is looked for; None: images are taken to show it where the template does.
      template: what images are aligned to, and which of its pixels that goes by.
      foreground: pixels of the template's frame that may score.
    """

    search: Search | None
    template: Template
    foreground: Bool[np.ndarray, "h w"]

    def align(
        self, image: Shaped[np.ndarray, "p q c"], *, roi: Bool[np.ndarray, "p q"] | None = None
    ) -> Placement:
        """Finds the part and aligns the image.

        Args:
          image: that shows it.
          roi: pixels of the image that count; None: all. The part is looked for in them, and, as
            they may be too few to know it by, in the whole image.

        Raises:
          NotRegistered: it is not there.
          UserError: without a search, the image has not the template's size.
        """
        shape = (image.shape[0], image.shape[1])
        if self.search is None:
            if shape != self.foreground.shape:
                raise UserError(
                    f"the image has {size_text(shape)} px and the mask of the background "
                    f"{size_text(self.foreground.shape)}: give images as the detector was made "
                    "with, or let it align them (config.part.align)."
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
        """Records whose images and regions of interest are in the template's frame.

        Returns:
          Those in which the part is found, and a sentence for each other.

        Raises:
          UserError: it is found in less than half of them.
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
                f"the part is found in {len(kept)} of {len(records)} good images: give another "
                "config.part.template, a wider search (config.part.angle, scale), or do without "
                f"config.part.align. The first of the others: {notes[0]}"
            )
        return kept, notes

    def _moved(self, record: Record, found: Registration | None) -> Record:
        def placed() -> Placement:
            image, roi = record.load(), roi_of(record)
            return self.align(image, roi=roi) if found is None else self._aligned(image, found, roi)

        # Training images are good ones: they have no truth masks to move.
        return record._replace(load=lambda: placed().image, load_roi=lambda: placed().valid)

    def packed(self) -> bytes:
        """As one safetensors file."""
        arrays = {
            "gray": self.template.gray,
            "mask": self.template.mask,
            "foreground": self.foreground,
        }
        search = None if self.search is None else self.search._asdict()
        return tensors.to_bytes(arrays, {"search": search})


def read(path: Path) -> Part:
    """Reads a part from a file that holds what `Part.packed` gave.

    Raises:
      UserError: it is damaged.
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
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): copy it anew.") from None


def _check(part: Part) -> None:
    """Raises ValueError or TypeError where arrays or settings are none of a part."""
    gray, mask = part.template
    if gray.ndim != 2 or gray.dtype != np.float32 or not np.isfinite(gray).all():
        raise ValueError(f"the template is {gray.dtype} {list(gray.shape)}, or not finite")
    for name, array in (("mask", mask), ("foreground", part.foreground)):
        if array.shape != gray.shape or array.dtype != bool or not array.any():
            raise ValueError(f"its {name} is {array.dtype} {list(array.shape)}, or empty")
    if part.search is not None:
        s = part.search
        # As in recon_ad.config.RULES, which a machine without ml_collections cannot import.
        if not (
            0 <= s.angle <= 180 and 0 <= s.scale < 1 and 0 < s.overlap <= 1 and 0 < s.confidence < 1
        ):
            raise ValueError(f"its {s} is out of bounds")

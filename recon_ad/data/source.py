"""Data sources: named images and, for test images, a defect type and a truth mask.

Images are as in `recon_ad.data.arrays`, [h, w, c]; truth masks are bool [h, w], True where
defective; regions of interest are bool [h, w], True where pixels count. Loading is lazy: a source
of a thousand images holds a thousand names.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from recon_ad.errors import UserError, together
from recon_ad.runtime.progress import progress

KNOWN = 1_000  # the most training images that a detector recognises
GOOD = "good"  # the defect type of a normal image, as MVTec's folders spell it


class Record(NamedTuple):
    """One image of a source.

    Attributes:
      name: Relative path with forward slashes, unique in its split; reports and CSV files show it.
      load: Decodes the image to [h, w, c]; raises `UserError` naming the file when it is broken.
      defect: `GOOD`, or the name of the defect type (the folder under `test/`).
      load_mask: Decodes the truth mask, bool [h, w]. None where no usable mask exists; a good image
        needs none, its truth is all False.
      other_masks: Further truths by name (the synthetic sets have two), same form.
      load_roi: Decodes the region of interest, bool [h, w]. None where every pixel counts.
      category: The category, in a source of several (`data.several`).
      validation: Whether this good image belongs to the data set's own validation part, which
        thresholds are calibrated with and no model learns from.
    """

    name: str
    load: Callable[[], np.ndarray]
    defect: str = GOOD
    load_mask: Callable[[], np.ndarray] | None = None
    other_masks: Mapping[str, Callable[[], np.ndarray]] = {}
    load_roi: Callable[[], np.ndarray] | None = None
    category: str = ""
    validation: bool = False

    @property
    def anomalous(self) -> bool:
        """True if the image shows a defect."""
        return self.defect != GOOD


def roi_of(record: Record) -> np.ndarray | None:
    """Return the decoded region of interest, bool [h, w], or None where every pixel counts."""
    return record.load_roi() if record.load_roi else None


def by_category(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the images by category, in order of first occurrence; one group if unnamed."""
    categories: dict[str, list[Record]] = {}
    for record in records:
        categories.setdefault(record.category, []).append(record)
    return categories


class Source(NamedTuple):
    """A training split of good images and a test split.

    Attributes:
      train: Good images.
      test: Good and defective images; empty where the user has only good ones.
      notes: One sentence for each thing the user should know (a missing mask, a skipped file).
    """

    train: tuple[Record, ...]
    test: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def readable(source: Source, *, on_error: str) -> Source:
    """Return the source after decoding every test image once, so that none stops an evaluation.

    A defective image without a defective pixel in its region of interest is left out with a note:
    it is not good, and there is nothing to find.

    Args:
      source: Any source.
      on_error: "raise" stops at the first broken test image, "skip" leaves it out with a note.

    Raises:
      UserError: If a test image or its region of interest is broken.
    """
    usable, notes, broken = [], [], []
    for record in progress(source.test, "reading test images"):
        try:
            record.load()
            if not _to_find(record):
                notes.append(
                    f"Left out of the test: {record.name} has no defective pixel in its region of "
                    "interest."
                )
                continue
        except UserError as error:
            if on_error == "raise":
                broken.append(error)
            notes.append(f"Left out of the test: {error}")
        else:
            usable.append(record)
    if broken:
        raise UserError(together(broken))
    return source._replace(test=tuple(usable), notes=(*source.notes, *notes))


def _to_find(record: Record) -> bool:
    if record.load_roi is None:
        return True
    roi = record.load_roi()
    return record.load_mask is None or bool((record.load_mask() & roi).any())


def spread(records: Sequence[Record], limit: int) -> list[Record]:
    """Return up to `limit` of the records, evenly spaced."""
    chosen = np.linspace(0, len(records) - 1, min(limit, len(records))).astype(int)
    return [records[i] for i in chosen]


def fingerprint(records: Sequence[Record]) -> str:
    """Return a digest of all names and of the pixels of up to 16 images spread over them."""
    found = hashlib.sha256(json.dumps([record.name for record in records]).encode())
    step = max(1, len(records) // 16)
    for record in records[::step]:
        found.update(_content(record.load()))
    return found.hexdigest()


def digest(image: np.ndarray) -> str:
    """Return the SHA-256 of an image's shape, type and pixels, independent of its file's name."""
    return hashlib.sha256(_content(image)).hexdigest()


def training_digests(
    records: Sequence[Record], *, kept: Sequence[Record], but: Sequence[Record]
) -> list[str]:
    """Return digests of up to `KNOWN` images, spread over those kept, without some names."""
    names = {record.name for record in kept} - {record.name for record in but}
    rest = [record for record in records if record.name in names]
    return [digest(record.load()) for record in spread(rest, KNOWN)]


def _content(image: np.ndarray) -> bytes:
    return f"{image.shape} {image.dtype}".encode() + image.tobytes()

"""What a data source is: named images and, for test images, a defect type and a truth mask.

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

KNOWN = 1_000  # images of a training that a detector knows again, at most
GOOD = "good"  # the defect type of a normal image, as MVTec's folders spell it


class Record(NamedTuple):
    """One image of a source.

    Attributes:
      name: relative path with forward slashes, unique in its split; reports and CSV files show it.
      load: decodes the image to [h, w, c]; raises `UserError` naming the file when it is broken.
      defect: `GOOD`, or the name of the defect type (the folder under `test/`).
      load_mask: decodes the truth mask, bool [h, w]. None where there is no usable one; a good
        image needs none, its truth is all False.
      other_masks: further truths by name (the synthetic sets have two), same form.
      load_roi: decodes the region of interest, bool [h, w]. None where every pixel counts.
      category: what is shown, in a source of several categories (`data.several`).
      validation: whether this good image is one of the data set's own validation part, which
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
        """Whether the image shows a defect."""
        return self.defect != GOOD


def roi_of(record: Record) -> np.ndarray | None:
    """Its region of interest, decoded, bool [h, w]; None where every pixel counts."""
    return record.load_roi() if record.load_roi else None


def by_category(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The images of each category, in the order of the first of each; one where none has a name."""
    categories: dict[str, list[Record]] = {}
    for record in records:
        categories.setdefault(record.category, []).append(record)
    return categories


class Source(NamedTuple):
    """A training split of good images and a test split.

    Attributes:
      train: good images.
      test: good and defective images; empty where the user has only good ones.
      notes: one sentence for each thing the user should know (a missing mask, a skipped file).
    """

    train: tuple[Record, ...]
    test: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def readable(source: Source, *, on_error: str) -> Source:
    """The source with every test image decoded once, so that none stops an evaluation halfway.

    A defective image without a defective pixel in its region of interest is left out with a note:
    it is neither good nor is there anything to find.

    Args:
      source: any.
      on_error: "raise" stops at the first broken test image, "skip" leaves it out with a note.

    Raises:
      UserError: a test image or its region of interest is broken.
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
    """Up to `limit` of the records, evenly spaced."""
    chosen = np.linspace(0, len(records) - 1, min(limit, len(records))).astype(int)
    return [records[i] for i in chosen]


def fingerprint(records: Sequence[Record]) -> str:
    """A digest of all names and of the pixels of up to 16 images spread over them."""
    found = hashlib.sha256(json.dumps([record.name for record in records]).encode())
    step = max(1, len(records) // 16)
    for record in records[::step]:
        found.update(_content(record.load()))
    return found.hexdigest()


def digest(image: np.ndarray) -> str:
    """A SHA-256 of an image's shape, type and pixels, whatever its file is called."""
    return hashlib.sha256(_content(image)).hexdigest()


def training_digests(
    records: Sequence[Record], *, kept: Sequence[Record], but: Sequence[Record]
) -> list[str]:
    """Digests of up to `KNOWN` of the images, spread over them: of the names kept, without some."""
    names = {record.name for record in kept} - {record.name for record in but}
    rest = [record for record in records if record.name in names]
    return [digest(record.load()) for record in spread(rest, KNOWN)]


def _content(image: np.ndarray) -> bytes:
    return f"{image.shape} {image.dtype}".encode() + image.tobytes()

"""The inserted defects of a certificate: which ones, into which images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from recon_ad.certification.defects import KINDS, Inserted, insert, room
from recon_ad.certification.images import Good, GoodImages
from recon_ad.certification.trials import Row, generator
from recon_ad.errors import UserError

TRIALS = 64  # inserted defects of a kind and contrast; MIL-HDBK-1823A asks for 60 or more
SMALLEST = 2.0  # px of an inserted defect
WIDEST = 1 / 4  # of the shorter side, the largest inserted defect
ROOM = 8.0  # px that the largest defect has at least
BASES = 5  # good images that defects are inserted into, at least
SHOWN = 6  # pictures of each sort


class Case(NamedTuple):
    """An inserted defect.

    Attributes:
      name: Name of the trial.
      kind: A name in `KINDS`.
      contrast: None for a kind without one.
      size: In px.
      base: Image that it is inserted into.
    """

    name: str
    kind: str
    contrast: float | None
    size: float
    base: Good


class Bases(NamedTuple):
    """The good images that defects are inserted into.

    Attributes:
      images: Good images that pass the detector.
      limits: Size in px of the largest defect of each.
    """

    images: list[Good]
    limits: Float[np.ndarray, " b"]

    @property
    def largest(self) -> float:
        """Largest size in px that is inserted: `BASES` images have room for it."""
        return float(np.sort(self.limits)[-BASES])

    def fit(self, size: float) -> Bool[np.ndarray, " b"]:
        """Return which images have room for a defect of that size in px."""
        return self.limits >= size - 1e-9


def cases_of(bases: Bases, seed: int) -> list[Case]:
    """List the inserted defects: sizes spread evenly over the logarithm, images by turns."""
    cases = []
    for kind, entry in KINDS.items():
        for contrast in entry.contrasts:
            label = f"defect/{kind}/{'own' if contrast is None else contrast}"
            rng = generator(seed, label)
            sizes = sizes_of(rng, largest=bases.largest)
            order = rng.permutation(len(bases.images))
            for i, size in enumerate(sizes):
                fitting = order[bases.fit(size)[order]]
                base = bases.images[fitting[i % len(fitting)]]
                cases.append(Case(f"{label}/{i}", kind, contrast, float(size), base))
    return cases


def bases_of(good: GoodImages, rows: Mapping[str, Row]) -> Bases:
    """Return the good images that defects are inserted into.

    Raises:
      UserError: Too few good images pass, or a region has no room.
    """
    bases = [i for i in good.images if rows[i.name]["registered"] and not rows[i.name]["stopped"]]
    if len(bases) < BASES:
        raise UserError(
            f"only {len(bases)} of the {len(good.images)} good images pass the detector, too few "
            "to insert defects into: calibrate it with good images like these first."
        )
    return Bases(bases, np.array([_largest(good, image) for image in bases]))


def sizes_of(rng: np.random.Generator, *, largest: float) -> Float[np.ndarray, " s"]:
    """Draw the sizes of a kind and contrast, ascending, from the smallest to the largest."""
    places = (np.arange(TRIALS) + rng.random(TRIALS)) / TRIALS
    places[[0, -1]] = 0, 1
    return SMALLEST * (largest / SMALLEST) ** places


def _largest(good: GoodImages, image: Good) -> float:
    """Return the largest size in px that is inserted into an image."""
    shape, region = good.load(image).shape[:2], good.allowed(image)
    space = room(shape, region)
    if space < ROOM:
        raise UserError(
            f"{image.name}: its region of interest leaves no room for a defect of {ROOM:g} px "
            f"(the largest that fits has {max(space, 0):.3g} px): draw it larger."
        )
    return min(max(ROOM, min(shape) * WIDEST), space)


def inserted(good: GoodImages, case: Case, seed: int) -> Inserted:
    """Return the image of a case and where its defect is."""
    return insert(
        good.load(case.base), good.allowed(case.base), kind=case.kind, size=case.size,
        contrast=case.contrast, rng=generator(seed, case.name),
    )  # fmt: skip


def near_threshold(cases: Sequence[Case], rows: Mapping[str, Row], *, count: int) -> list[Case]:
    """Choose inserted defects whose scores lie around the threshold, found and missed by halves."""

    def nearest(stopped: bool) -> list[Case]:
        mine = [case for case in cases if rows[case.name]["stopped"] == stopped]
        known = [case for case in mine if rows[case.name]["registered"]]
        ranked = sorted(known, key=lambda case: rows[case.name]["score"] * (1 if stopped else -1))
        # Of the quarter that is nearest, evenly, so that not all sit on the threshold itself.
        quarter = ranked[: max(count // 2, len(ranked) // 4)]
        step = max(1, len(quarter) // (count // 2))
        return quarter[::step][: count // 2]

    return nearest(True) + nearest(False)


def one_of_each(cases: Sequence[Case], *, smallest: bool) -> list[Case]:
    """Choose the smallest or largest of each kind, the most extreme first."""
    ranked = sorted(cases, key=lambda case: case.size if smallest else -case.size)
    chosen: dict[str, Case] = {}
    for case in ranked:
        chosen.setdefault(case.kind, case)
    return list(chosen.values())[:SHOWN]

"""Trials of the operating envelope: disturbed good images, and disturbed inserted defects."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from recon_ad.certification.cases import Bases
from recon_ad.certification.defects import insert
from recon_ad.certification.disturb import DISTURBANCES, applies, disturbed
from recon_ad.certification.envelope import (
    DEFECTS,
    GOOD,
    UNDISTURBED,
    Outcome,
    envelope,
    targets,
)
from recon_ad.certification.images import Good, GoodImages
from recon_ad.certification.trials import Row, Trials, generator, judge, row_of
from recon_ad.data.exposure import brightness, sharpness
from recon_ad.detector.inference import Inference
from recon_ad.runtime.progress import progress


def judge_disturbed(
    detector: Inference,
    good: GoodImages,
    rows: Mapping[str, Row],
    bases: Bases,
    entries: Sequence[Mapping[str, Any]],
    trials: Trials,
    seed: int,
) -> dict[str, Any]:
    """Return the operating envelope, see `envelope.envelope`.

    Args:
      detector: Calibrated.
      good: Good images.
      rows: Row of each good image.
      bases: Good images that defects are inserted into.
      entries: Probability of detection of each kind and contrast, as in certificate.json.
      trials: Trials that keep the rows.
      seed: Seed of everything random.
    """
    watched = targets(entries, largest=bases.largest)
    known = [image for image in good.images if rows[image.name]["registered"]]
    places = np.linspace(0, len(known) - 1, min(GOOD, len(known))).astype(int)
    chosen = [known[i] for i in places]
    placed = []  # (name, target, image) of each defect
    for i in range(DEFECTS if watched else 0):
        target = watched[i % len(watched)]
        fitting = np.flatnonzero(bases.fit(target.size))
        base = bases.images[fitting[i // len(watched) % len(fitting)]]
        label = f"{target.kind}/{target.contrast}/{target.size:.6g}/{i}"
        placed.append((label, target, base))
    pixels = good.load(known[0])
    names = [name for name in DISTURBANCES if applies(pixels, name)]

    def disturb(image: Any, name: str, level: float, trial: str) -> Any:
        if name == UNDISTURBED:
            return image
        return disturbed(image, name, level, generator(seed, trial))

    def judge_good(one: Good, name: str, level: float, trial: str) -> Row:
        image = disturb(good.load(one), name, level, trial)
        row = row_of(judge(detector, image, good.roi(one)))
        return row | {"brightness": brightness(image), "sharpness": sharpness(image)}

    def judge_defect(place: Any, name: str, level: float, trial: str) -> Row:
        label, target, base = place
        made = insert(
            good.load(base), good.allowed(base), kind=target.kind, size=target.size,
            contrast=target.contrast, rng=generator(seed, f"envelope/{label}"),
        )  # fmt: skip
        image = disturb(made.image, name, level, trial)
        return row_of(judge(detector, image, good.roi(base)))

    def judge_at(name: str, level: float) -> Outcome:
        wanted = [
            (f"envelope/{name}/{level:g}/good/{one.name}", partial(judge_good, one))
            for one in chosen
        ]
        wanted += [
            (f"envelope/{name}/{level:g}/{place[0]}", partial(judge_defect, place))
            for place in placed
        ]
        shown = "undisturbed images" if name == UNDISTURBED else f"{name}, level {level:g}"
        made = [
            trials.run(trial, partial(make, name, level, trial))
            for trial, make in progress(wanted, shown)
        ]
        return Outcome(made[: len(chosen)], made[len(chosen) :])

    registered = [row for row in rows.values() if row["registered"]]
    return envelope(
        judge_at,
        names=names,
        promise=detector.promise,
        rejects=(sum(row["stopped"] for row in registered), len(registered)),
        watched=watched,
    )

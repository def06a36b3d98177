"""Repeatability: whether pictures of the same part get the same verdict, and how scores vary.

The pictures are the user's own, or they are made from one picture by shifts, rotations, brightness
and noise within the tolerances of this module.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from recon_ad.certification.defects import as_type
from recon_ad.certification.disturb import moved, noisy
from recon_ad.certification.rejects import lower_bound, rate_of
from recon_ad.certification.trials import Row
from recon_ad.data.arrays import to_unit
from recon_ad.errors import UserError

PICTURES = 5  # made of a part
PARTS = 20  # good ones, and as many with a defect
FEWEST = 5  # parts of the user's own repeated pictures
SHIFT = 1.0  # px at most, in either direction
ANGLE = 0.25  # degrees at most
BRIGHTNESS = 0.02  # change of all gray levels at most, as a share
NOISE = 0.005  # standard deviation, of the full range


def vary(
    image: Shaped[np.ndarray, "h w c"], rng: np.random.Generator
) -> Shaped[np.ndarray, "h w c"]:
    """Return another picture of the same part, within the tolerances."""
    angle, shift = rng.uniform(-ANGLE, ANGLE), rng.uniform(-SHIFT, SHIFT, 2)
    changed = moved(to_unit(image), angle=angle, shift=tuple(shift.tolist()))
    changed *= np.float32(1 + rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    return as_type(noisy(changed, NOISE, rng), image.dtype)


def parts_of(names: Sequence[str], pattern: str) -> dict[str, list[str]]:
    """Group the names of pictures by the part that they show.

    Args:
      names: Names of all pictures.
      pattern: Regular expression; its first group, or all of it where it has none, names the part.

    Returns:
      The pictures of each part that has two or more.

    Raises:
      UserError: The pattern is not valid, or finds fewer than `FEWEST` such parts.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--repeats {pattern!r} is not a valid regular expression: {error}."
        ) from None
    parts: dict[str, list[str]] = {}
    for name in names:
        if found := compiled.search(name):
            parts.setdefault(found[1] if compiled.groups else found[0], []).append(name)
    several = {part: pictures for part, pictures in parts.items() if len(pictures) > 1}
    if len(several) < FEWEST:
        raise UserError(
            f"--repeats {pattern!r} finds {len(several)} parts with two or more pictures, and "
            f"repeatability needs {FEWEST}: give a pattern whose first group names the part."
        )
    return several


def repeatability(
    good: Mapping[str, Sequence[Row]], defective: Mapping[str, Sequence[Row]], *, threshold: float
) -> dict[str, Any]:
    """Return how far verdicts agree, and how the scores of good parts vary.

    Args:
      good: Rows of the pictures of each good part, two or more.
      defective: The same of parts with a defect.
      threshold: Image threshold.
    """
    every = [*good.values(), *defective.values()]
    verdicts = [[bool(row["stopped"]) for row in rows] for rows in every]
    scores = [[row["score"] for row in rows if row["registered"]] for rows in good.values()]
    varied = variances([values for values in scores if len(values) > 1])
    found: dict[str, Any] = {
        "good_parts": len(good),
        "defective_parts": len(defective),
        "pictures": sum(map(len, verdicts)),
        "alike": _alike(verdicts),
        "good_alike": _alike(verdicts[: len(good)]),
        "defective_alike": _alike(verdicts[len(good) :]) if defective else None,
        "kappa": fleiss_kappa(verdicts),
        "score_sd_within": None,
        "score_sd_between": None,
        "share_of_gap": None,
    }
    if varied is not None:
        within, between = (float(np.sqrt(v)) for v in varied)
        gap = threshold - float(np.median(np.concatenate(scores)))
        found |= {"score_sd_within": within, "score_sd_between": between}
        found["share_of_gap"] = within / gap if gap > 0 else None
    return found


def _alike(verdicts: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Count the parts whose pictures all have the same verdict."""
    count, total = sum(len(set(said)) == 1 for said in verdicts), len(verdicts)
    return rate_of(count, total)._asdict() | {"at_least": lower_bound(count, total)}


def fleiss_kappa(verdicts: Sequence[Sequence[bool]]) -> float | None:
    """Return the agreement of verdicts beyond chance (Fleiss 1971, Psychological Bulletin 76).

    Where parts have different numbers of pictures, the first ones of each count.

    Returns:
      1 for full agreement, 0 for that of chance; None where all verdicts are the same, since no
      disagreement could then show.
    """
    n = min(map(len, verdicts))
    stopped = np.array([sum(said[:n]) for said in verdicts], np.float64)
    counts = np.stack([stopped, n - stopped], axis=1)
    shares = counts.sum(0) / counts.sum()
    chance = float(shares @ shares)
    if chance == 1:
        return None
    agreement = float(((counts**2).sum(1) - n).mean() / (n * (n - 1)))
    return (agreement - chance) / (1 - chance)


def variances(groups: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Return the variance within and between groups, by one-way analysis of variance.

    None where there are fewer than two groups. The variance between is 0 at least.
    """
    if len(groups) < 2:
        return None
    sizes = np.array([len(values) for values in groups], np.float64)
    means = np.array([np.mean(values) for values in groups])
    total, n = float(np.concatenate(groups).mean()), float(sizes.sum())
    within = sum(
        float(((np.array(v) - m) ** 2).sum()) for v, m in zip(groups, means, strict=True)
    ) / (n - len(groups))
    between = float(sizes @ (means - total) ** 2) / (len(groups) - 1)
    size = (n - float(sizes @ sizes) / n) / (len(groups) - 1)
    return within, max(0.0, (between - within) / size)

"""Whether a reconstruction model learned anything beyond the mean of its patches, and why not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LEARNED = 0.1  # explained variance below which a model has learned little but the mean
# Held-out loss that falls by less than this share from the third to the last quarter of training
# has levelled off; one that rises by more has gone wrong.
LEVEL = 0.02
# Models of regular data, too, paint the mean at first, for a few thousand patches.
ENOUGH = 10_000


def fall(losses: Sequence[float]) -> float:
    """Relative fall of a loss from the third to the last quarter of its history; 0 if too short."""
    if len(losses) < 4:
        return 0.0
    quarter = len(losses) // 4
    before = float(np.mean(losses[-2 * quarter : -quarter]))
    return (before - float(np.mean(losses[-quarter:]))) / before if before else 0.0


def explained(log: Sequence[Mapping[str, Any]], step: int, *, patches: int) -> dict[str, Any]:
    """`explained_variance` at a step, None where there is none, and `message`, the verdict.

    Args:
      log: lines of a run's log.
      step: of one of its held-out evaluations.
      patches: that the model was trained on by then.
    """
    evaluations = [entry for entry in log if "heldout_loss" in entry]
    entry = next((entry for entry in evaluations if entry["step"] == step), None)
    if entry is None or "heldout_unexplained_variance" not in entry:
        return {"explained_variance": None, "message": ""}
    share = 1 - entry["heldout_unexplained_variance"]
    losses = [entry["heldout_loss"] for entry in evaluations]
    return {"explained_variance": share, "message": verdict(share, losses, patches=patches)}


def verdict(explained_variance: float, losses: Sequence[float], *, patches: int) -> str:
    """One sentence for whoever trained the model, or "" where it explains enough.

    Args:
      explained_variance: of held-out normals, 1 − Σ(x − x̂)² / Σ(x − mean of its patch)².
      losses: held-out losses in the order of training, evenly spaced.
      patches: that the model was trained on.
    """
    if explained_variance >= LEARNED:
        return ""
    # Rounded first: a hair below zero would be written as -0.0 %.
    rounded = round(explained_variance, 3) + 0.0
    share = (
        f"explains {rounded:.1%} of the variance of held-out normal patches (their mean alone 0 %, "
        "a perfect copy 100 %)"
    )
    if fall(losses) >= LEVEL:
        return (
            f"The model {share}, but its loss is still falling: it was not trained long enough. "
            "Raise config.train.steps."
        )
    if fall(losses) <= -LEVEL:
        return (
            f"The model {share}, and its held-out loss is rising: lower config.optim.learning_rate."
        )
    if patches < ENOUGH or len(losses) < 4:
        return (
            f"The model {share} after {patches} patches and {len(losses)} held-out evaluations, "
            "too few to tell why: raise config.train.steps."
        )
    return (
        f"The model learned only the mean: it {share} and its loss has levelled off. "
        "The data may lack the regularity that reconstruction needs."
    )

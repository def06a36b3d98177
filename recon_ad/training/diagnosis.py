"""The diagnosis of whether a reconstruction model learned more than the mean of its patches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LEARNED = 0.1  # explained variance below which a model has learned little but the mean
# A held-out loss that falls by less than this share from the third to the last quarter of training
# has levelled off; one that rises by more is diverging.
LEVEL = 0.02
# For the first few thousand patches, models of regular data reconstruct the mean too.
ENOUGH = 10_000


def fall(losses: Sequence[float]) -> float:
    """Return a loss's relative fall from the third to the last quarter, or 0 if it is too short."""
    if len(losses) < 4:
        return 0.0
    quarter = len(losses) // 4
    before = float(np.mean(losses[-2 * quarter : -quarter]))
    return (before - float(np.mean(losses[-quarter:]))) / before if before else 0.0


def explained(log: Sequence[Mapping[str, Any]], step: int, *, patches: int) -> dict[str, Any]:
    """Return `explained_variance` at a step, None if not measured, and `message`, the verdict.

    Args:
      log: Lines of a run's log.
      step: Step of one of its held-out evaluations.
      patches: Number of patches that the model was trained on by then.
    """
    evaluations = [entry for entry in log if "heldout_loss" in entry]
    entry = next((entry for entry in evaluations if entry["step"] == step), None)
    if entry is None or "heldout_unexplained_variance" not in entry:
        return {"explained_variance": None, "message": ""}
    share = 1 - entry["heldout_unexplained_variance"]
    losses = [entry["heldout_loss"] for entry in evaluations]
    return {"explained_variance": share, "message": verdict(share, losses, patches=patches)}


def verdict(explained_variance: float, losses: Sequence[float], *, patches: int) -> str:
    """Return one sentence for the user who trained the model, or "" if it explains enough.

    Args:
      explained_variance: Share for held-out normal images, 1 − Σ(x − x̂)² / Σ(x − mean of its
        patch)².
      losses: Held-out losses in the order of training, evenly spaced.
      patches: Number of patches that the model was trained on.
    """
    if explained_variance >= LEARNED:
        return ""
    # Rounded first, because a value just below zero would be written as -0.0 %.
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
            "too few to find the cause: raise config.train.steps."
        )
    return (
        f"The model learned only the mean: it {share} and its loss has levelled off. "
        "The data may lack the regularity that reconstruction needs."
    )

"""Whether a reconstruction model learned anything beyond the mean of its patches, and why not."""

from collections.abc import Sequence

import numpy as np

LEARNED = 0.1  # explained variance below which a model has learned little but the mean
# Held-out loss that falls by less than this share from the third to the last quarter of training
# has levelled off.
LEVEL = 0.02


def fall(losses: Sequence[float]) -> float:
    """Relative fall of a loss from the third to the last quarter of its history; 0 if too short."""
    if len(losses) < 4:
        return 0.0
    quarter = len(losses) // 4
    before = float(np.mean(losses[-2 * quarter : -quarter]))
    return (before - float(np.mean(losses[-quarter:]))) / before if before else 0.0


def verdict(explained_variance: float, losses: Sequence[float]) -> str:
    """One sentence for whoever trained the model, or "" where it explains enough.

    Args:
      explained_variance: of held-out normals, 1 − Σ(x − x̂)² / Σ(x − mean of its patch)².
      losses: held-out losses in the order of training, evenly spaced.
    """
    if explained_variance >= LEARNED:
        return ""
    share = f"explains {explained_variance:.1%} of the variance of held-out normal patches"
    if len(losses) < 4:
        return (
            f"The model {share}, and the held-out loss was measured {len(losses)} times only: "
            "train for longer before you judge it (config.train.steps)."
        )
    if fall(losses) < LEVEL:
        return (
            f"The model learned only the mean: it {share} and its loss has levelled off. "
            "The data may lack the regularity that reconstruction needs."
        )
    return (
        f"The model {share}, but its loss is still falling: it was not trained long enough. "
        "Raise config.train.steps."
    )

"""How the classifier of heatmaps learns from a few labels, and what it can be expected to do.

Features are float32 [n, d], labels bool [n], True for a defect. Everything is decided by the labels
alone, and reported on labels that had no part in it:

    learn           an MLP on all labels; Platt's factor and offset, and the threshold, from the
                    logits of MLPs that had not seen the image (stratified folds)
    cross_validate  the whole of `learn` on all folds but one, and that one judged by it; repeated

Class weights make both classes count alike in an MLP; Platt's offset brings the probability back to
how frequent defects are among the labels.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.detector.classifier import standardised
from recon_ad.errors import UserError
from recon_ad.metrics.ranking import auroc, levels
from recon_ad.models.mlp import MLP

AT_ONCE = 64  # MLPs that are trained together
BINS = 5  # of the reliability diagram
NEWTON = 100  # steps, at most

Features = Float[np.ndarray, "n d"]
Labels = Bool[np.ndarray, " n"]


class Decision(NamedTuple):
    """How logits become probabilities and these a decision.

    Attributes:
      factor, offset: Platt's, the probability is σ(factor · logit + offset).
      threshold: above which a probability means a defect.
    """

    factor: float
    offset: float
    threshold: float

    def probabilities(self, logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """In (0, 1)."""
        return 1 / (1 + np.exp(-(self.factor * logits + self.offset)))


class Learnt(NamedTuple):
    """What `learn` makes of one set of labels.

    Attributes:
      params: of the MLP, and `mean` and `deviation` of its features.
      decision: see there.
      logits: of all images by that MLP, those it has not seen among them.
    """

    params: PyTree
    decision: Decision
    logits: Float[np.ndarray, " n"]


def check_labels(labels: Labels, *, folds: int) -> None:
    """Raises UserError where either class has fewer images than there are folds."""
    for name, count in (("defect", labels.sum()), ("harmless", (~labels).sum())):
        if count < folds:
            raise UserError(
                f"{count} images are labelled {name}, and {folds} are needed, one for each fold of "
                f"the cross-validation: label {folds - count} more."
            )


def stratified(labels: Labels, *, folds: int, random: np.random.Generator) -> Int[np.ndarray, " n"]:
    """A fold for each item, such that each fold has its share of both classes, within one."""
    found = np.empty(len(labels), int)
    first = 0
    for value in (True, False):
        members = random.permutation(np.flatnonzero(labels == value))
        found[members] = (first + np.arange(len(members))) % folds
        first += len(members)  # the classes' odd ones into different folds
    return found


@functools.partial(jax.jit, static_argnames=("hidden", "steps", "rate", "l2"))
def _train(
    key: Key[Array, ""],
    features: Float[Array, "n d"],
    labels: Float[Array, " n"],
    used: Float[Array, "m n"],
    *,
    hidden: int,
    steps: int,
    rate: float,
    l2: float,
) -> tuple[PyTree, Float[Array, "m n"]]:
    """MLPs, each learnt from the images that it uses (1, else 0), and their logits of all."""
    model, tx = MLP(hidden), optax.adam(rate)
    begun = model.init(key, features)["params"]  # all alike: one seed, one classifier

    def one(used: Float[Array, " n"]) -> tuple[PyTree, Float[Array, " n"]]:
        share = (used / jnp.sum(used))[:, None]
        mean = jnp.sum(share * features, axis=0)
        variance = jnp.sum(share * (features - mean[None]) ** 2, axis=0)
        # What is the same in all says nothing; it is not to be divided by rounding.
        varies = variance > 1e-10 * (1 + mean**2)
        deviation = jnp.where(varies, jnp.sqrt(variance), jnp.inf)
        x = standardised(features, mean, deviation)
        classes = [used * labels, used * (1 - labels)]
        weights = sum(c / (2 * jnp.sum(c)) for c in classes)

        def loss(params: PyTree) -> Float[Array, ""]:
            entropy = optax.sigmoid_binary_cross_entropy(model.apply({"params": params}, x), labels)
            kernels = sum(jnp.sum(layer["kernel"] ** 2) for layer in params.values())
            return jnp.sum(weights * entropy) + l2 * kernels

        def step(state: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
            params, opt_state = state
            updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        (params, _), _ = jax.lax.scan(step, (begun, tx.init(begun)), None, length=steps)
        learnt = {"mlp": params, "mean": mean, "deviation": deviation}
        return learnt, model.apply({"params": params}, x)

    return jax.vmap(one)(used)


def train_all(
    features: Features, labels: Labels, used: Bool[np.ndarray, "m n"], config: ConfigDict
) -> tuple[list[PyTree], Float[np.ndarray, "m n"]]:
    """An MLP for each row of `used`; parameters, and logits of all images."""
    learnt, logits = [], []
    key = jax.random.key(config.seed)
    for first in range(0, len(used), AT_ONCE):
        part = used[first : first + AT_ONCE]
        count = len(part)
        if len(used) > AT_ONCE:  # the last filled up: one compiled program
            part = np.concatenate([part, np.repeat(part[-1:], AT_ONCE - count, axis=0)])
        params, found = jax.device_get(
            _train(
                key,
                features.astype(np.float32),
                labels.astype(np.float32),
                part.astype(np.float32),
                hidden=config.hidden,
                steps=config.steps,
                rate=config.learning_rate,
                l2=config.l2,
            )
        )
        learnt += [jax.tree.map(lambda x, i=i: x[i], params) for i in range(count)]
        logits.append(found[:count])
    return learnt, np.concatenate(logits).astype(np.float64)


def platt(logits: Float[np.ndarray, " n"], labels: Labels) -> tuple[float, float]:
    """Factor and offset that make logits of images not seen in training probabilities.

    Maximum likelihood with the targets of Platt (1999), which lie a little inside 0 and 1, by
    Newton's method. The factor is not negative: where the logits rank the wrong way round, all get
    the same probability.
    """
    n, p = (~labels).sum(), labels.sum()
    targets = np.where(labels, (p + 1) / (p + 2), 1 / (n + 2))
    scale = max(float(np.std(logits)), 1e-12)
    x = np.stack([logits / scale, np.ones(len(logits))], axis=1)
    at = np.array([0.0, np.log(targets.sum() / (len(targets) - targets.sum()))])
    constant = at.copy()

    def likelihood(at: Float[np.ndarray, " 2"]) -> float:
        z = x @ at
        return float(np.sum(targets * z - np.logaddexp(0, z)))

    for _ in range(NEWTON):
        q = 1 / (1 + np.exp(-(x @ at)))
        gradient = x.T @ (targets - q)
        hessian = (x * (q * (1 - q))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while likelihood(at + step) < likelihood(at) and np.abs(step).max() > 1e-12:
            step = step / 2
        at = at + step
        if np.abs(step).max() < 1e-10:
            break
    if at[0] <= 0:
        at = constant
    return float(at[0] / scale), float(at[1])


def best_threshold(probabilities: Float[np.ndarray, " n"], labels: Labels) -> float:
    """The threshold with the highest balanced accuracy, half-way between two probabilities.

    Of several as good as each other, the middle one; 0 where all probabilities are alike, so that
    every anomaly stays a defect.
    """
    distinct = np.unique(probabilities)
    candidates = (distinct[1:] + distinct[:-1]) / 2
    if not len(candidates):  # nothing to tell apart
        return 0.0
    accuracies = [balanced_accuracy(probabilities > c, labels) for c in candidates]
    best = np.flatnonzero(np.isclose(accuracies, max(accuracies), rtol=0, atol=1e-9))
    return float(candidates[best[len(best) // 2]])


def balanced_accuracy(decided: Bool[np.ndarray, " n"], labels: Labels) -> float:
    """Mean of the share of defects that are decided to be, and of the harmless that are not."""
    return float((decided[labels].mean() + (~decided[~labels]).mean()) / 2)


def learn(
    features: Features, labels: Labels, sets: Sequence[Bool[np.ndarray, " n"]], config: ConfigDict
) -> list[Learnt]:
    """A classifier from each set of the labels; the labels of other images are not looked at.

    Args:
      features: of all images.
      labels: of all; where a set is False, any value.
      sets: which images it learns from, at least two of each class.
      config: as configs/classifier.py has it.
    """
    random = np.random.default_rng(config.seed)
    used, groups = [], []
    for chosen in sets:
        inner = int(min(config.folds, labels[chosen].sum(), (~labels[chosen]).sum()))
        fold = np.full(len(labels), -1)
        fold[chosen] = stratified(labels[chosen], folds=inner, random=random)
        groups.append((chosen, fold, inner))
        used += [chosen & (fold != k) for k in range(inner)] + [chosen]
    params, logits = train_all(features, labels, np.array(used), config)
    learnt, first = [], 0
    for chosen, fold, inner in groups:
        unseen = logits[first + fold[chosen], np.flatnonzero(chosen)]
        factor, offset = platt(unseen, labels[chosen])
        decision = Decision(factor, offset, config.threshold or 0.0)
        if config.threshold is None:
            probabilities = decision.probabilities(unseen)
            threshold = best_threshold(probabilities, labels[chosen])
            decision = decision._replace(threshold=threshold)
        learnt.append(Learnt(params[first + inner], decision, logits[first + inner]))
        first += inner + 1
    return learnt


def cross_validate(
    features: Features,
    labels: Labels,
    above: Bool[np.ndarray, " n"],
    config: ConfigDict,
) -> dict[str, Any]:
    """The report: every figure is of images that the classifier judging them has not seen.

    Args:
      features: of the labelled images.
      labels: see above.
      above: whether the detector's score is above its image threshold.
      config: as configs/classifier.py has it.
    """
    random = np.random.default_rng([config.seed, 1])
    folds, repeats = config.folds, config.repeats
    fold = np.stack([stratified(labels, folds=folds, random=random) for _ in range(repeats)])
    sets = [row != k for row in fold for k in range(folds)]
    probabilities, decided = np.empty(fold.shape), np.empty(fold.shape, bool)
    for i, learnt in enumerate(learn(features, labels, sets, config)):
        r, out = i // folds, ~sets[i]
        probabilities[r, out] = learnt.decision.probabilities(learnt.logits[out])
        decided[r, out] = probabilities[r, out] > learnt.decision.threshold
    rejected = decided & above
    return {
        "folds": folds,
        "repeats": repeats,
        "auroc": _spread([auroc(levels(p, labels)) for p in probabilities]),
        "balanced_accuracy": _spread([balanced_accuracy(d, labels) for d in decided]),
        "brier": _spread(np.mean((probabilities - labels) ** 2, axis=1)),
        "reliability": reliability(probabilities.ravel(), np.tile(labels, repeats)),
        "confusion": _confusion(decided, labels),
        "with_the_image_threshold": {
            "balanced_accuracy": _spread([balanced_accuracy(d, labels) for d in rejected]),
            "confusion": _confusion(rejected, labels),
        },
        "probabilities": [float(p) for p in probabilities.mean(axis=0)],
    }


def _spread(values: Sequence[float] | Float[np.ndarray, " r"]) -> dict[str, float]:
    """Over the repeats."""
    return {
        "mean": float(np.mean(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


def _confusion(decided: Bool[np.ndarray, "r n"], labels: Labels) -> dict[str, float]:
    """Images in each cell; means over the repeats."""
    return {
        "defects_found": float(decided[:, labels].sum(axis=1).mean()),
        "defects_missed": float((~decided[:, labels]).sum(axis=1).mean()),
        "harmless_passed": float((~decided[:, ~labels]).sum(axis=1).mean()),
        "harmless_rejected": float(decided[:, ~labels].sum(axis=1).mean()),
    }


def reliability(probabilities: Float[np.ndarray, " n"], labels: Labels) -> dict[str, Any]:
    """Mean probability and share of defects in equal bins, and their mean difference."""
    place = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    rows = [
        {
            "from": b / BINS,
            "to": (b + 1) / BINS,
            "share_of_images": float(np.mean(place == b)),
            "mean_probability": float(probabilities[place == b].mean()),
            "share_of_defects": float(labels[place == b].mean()),
        }
        for b in np.unique(place).tolist()
    ]
    error = sum(
        r["share_of_images"] * abs(r["mean_probability"] - r["share_of_defects"]) for r in rows
    )
    return {"bins": rows, "expected_calibration_error": error}

"""The training of the classifier of heatmaps on a few labels, and its expected performance.

Features are float32 [n, d], labels bool [n], True for a defect. Everything is decided by the labels
alone, and reported on labels that were not used for it:

    learn           an MLP on all labels; Platt's factor and offset, and the threshold, from the
                    logits of MLPs that had not seen the image (stratified folds)
    cross_validate  the whole of `learn` on all folds but one, evaluated on that one; repeated

Class weights make both classes count equally in an MLP. Platt's offset restores the frequency of
defects among the labels to the probability.
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

AT_ONCE = 64  # number of MLPs that are trained together
BINS = 5  # number of bins of the reliability diagram
NEWTON = 100  # largest number of steps of Newton's method

Features = Float[np.ndarray, "n d"]
Labels = Bool[np.ndarray, " n"]


class Decision(NamedTuple):
    """Mapping from logits to probabilities, and from these to a decision.

    Attributes:
      factor, offset: Platt's, for the probability σ(factor · logit + offset).
      threshold: Probability above which an image is a defect.
    """

    factor: float
    offset: float
    threshold: float

    def probabilities(self, logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the probabilities of logits, in (0, 1)."""
        return 1 / (1 + np.exp(-(self.factor * logits + self.offset)))


class Learnt(NamedTuple):
    """Result of `learn` for one set of labels.

    Attributes:
      params: Parameters of the MLP, with `mean` and `deviation` of its features.
      decision: Mapping from its logits to decisions.
      logits: Logits of all images by this MLP, including those that it has not seen.
    """

    params: PyTree
    decision: Decision
    logits: Float[np.ndarray, " n"]


def check_labels(labels: Labels, *, folds: int) -> None:
    """Raise UserError if a class has fewer images than there are folds."""
    for name, count in (("defect", labels.sum()), ("harmless", (~labels).sum())):
        if count < folds:
            raise UserError(
                f"{count} images are labelled {name}, but {folds} are needed, one for each fold of "
                f"the cross-validation: label {folds - count} more."
            )


def stratified(labels: Labels, *, folds: int, random: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Return a fold for each item, with both classes spread evenly over the folds, within one."""
    found = np.empty(len(labels), int)
    first = 0
    for value in (True, False):
        members = random.permutation(np.flatnonzero(labels == value))
        found[members] = (first + np.arange(len(members))) % folds
        first += len(members)  # puts the classes' surplus items into different folds
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
    """Train MLPs on the images with 1 in their rows of `used`; return logits of all images too."""
    model, tx = MLP(hidden), optax.adam(rate)
    begun = model.init(key, features)["params"]  # the same for all: one seed, one classifier

    def one(used: Float[Array, " n"]) -> tuple[PyTree, Float[Array, " n"]]:
        share = (used / jnp.sum(used))[:, None]
        mean = jnp.sum(share * features, axis=0)
        variance = jnp.sum(share * (features - mean[None]) ** 2, axis=0)
        # A constant feature carries no information and must not be divided by rounding errors.
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
    """Train an MLP for each row of `used`; return parameters, and logits of all images."""
    learnt, logits = [], []
    key = jax.random.key(config.seed)
    for first in range(0, len(used), AT_ONCE):
        part = used[first : first + AT_ONCE]
        count = len(part)
        if len(used) > AT_ONCE:  # the last part is padded, so that one compiled program serves all
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
    """Fit the factor and offset that turn logits of held-out images into probabilities.

    They maximise the likelihood with the targets of Platt (1999), which lie slightly inside 0 and
    1, by Newton's method. The factor is not negative: if the logits rank the wrong way round, all
    images get the same probability.
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
    """Return the threshold with the highest balanced accuracy, half-way between two probabilities.

    If several are equally good, the middle one is returned. If all probabilities are equal, it is
    0, so that every anomaly stays a defect.
    """
    distinct = np.unique(probabilities)
    candidates = (distinct[1:] + distinct[:-1]) / 2
    if not len(candidates):  # all probabilities are equal
        return 0.0
    accuracies = [balanced_accuracy(probabilities > c, labels) for c in candidates]
    best = np.flatnonzero(np.isclose(accuracies, max(accuracies), rtol=0, atol=1e-9))
    return float(candidates[best[len(best) // 2]])


def balanced_accuracy(decided: Bool[np.ndarray, " n"], labels: Labels) -> float:
    """Average the shares of correct decisions on defects and on harmless anomalies."""
    return float((decided[labels].mean() + (~decided[~labels]).mean()) / 2)


def learn(
    features: Features, labels: Labels, sets: Sequence[Bool[np.ndarray, " n"]], config: ConfigDict
) -> list[Learnt]:
    """Train a classifier on each set of the labels; the labels of other images are not used.

    Args:
      features: Features of all images.
      labels: Labels of all images, with any value outside a set.
      sets: Masks of the images of each classifier, with at least two of each class.
      config: Config of the classifier (see configs/classifier.py).
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
    """Return the report, whose figures are all of images that their classifier has not seen.

    Args:
      features: Features of the labelled images.
      labels: Labels of the images.
      above: Whether the detector's score of each image is above its image threshold.
      config: Config of the classifier (see configs/classifier.py).
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
    """Return mean, minimum and maximum over the repeats."""
    return {
        "mean": float(np.mean(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


def _confusion(decided: Bool[np.ndarray, "r n"], labels: Labels) -> dict[str, float]:
    """Return the number of images in each cell, averaged over the repeats."""
    return {
        "defects_found": float(decided[:, labels].sum(axis=1).mean()),
        "defects_missed": float((~decided[:, labels]).sum(axis=1).mean()),
        "harmless_passed": float((~decided[:, ~labels]).sum(axis=1).mean()),
        "harmless_rejected": float(decided[:, ~labels].sum(axis=1).mean()),
    }


def reliability(probabilities: Float[np.ndarray, " n"], labels: Labels) -> dict[str, Any]:
    """Return mean probability and share of defects in equal bins, and their mean difference."""
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

"""The two graphs of the single inference path, by JAX, and the detector directory.

    core    traced: tiles, integers or float in [0, 1] → residual maps, reconstructions
    tail    traced, any height and width: smoothing, score, label, mask; thresholds are inputs

`inference` has the steps around them. Evaluation, prediction, notebooks and every exported graph
use these two. Images are [h, w, c]; maps are float32 [h, w], raw, higher is more anomalous.

A detector directory holds `detector.json` and `variables.safetensors`, `part.safetensors` where
images are aligned or have a background, `classifier.safetensors` where not every anomaly is a
defect, and `MODEL_CARD.md` for people. Nothing in it is executed.
"""

import copy
import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Shaped
from ml_collections import ConfigDict

from recon_ad.alignment import part as parts
from recon_ad.detector import classifier as classifiers
from recon_ad.detector.certificate import CARD
from recon_ad.detector.classifier import Classifier, Network
from recon_ad.detector.inference import UNCALIBRATED, Inference, Plan, Thresholds
from recon_ad.detector.model_card import model_card
from recon_ad.detector.normalised import medians_of
from recon_ad.methods import build_method
from recon_ad.methods.base import KEPT, Method, Variables
from recon_ad.metrics.promise import promised_rates
from recon_ad.ops.scores import SCORES, check_score
from recon_ad.ops.smoothing import smooth
from recon_ad.runtime import files
from recon_ad.runtime.files import sha256

FORMAT = 9  # of detector.json


def core(
    variables: Variables, images: Shaped[Array, "b h w c"], *, method: Method
) -> tuple[Float[Array, "b h w"], Float[Array, "b h w c"] | None]:
    """Return residual maps and reconstructions of tiles; integers are scaled to [0, 1] inside."""
    if jnp.issubdtype(images.dtype, jnp.integer):
        b, h, w, c = images.shape
        # Without a last axis of 1, as in `residuals.structural`.
        flat = images.reshape(b, h, w * c).astype(jnp.float32) / jnp.iinfo(images.dtype).max
        images = flat.reshape(b, h, w, c)
    reconstruction = method.reconstruct(variables, images) if method.reconstruct else None
    return method.anomaly_map(variables, images), reconstruction


def tail(
    residual_map: Float[Array, "h w"],
    valid: Bool[Array, "h w"],
    thresholds: Thresholds,
    classifier: Network | None,
    *,
    sigma: float,
    score: str,
) -> tuple[Array, ...]:
    """Return score, label, smoothed map and mask of one stitched residual map.

    With a classifier, the probability of a defect follows, and the label depends on it, too.

    Args:
      residual_map: Map at the image's size, or padded to any larger one.
      valid: Pixels that count.
      thresholds: Thresholds of images and pixels.
      classifier: Network that tells defects from harmless anomalies, if there is one.
      sigma: Width of the Gaussian smoothing in px, 0 for none.
      score: Name in `ops.scores.SCORES`.
    """
    anomaly_map = smooth(residual_map, valid, sigma=sigma)
    value = SCORES[score](anomaly_map, valid)
    mask = (anomaly_map > thresholds.pixel) & valid
    label = value > thresholds.image
    if classifier is None:
        return value, label, anomaly_map, mask
    is_defect, probability = classifiers.judge(classifier, anomaly_map[None], valid[None])
    return value, label & is_defect[0], anomaly_map, mask, probability[0]


@functools.lru_cache(maxsize=KEPT)
def jit_core(method: Method) -> Any:
    """Return the compiled `core`, which the detectors of a method share."""
    return jax.jit(functools.partial(core, method=method))


@functools.lru_cache(maxsize=KEPT)
def jit_tail(*, sigma: float, score: str) -> Any:
    """Return the compiled `tail`, which all detectors with these settings share."""
    return jax.jit(functools.partial(tail, sigma=sigma, score=score))


class Detector(Inference):
    """A trained method with its thresholds: call it on images.

    Args:
      config: Config of the run that made it, with method, geometry and tail.
      channels: Channels that images must have.
      variables: Variables from the method's `finish`.
      thresholds: Thresholds from calibration; infinite before it.
      record: Results of calibration and training, plain JSON, for reports.
      part: Part that images are aligned to; None judges them as they are.
      classifier: Classifier of its heatmaps, where not every anomaly is a defect.
      categories: Thresholds of each category, for a detector of several.
    """

    def __init__(
        self,
        config: ConfigDict,
        *,
        channels: int,
        variables: Variables,
        thresholds: Thresholds = UNCALIBRATED,
        record: dict[str, Any] | None = None,
        part: parts.Part | None = None,
        classifier: Classifier | None = None,
        categories: Mapping[str, Thresholds] = {},
    ):
        method = build_method(config, channels=channels)
        c = config.inference
        check_score(c.score)
        plan = Plan(
            channels=channels,
            geometry=method.geometry,
            batch_size=c.batch_size,
            opening=c.opening,
            min_area=c.min_area,
            border=c.border,
            border_weight=c.border_weight,
            input_range=tuple(config.data.input_range),
        )
        medians = medians_of(record or {})
        super().__init__(plan, thresholds, part=part, categories=categories, medians=medians)
        self.config = config
        self.channels = channels
        self.method = method
        # On the device once, not at each call.
        self.variables = jax.device_put(variables)
        self.record = record or {}
        self.classifier = classifier
        self._network = jax.device_put(classifier.network) if classifier else None
        self.core = jit_core(self.method)
        self.tail = jit_tail(sigma=c.sigma, score=c.score)

    def with_thresholds(
        self,
        thresholds: Thresholds,
        record: dict[str, Any],
        *,
        categories: Mapping[str, Thresholds] = {},
    ) -> "Detector":
        """Return the same detector with other thresholds and record."""
        medians = medians_of(record)
        return self._with(
            thresholds=thresholds,
            record=record,
            categories=categories,
            medians=medians,
            median=medians.get(""),
        )

    def without(self, places: Collection[int]) -> "Detector":
        """Return the same detector as if it had not been trained on the images at these places.

        Only for methods that can leave images out, `methods.base.Method.without`.
        """
        assert self.method.without is not None
        variables = self.method.without(self.variables, places)
        return self._with(variables=jax.device_put(variables))

    def with_record(self, more: dict[str, Any]) -> "Detector":
        """Return the same detector with these entries in its record."""
        return self._with(record=self.record | more)

    def with_part(self, part: parts.Part | None) -> "Detector":
        """Return the same detector for images that it aligns, or for aligned ones (None)."""
        return self._with(part=part)

    def with_classifier(self, classifier: Classifier | None) -> "Detector":
        """Return the same detector with another classifier or none."""
        network = jax.device_put(classifier.network) if classifier else None
        return self._with(classifier=classifier, _network=network)

    def in_float32(self) -> "Detector":
        """Return the same detector with the encoder's products in float32.

        It keeps its config, whose `encoder.dtype` says how it was trained and calibrated.
        """
        if self.config.encoder.dtype != "bfloat16":
            return self
        config = self.config.copy_and_resolve_references()
        config.encoder.dtype = "float32"
        method = build_method(config, channels=self.channels)
        return self._with(method=method, core=jit_core(method))

    def _with(self, **changed: Any) -> "Detector":
        other = copy.copy(self)  # shares the compiled programs, which do not depend on these
        vars(other).update(changed)
        return other

    @property
    def calibrated_on_regions(self) -> bool:
        """True if the thresholds are of regions of interest only, by the record."""
        return self.record.get("calibration", {}).get("regions_of_interest", False)

    @property
    def seen(self) -> frozenset[str]:
        """The digests in its record of images that it learnt from or was calibrated with."""
        calibrated = self.record.get("calibration", {}).get("digests", [])
        return frozenset([*self.record.get("learnt_from", []), *calibrated])

    @property
    def promise(self) -> tuple[float, float] | None:
        """The promise of its calibration, for the chosen category if any; None if unknown."""
        entry = self.record.get("calibration", {})
        if "images" not in entry:  # thresholds of one's own come with scores at most
            return None
        rate, units = promised_rates(entry, [self.category])[self.category]
        return None if rate is None else (rate, units)

    def run_core(
        self, images: Shaped[np.ndarray, "b h w c"], *, reconstruct: bool
    ) -> tuple[Float[np.ndarray, "b h w"], Float[np.ndarray, "b h w c"] | None]:
        """Run the core by JAX, as `Inference.run_core` describes."""
        residual, reconstruction = self.core(self.variables, images)
        wanted = reconstruct and reconstruction is not None
        return jax.device_get(residual), jax.device_get(reconstruction) if wanted else None

    def to_device(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """Place the arrays on the device that runs the tail."""
        return tuple(jax.device_put(arrays))

    def run_tail(
        self, residual_map: Any, valid: Any, thresholds: Thresholds
    ) -> tuple[np.ndarray, ...]:
        """Run the tail by JAX, as `Inference.run_tail` describes."""
        return jax.device_get(self.tail(residual_map, valid, thresholds, self._network))

    def save(self, path: Path | str) -> None:
        """Write the detector directory, whole or not at all."""
        flat = {
            "/".join(key): np.asarray(value)
            for key, value in traverse_util.flatten_dict(jax.device_get(self.variables)).items()
        }
        content = safetensors.numpy.save(flat)
        described = {
            "format": FORMAT,
            "channels": self.channels,
            # JSON has no infinity: null stands for a threshold that is not set.
            "thresholds": _finite(self.thresholds),
            "categories": {name: _finite(each) for name, each in self.categories.items()},
            "config": json.loads(self.config.to_json()),
            "tensors": {name: list(value.shape) for name, value in flat.items()},
            "variables_sha256": sha256(content),
            "record": self.record,
            "has_part": self.part is not None,
        }
        with files.fresh_directory(Path(path)) as scratch:
            (scratch / "variables.safetensors").write_bytes(content)
            if self.part is not None:
                (scratch / parts.FILE).write_bytes(self.part.packed())
            files.write_json(scratch / "detector.json", described)
            if self.classifier:
                classifiers.save(self.classifier, scratch)
            (scratch / CARD).write_text(self.model_card(), encoding="utf-8")

    def model_card(self, metrics: Mapping[str, Any] | None = None) -> str:
        """Return the model card, with the figures of a metrics.json if given."""
        return model_card(
            config=self.config,
            geometry=self.method.geometry,
            channels=self.channels,
            thresholds=self.categories or {"": self.thresholds},
            record=self.record,
            classified=self.classifier is not None,
            metrics=metrics,
        )


def _finite(thresholds: Thresholds) -> dict[str, float | None]:
    return {
        name: value if np.isfinite(value) else None for name, value in thresholds._asdict().items()
    }

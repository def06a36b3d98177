"""The two graphs of the single inference path, by JAX, and the detector directory.

    core    traced: tiles, integers or float in [0, 1] → residual maps, reconstructions
    tail    traced, any height and width: smoothing, score, label, mask; thresholds are inputs

What is done around them is in `recon_ad.inference`. Evaluation, prediction, notebooks and every
exported graph are these. Images are [h, w, c]; maps are float32 [h, w], raw, higher is more
anomalous.

A detector directory holds `detector.json` and `variables.safetensors`: nothing in it is executed.
"""

import functools
import json
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

from recon_ad.errors import UserError
from recon_ad.inference import UNCALIBRATED, Inference, Plan, Thresholds
from recon_ad.methods import build_method
from recon_ad.methods.base import Method, Variables
from recon_ad.ops.scores import SCORES
from recon_ad.ops.smoothing import smooth
from recon_ad.runtime import files

FORMAT = 4  # of detector.json


def core(
    variables: Variables, images: Shaped[Array, "b h w c"], *, method: Method
) -> tuple[Float[Array, "b h w"], Float[Array, "b h w c"] | None]:
    """Tiles to residual maps and reconstructions; integers are scaled to [0, 1] inside."""
    if jnp.issubdtype(images.dtype, jnp.integer):
        images = images.astype(jnp.float32) / jnp.iinfo(images.dtype).max
    reconstruction = method.reconstruct(variables, images) if method.reconstruct else None
    return method.anomaly_map(variables, images), reconstruction


def tail(
    residual_map: Float[Array, "h w"],
    valid: Bool[Array, "h w"],
    thresholds: Thresholds,
    *,
    sigma: float,
    score: str,
) -> tuple[Float[Array, ""], Bool[Array, ""], Float[Array, "h w"], Bool[Array, "h w"]]:
    """Score, label, smoothed map and mask of one stitched residual map.

    Args:
      residual_map: at the image's size, or padded to any larger one.
      valid: pixels that count.
      thresholds: of images and pixels.
      sigma: of the Gaussian smoothing in px, 0 for none.
      score: a name in `ops.scores.SCORES`.
    """
    anomaly_map = smooth(residual_map, valid, sigma=sigma)
    value = SCORES[score](anomaly_map, valid)
    mask = (anomaly_map > thresholds.pixel) & valid
    return value, value > thresholds.image, anomaly_map, mask


class Detector(Inference):
    """A trained method with its thresholds: call it on images.

    Args:
      config: of the run that made it; says method, geometry and tail.
      channels: that images must have.
      variables: from the method's `finish`.
      thresholds: from calibration; infinite before it.
      record: what calibration and training have to tell, plain JSON; for reports.
    """

    def __init__(
        self,
        config: ConfigDict,
        *,
        channels: int,
        variables: Variables,
        thresholds: Thresholds = UNCALIBRATED,
        record: dict[str, Any] | None = None,
    ):
        method = build_method(config, channels=channels)
        c = config.inference
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
        super().__init__(plan, thresholds)
        self.config = config
        self.channels = channels
        self.method = method
        # On the device once, not at each call.
        self.variables = jax.device_put(variables)
        self.record = record or {}
        self.core = jax.jit(functools.partial(core, method=self.method))
        self.tail = jax.jit(functools.partial(tail, sigma=c.sigma, score=c.score))

    def with_thresholds(self, thresholds: Thresholds, record: dict[str, Any]) -> "Detector":
        """The same detector with other thresholds and record."""
        return Detector(
            self.config,
            channels=self.channels,
            variables=self.variables,
            thresholds=thresholds,
            record=record,
        )

    @property
    def calibrated_on_regions(self) -> bool:
        """See there."""
        return self.record.get("calibration", {}).get("regions_of_interest", False)

    def run_core(
        self, images: Shaped[np.ndarray, "b h w c"], *, reconstruct: bool
    ) -> tuple[Float[np.ndarray, "b h w"], Float[np.ndarray, "b h w c"] | None]:
        """See there."""
        residual, reconstruction = self.core(self.variables, images)
        wanted = reconstruct and reconstruction is not None
        return jax.device_get(residual), jax.device_get(reconstruction) if wanted else None

    def placed(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """On the device."""
        return tuple(jax.device_put(arrays))

    def run_tail(
        self, residual_map: Any, valid: Any, thresholds: Thresholds
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """See there."""
        return jax.device_get(self.tail(residual_map, valid, thresholds))

    def save(self, path: Path | str) -> None:
        """Writes the detector directory, whole or not at all."""
        flat = {
            "/".join(key): np.asarray(value)
            for key, value in traverse_util.flatten_dict(jax.device_get(self.variables)).items()
        }
        described = {
            "format": FORMAT,
            "channels": self.channels,
            # JSON has no infinity; an uncalibrated detector has none of the two.
            "thresholds": {
                name: value if np.isfinite(value) else None
                for name, value in self.thresholds._asdict().items()
            },
            "config": json.loads(self.config.to_json()),
            "tensors": {name: list(value.shape) for name, value in flat.items()},
            "record": self.record,
        }
        with files.fresh_directory(Path(path)) as scratch:
            (scratch / "variables.safetensors").write_bytes(safetensors.numpy.save(flat))
            files.write_json(scratch / "detector.json", described)


def load(path: Path | str) -> Detector:
    """Opens a detector directory.

    Raises:
      UserError: it is not one, or its files do not fit each other.
    """
    path = Path(path)
    for name in ("detector.json", "variables.safetensors"):
        if not (path / name).is_file():
            raise UserError(
                f"{path} is not a detector directory: {name} is missing. "
                "Give the folder `detector` of a finished run."
            )
    try:
        described = json.loads((path / "detector.json").read_text())
        flat = safetensors.numpy.load_file(path / "variables.safetensors")
    except (json.JSONDecodeError, UnicodeDecodeError, safetensors.SafetensorError) as error:
        raise UserError(f"the detector in {path} is damaged ({error}); copy it anew.") from None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise UserError(
            f"{path / 'detector.json'} is not in format {FORMAT}, which this version reads."
        )
    try:
        return _assembled(path, described, flat)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path / 'detector.json'} is damaged ({type(error).__name__}: {error}); copy the "
            "detector anew."
        ) from error


def _assembled(path: Path, described: dict[str, Any], flat: dict[str, np.ndarray]) -> Detector:
    shapes = {name: list(value.shape) for name, value in flat.items()}
    if shapes != described["tensors"]:
        wrong = sorted(
            name
            for name in shapes.keys() | described["tensors"].keys()
            if shapes.get(name) != described["tensors"].get(name)
        )
        raise UserError(
            f"{path / 'variables.safetensors'} does not belong to its detector.json: "
            f"{', '.join(wrong[:3])} differ or are missing."
        )
    thresholds = {
        name: np.inf if described["thresholds"][name] is None else described["thresholds"][name]
        for name in Thresholds._fields
    }
    return Detector(
        ConfigDict(described["config"]),
        channels=described["channels"],
        variables=traverse_util.unflatten_dict(
            {tuple(name.split("/")): value for name, value in flat.items()}
        ),
        thresholds=Thresholds(**thresholds),
        record=dict(described["record"]),
    )

"""The single inference path, and the detector directory.

    core    traced: tiles, integers or float in [0, 1] → residual maps, reconstructions
    stitch  NumPy: weighted average of the tiles' maps
    tail    traced, any height and width: smoothing, score, label, mask; thresholds are inputs

Evaluation, prediction, notebooks and every exported graph are these three. Images are [h, w, c];
maps are float32 [h, w], raw, higher is more anomalous. A pixel or an image is anomalous when it
scores strictly above its threshold.

A detector directory holds `detector.json` and `variables.safetensors`: nothing in it is executed.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Shaped
from ml_collections import ConfigDict
from scipy import ndimage

from recon_ad.data.arrays import as_image, given_range, resize
from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.methods.base import Method, Variables
from recon_ad.ops import tiles
from recon_ad.ops.scores import SCORES
from recon_ad.ops.smoothing import smooth
from recon_ad.runtime import files

FORMAT = 3  # of detector.json
# Maps are padded to multiples of this before the tail, so that images of many sizes share few
# compiled programs; the normalised smoothing makes the padding invisible.
MAP_MULTIPLE = 64
EIGHT_CONNECTED = np.ones((3, 3), bool)


class Thresholds(NamedTuple):
    """Score above which an image, and value above which a pixel, is anomalous."""

    image: float
    pixel: float


UNCALIBRATED = Thresholds(np.inf, np.inf)


class Prediction(NamedTuple):
    """What a detector says of one image, or, with a leading axis, of a batch.

    Attributes:
      score: raw image score.
      label: whether the score is above the image threshold.
      anomaly_map: smoothed residual map, float32 [h, w].
      mask: bool [h, w], pixels above the pixel threshold in regions of at least the minimum area.
      reconstruction: float32 [h, w, c] in [0, 1], or None for a method without one.
    """

    score: np.ndarray
    label: np.ndarray
    anomaly_map: np.ndarray
    mask: np.ndarray
    reconstruction: np.ndarray | None


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


def clean_mask(
    mask: Bool[np.ndarray, "h w"], *, opening: int, min_area: int
) -> Bool[np.ndarray, "h w"]:
    """The mask opened, then without its small regions.

    Args:
      mask: pixels above the threshold.
      opening: radius in px of the disk that has to fit where something is kept; 0: none.
      min_area: in px; 8-connected regions that are smaller are dropped.
    """
    if opening and mask.any():
        # A defect at the border goes on beyond it, or opening would round off its corners.
        around = np.pad(mask, opening, mode="edge")
        y, x = np.ogrid[-opening : opening + 1, -opening : opening + 1]
        opened = ndimage.binary_opening(around, structure=y**2 + x**2 <= opening**2)
        mask = opened[opening:-opening, opening:-opening]
    if min_area <= 1 or not mask.any():
        return mask
    labels, _ = ndimage.label(mask, structure=EIGHT_CONNECTED)
    large = np.bincount(labels.ravel()) >= min_area
    large[0] = False
    return large[labels]


def count_regions(mask: Bool[np.ndarray, "h w"]) -> int:
    """Number of 8-connected regions."""
    return int(ndimage.label(mask, structure=EIGHT_CONNECTED)[1])


def map_bucket(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width to which the tail pads maps of that size; one program each."""
    h, w = (-(-n // MAP_MULTIPLE) * MAP_MULTIPLE for n in size)
    return h, w


class Detector:
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
        self.config = config
        self.channels = channels
        # On the device once, not at each call.
        self.variables = jax.device_put(variables)
        self.thresholds = thresholds
        self.record = record or {}
        self.method = build_method(config, channels=channels)
        self.core = jax.jit(functools.partial(core, method=self.method))
        self.tail = jax.jit(
            functools.partial(tail, sigma=config.inference.sigma, score=config.inference.score)
        )
        self._weights = tiles.tile_weights(
            self.method.geometry.tile, kind=self.method.geometry.weights
        )

    def with_thresholds(self, thresholds: Thresholds, record: dict[str, Any]) -> "Detector":
        """The same detector with other thresholds and record."""
        return Detector(
            self.config,
            channels=self.channels,
            variables=self.variables,
            thresholds=thresholds,
            record=record,
        )

    def residual_map(
        self, image: Shaped[np.ndarray, "h w c"], *, reconstruct: bool = False
    ) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w c"] | None]:
        """Core and stitch: the raw residual map and, if asked for, the reconstruction.

        Raises:
          UserError: the image's number of channels is not the detector's.
        """
        if image.ndim != 3 or image.shape[2] != self.channels:
            raise UserError(
                f"the image has shape {list(image.shape)}, but this detector takes "
                f"[height, width, {self.channels}]."
            )
        geometry = self.method.geometry
        size = image.shape[:2]
        resized = resize(image, geometry.resize)
        padded = tiles.pad_to_tile(resized, tile=geometry.tile)
        corners = tiles.tile_corners(padded.shape[:2], tile=geometry.tile, stride=geometry.stride)

        stitched = tiles.stitch(
            self._run_tiles(padded, corners, reconstruct=reconstruct),
            corners,
            size=padded.shape[:2],
            weights=self._weights,
        )
        stitched = resize(stitched[: resized.shape[0], : resized.shape[1]], size)
        tiles.attenuate_border(
            stitched[..., 0],
            border=self.config.inference.border,
            weight=self.config.inference.border_weight,
        )
        return stitched[..., 0], stitched[..., 1:] if stitched.shape[2] > 1 else None

    def _run_tiles(
        self,
        image: Shaped[np.ndarray, "h w c"],
        corners: list[tuple[int, int]],
        *,
        reconstruct: bool,
    ) -> Iterator[Float[np.ndarray, "H W k"]]:
        """Each tile's residual map and, behind it, the channels of its reconstruction."""
        # Batches of one fixed size, the last filled up with zeros: one compiled program.
        batch = self.config.inference.batch_size
        tile = self.method.geometry.tile
        for first in range(0, len(corners), batch):
            part = tiles.cut(image, corners[first : first + batch], tile=tile)
            filled = np.zeros((batch, *part.shape[1:]), part.dtype)
            filled[: len(part)] = part
            residual, reconstruction = self.core(self.variables, filled)
            results = jax.device_get(residual)[..., None]
            if reconstruct and reconstruction is not None:
                results = np.concatenate([results, jax.device_get(reconstruction)], axis=-1)
            yield from results[: len(part)]

    def decide(
        self,
        residual_map: Float[np.ndarray, "h w"],
        *,
        roi: Bool[np.ndarray, "p q"] | None = None,
    ) -> Prediction:
        """Tail: score, label, smoothed map and mask of a stitched residual map.

        Args:
          residual_map: from `residual_map`.
          roi: pixels that count; others neither score nor weigh in the smoothing. None: all do.

        Raises:
          UserError: the region is of another size, or empty.
        """
        h, w = residual_map.shape
        padded, valid = tiles.pad_map(residual_map, multiple=MAP_MULTIPLE)
        if roi is not None:
            if roi.shape != (h, w) or not roi.any():
                raise UserError(
                    f"the region of interest has shape {list(roi.shape)} and "
                    f"{np.count_nonzero(roi)} pixels that count, for an image of {h} × {w}: give "
                    "bool [height, width] of the image's size."
                )
            valid[:h, :w] = roi
        thresholds = Thresholds(*(np.float32(t) for t in self.thresholds))
        # The host's copies are let go before the tail needs memory of its own.
        padded, valid = jax.device_put((padded, valid))
        score, label, smoothed, mask = jax.device_get(self.tail(padded, valid, thresholds))
        mask = self.clean(mask[:h, :w])
        return Prediction(score, label, smoothed[:h, :w], mask, None)

    def clean(self, mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """What the config's opening and minimum area leave of a mask."""
        settings = self.config.inference
        return clean_mask(mask, opening=settings.opening, min_area=settings.min_area)

    def predict(
        self,
        image: Shaped[np.ndarray, "h w c"],
        *,
        roi: Bool[np.ndarray, "p q"] | None = None,
        reconstruct: bool = True,
    ) -> Prediction:
        """One image [h, w, c] as `as_image` gives it, and which of its pixels count (`decide`)."""
        residual, reconstruction = self.residual_map(image, reconstruct=reconstruct)
        return self.decide(residual, roi=roi)._replace(reconstruction=reconstruction)

    def __call__(self, images: Any) -> Prediction:
        """Judges one image or several of one size.

        Args:
          images: [h, w], [h, w, c], [b, h, w, c], or a list of images of one size; uint8, uint16,
            or float in [0, 1], or in the config's `input_range`.

        Returns:
          A prediction; for several images each field has a leading axis.

        Raises:
          UserError: not such an array, values outside [0, 1], or the wrong number of channels.
        """
        scaled = given_range(self.config.data.input_range)
        if not _is_batch(images):
            return self.predict(as_image(images, name="the image", input_range=scaled))
        arrays = [as_image(x, name=f"image {i}", input_range=scaled) for i, x in enumerate(images)]
        if not arrays:
            raise UserError("there is no image in what the detector was given.")
        predictions = [self.predict(x) for x in arrays]
        if len({p.mask.shape for p in predictions}) != 1:
            raise UserError("the images differ in size; call the detector on each by itself.")
        return Prediction(
            *(None if x[0] is None else np.stack(x) for x in zip(*predictions, strict=True))
        )

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


def _is_batch(images: Any) -> bool:
    return isinstance(images, (list, tuple)) or np.ndim(images) == 4


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

"""The single inference path, whatever computes its two graphs; it does not use JAX.

    place   NumPy, where the detector knows its part: the image aligned, and which pixels count
    core    a graph: tiles → residual maps, reconstructions
    stitch  NumPy: weighted average of the tiles' maps
    tail    a graph: smoothing, score, label, mask; thresholds are inputs

`jax_detector` runs the graphs by JAX, `onnx_detector` by ONNX Runtime or OpenVINO; this module is
the same for all. Images are [h, w, c]; maps are float32 [h, w], raw, higher is more anomalous. A
pixel or an image is anomalous when it scores strictly above its threshold.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Shaped

from recon_ad.alignment.part import Part, Placement
from recon_ad.alignment.registration import Registration
from recon_ad.data.arrays import as_image, given_range, resize
from recon_ad.detector.normalised import normalised
from recon_ad.detector.padding import check_roi, padded_map
from recon_ad.errors import UserError
from recon_ad.ops import tiles
from recon_ad.ops.masks import clean_mask

Same = TypeVar("Same")  # a detector of the same class


class Thresholds(NamedTuple):
    """Thresholds above which the score of an image or the value of a pixel is anomalous."""

    image: float
    pixel: float

    def rounded(self) -> "Thresholds":
        """Return the thresholds in float32, as graphs compare with them."""
        return Thresholds(*(np.float32(t) for t in self))


UNCALIBRATED = Thresholds(np.inf, np.inf)


class Prediction(NamedTuple):
    """The prediction for one image, or, with a leading axis, for a batch.

    Attributes:
      score: Raw image score.
      label: Whether the score is above the image threshold and, with a classifier, the anomaly is a
        defect.
      anomaly_map: Smoothed residual map, float32 [h, w].
      mask: bool [h, w], pixels above the pixel threshold in regions of at least the minimum area,
        whatever the label: all pixel figures use it.
      reconstruction: float32 [h, w, c] in [0, 1], or None for a method without one.
      defect_probability: The classifier's calibrated probability, or None without a classifier.
      normalised_score: The score for people to read, 0 for a usual good image and 0.5 at the
        threshold, float64, or None where the detector has none; see `detector.normalised`.
      registration: The place of the part; None without alignment. Maps are in the image's frame.
    """

    score: np.ndarray
    label: np.ndarray
    anomaly_map: np.ndarray
    mask: np.ndarray
    reconstruction: np.ndarray | None
    defect_probability: np.ndarray | None = None
    normalised_score: np.ndarray | None = None
    registration: Registration | list[Registration] | None = None

    @property
    def marks(self) -> np.ndarray:
        """The mask as a verdict shows it: an image that is accepted (label False) has no marks."""
        return self.mask & np.asarray(self.label)[..., None, None]


class Plan(NamedTuple):
    """The host's work around the two graphs.

    Attributes:
      channels: Channels that images must have.
      geometry: Sizes and places of the tiles.
      batch_size: Tiles at a time, at most.
      opening: Radius in px of the disk that the mask is opened with; 0 for none.
      min_area: Area in px below which regions of the mask are dropped.
      border: Width in px along the image's border whose residual is multiplied by `border_weight`.
      border_weight: Factor for the border.
      input_range: Values that mean black and white, (0, 0) to use the type's.
    """

    channels: int
    geometry: tiles.Geometry
    batch_size: int
    opening: int
    min_area: int
    border: int
    border_weight: float
    input_range: tuple[float, float]


class Inference(ABC):
    """A method with its thresholds: call it on images. Subclasses compute core and tail.

    Args:
      plan: The host's work around the graphs.
      thresholds: Thresholds of images and pixels.
      part: Part that images are aligned to first; None judges them as they are.
      categories: Thresholds of each category, for a detector of several.
      medians: Scores of usual good images, by category, and of all under "", as far as known.
    """

    def __init__(
        self,
        plan: Plan,
        thresholds: Thresholds,
        *,
        part: Part | None = None,
        categories: Mapping[str, Thresholds] = {},
        medians: Mapping[str, float] = {},
    ):
        self.plan = plan
        self.part = part
        self.thresholds = thresholds
        self.categories = categories
        self.medians, self.median = medians, medians.get("")
        self.category = ""  # that `of_category` chose
        self._weights = tiles.tile_weights(plan.geometry.tile, kind=plan.geometry.weights)

    @property
    @abstractmethod
    def calibrated_on_regions(self) -> bool:
        """True if the thresholds are of regions of interest only."""

    @property
    def seen(self) -> frozenset[str]:
        """The digests of the images that it learnt from or was calibrated with, as far as known."""
        return frozenset()

    @property
    def promise(self) -> tuple[float, float] | None:
        """The promised false-positive rate and the independent units behind it, where known."""
        return None

    @abstractmethod
    def run_core(
        self, images: Shaped[np.ndarray, "b h w c"], *, reconstruct: bool
    ) -> tuple[Float[np.ndarray, "b h w"], Float[np.ndarray, "b h w c"] | None]:
        """Return residual maps of tiles and, if requested and available, reconstructions."""

    @abstractmethod
    def run_tail(
        self, residual_map: Any, valid: Any, thresholds: Thresholds
    ) -> tuple[np.ndarray, ...]:
        """Return score, label, smoothed map and mask of a padded map [h, w] from `to_device`.

        A classifier adds the probability of a defect.
        """

    def of_known(self: Same, category: str) -> Same:
        """Return the detector for a category, or unchanged where it has no thresholds for it."""
        return self.of_category(category) if category in self.categories else self

    def of_category(self: Same, category: str) -> Same:
        """Return the same detector with the thresholds of a category.

        The general thresholds are those of images of all categories together.

        Raises:
          UserError: If the detector has no thresholds of that category.
        """
        if category not in self.categories:
            known = ", ".join(self.categories)
            raise UserError(
                f'the detector has no thresholds for a category "{category}": '
                + (f"choose one of {known}." if known else "it was calibrated on one alone.")
            )
        chosen = copy.copy(self)
        chosen.thresholds = self.categories[category]
        chosen.category = category
        chosen.median = self.medians.get(category)
        return chosen

    def to_device(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """Return the arrays in the form that the tail takes."""
        return arrays

    def residual_map(
        self, image: Shaped[np.ndarray, "h w c"], *, reconstruct: bool = False
    ) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w c"] | None]:
        """Run core and stitch; return the raw residual map and, if requested, the reconstruction.

        Raises:
          UserError: If the image's number of channels is not the detector's.
        """
        geometry = self.plan.geometry
        padded = self.prepared(image)
        corners = tiles.tile_corners(padded.shape[:2], tile=geometry.tile, stride=geometry.stride)

        stitched = tiles.stitch(
            self._run_tiles(padded, corners, reconstruct=reconstruct),
            corners,
            size=padded.shape[:2],
            weights=self._weights,
        )
        # Remove mirrored pixels, if any; then resize back to the image's own size.
        h, w = tiles.resized_size(image.shape[:2], geometry.resize)
        stitched = resize(stitched[:h, :w], image.shape[:2])
        self.attenuate(stitched[..., 0])
        return stitched[..., 0], stitched[..., 1:] if stitched.shape[2] > 1 else None

    def prepared(self, image: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "H W c"]:
        """Return the image resized, if configured, and at least as large as a tile.

        Raises:
          UserError: If its number of channels is not the detector's.
        """
        if image.ndim != 3 or image.shape[2] != self.plan.channels:
            raise UserError(
                f"the image has shape {list(image.shape)}, but this detector takes "
                f"[height, width, {self.plan.channels}]."
            )
        geometry = self.plan.geometry
        size = tiles.resized_size(image.shape[:2], geometry.resize)
        return tiles.pad_to_tile(resize(image, size), tile=geometry.tile)

    def attenuate(self, residual_map: Float[np.ndarray, "h w"]) -> None:
        """Multiply the pixels near the image's border, in place, by the border's weight."""
        tiles.attenuate_border(
            residual_map, border=self.plan.border, weight=self.plan.border_weight
        )

    def _run_tiles(
        self,
        image: Shaped[np.ndarray, "h w c"],
        corners: list[tuple[int, int]],
        *,
        reconstruct: bool,
    ) -> Iterator[Float[np.ndarray, "H W k"]]:
        """Yield each tile's residual map and, behind it, the channels of its reconstruction."""
        for part, size in tiles.split(len(corners), self.batch_for):
            cut = tiles.cut(image, corners[part], tile=self.plan.geometry.tile)
            residual, reconstruction = self.run_filled(cut, size=size, reconstruct=reconstruct)
            results = residual[..., None]
            if reconstruction is not None:
                results = np.concatenate([results, reconstruction], axis=-1)
            yield from results

    def batch_for(self, count: int) -> int:
        """Return the size of the batch that takes the next of `count` tiles."""
        return tiles.batch_for(count, limit=self.plan.batch_size)

    def run_filled(
        self, images: Shaped[np.ndarray, "b h w c"], *, size: int, reconstruct: bool
    ) -> tuple[Float[np.ndarray, "b h w"], Float[np.ndarray, "b h w c"] | None]:
        """Run the core on a batch of that size: the tiles and, behind them, zeros."""
        count = len(images)
        if count < size:
            filled = np.zeros((size, *images.shape[1:]), images.dtype)
            filled[:count] = images
            images = filled
        residual, reconstruction = self.run_core(images, reconstruct=reconstruct)
        return residual[:count], None if reconstruction is None else reconstruction[:count]

    def raw(
        self, residual_map: Float[np.ndarray, "h w"], *, roi: Bool[np.ndarray, "p q"] | None = None
    ) -> Prediction:
        """Run the tail and return its outputs: the mask is not cleaned. See `decide`."""
        h, w = residual_map.shape
        padded, valid = padded_map(residual_map, roi)
        # The host's copies are freed before the tail needs memory.
        padded, valid = self.to_device(padded, valid)
        tail = self.run_tail(padded, valid, self.thresholds.rounded())
        score, label, smoothed, mask, *probability = tail
        made = Prediction(score, label, smoothed[:h, :w], mask[:h, :w], None, *probability)
        return made._replace(normalised_score=self.normalised(score))

    def normalised(self, score: Any) -> np.ndarray | None:
        """Return raw scores on the scale for people, or None; see `detector.normalised`."""
        return normalised(score, median=self.median, threshold=float(self.thresholds.image))

    def decide(
        self, residual_map: Float[np.ndarray, "h w"], *, roi: Bool[np.ndarray, "p q"] | None = None
    ) -> Prediction:
        """Run the tail; return score, label, smoothed map and mask of a stitched residual map.

        Args:
          residual_map: Map from `residual_map`.
          roi: Pixels that count; others neither score nor weigh in the smoothing. None means all.

        Raises:
          UserError: If the region has another size, or is empty.
        """
        prediction = self.raw(residual_map, roi=roi)
        return prediction._replace(mask=self.clean(prediction.mask))

    def clean(self, mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """Return a mask after opening and removal of small regions."""
        return clean_mask(mask, opening=self.plan.opening, min_area=self.plan.min_area)

    def predict(
        self,
        image: Shaped[np.ndarray, "h w c"],
        *,
        roi: Bool[np.ndarray, "p q"] | None = None,
        reconstruct: bool = True,
    ) -> Prediction:
        """Judge one image [h, w, c] from `as_image`; only pixels of `roi` count (`decide`).

        Raises:
          NotRegistered: If the part is not found in it.
          UserError: If it does not fit the detector.
        """
        placement, _, prediction = self.predict_aligned(image, roi=roi, reconstruct=reconstruct)
        return back(prediction, placement)

    def predict_aligned(
        self,
        image: Shaped[np.ndarray, "h w c"],
        *,
        roi: Bool[np.ndarray, "p q"] | None,
        reconstruct: bool,
    ) -> tuple[Placement, np.ndarray, Prediction]:
        """Judge an image as `predict` does, in the frame in which it is judged.

        Returns that frame, the raw residual map and the prediction, which `back` moves to the
        image.
        """
        placement = self.align(image, roi=roi)
        residual, reconstruction = self.residual_map(placement.image, reconstruct=reconstruct)
        prediction = self.decide(residual, roi=placement.valid)
        return placement, residual, prediction._replace(reconstruction=reconstruction)

    def align(
        self, image: Shaped[np.ndarray, "h w c"], *, roi: Bool[np.ndarray, "p q"] | None = None
    ) -> Placement:
        """Return the image as the core gets it: aligned, where the detector knows its part.

        Raises:
          NotRegistered: If the part is not found in it.
          UserError: If the region of interest has another size.
        """
        shape = (image.shape[0], image.shape[1])
        if self.part is None:
            return Placement(image, roi, None, shape, fill=False)
        if roi is not None:
            check_roi(roi, shape)
        return self.part.align(image, roi=roi)

    def __call__(self, images: Any) -> Prediction:
        """Judge one image or several of one size.

        Args:
          images: [h, w], [h, w, c], [b, h, w, c], or a list of images of one size; uint8, uint16,
            or float in [0, 1], or in the config's `input_range`.

        Returns:
          A prediction; for several images each field has a leading axis, or is a list.

        Raises:
          UserError: If it is no such array, values are outside [0, 1], or the channels are wrong.
        """
        scaled = given_range(self.plan.input_range)
        if not _is_batch(images):
            return self.predict(as_image(images, name="the image", input_range=scaled))
        arrays = [as_image(x, name=f"image {i}", input_range=scaled) for i, x in enumerate(images)]
        if not arrays:
            raise UserError("the detector was given no image.")
        predictions = [self.predict(x) for x in arrays]
        if len({p.mask.shape for p in predictions}) != 1:
            raise UserError("the images differ in size; call the detector on each by itself.")
        fields = zip(*(p[:-1] for p in predictions), strict=True)
        found = [p.registration for p in predictions]
        return Prediction(
            *(None if x[0] is None else np.stack(x) for x in fields),
            None if found[0] is None else found,
        )


def back(prediction: Prediction, placement: Placement) -> Prediction:
    """Return the prediction for the aligned image in the frame of the image itself."""
    reconstruction = prediction.reconstruction
    return prediction._replace(
        anomaly_map=placement.map_back(prediction.anomaly_map),
        mask=placement.mask_back(prediction.mask),
        reconstruction=None if reconstruction is None else placement.image_back(reconstruction),
        registration=placement.registration,
    )


def _is_batch(images: Any) -> bool:
    return isinstance(images, (list, tuple)) or np.ndim(images) == 4

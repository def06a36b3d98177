"""A detector's two graphs as ONNX models, traced from its own core and tail.

    core    tiles [b, h, w, c] → residual_map [b, h, w], reconstruction [b, h, w, c]
    tail    residual_map [h, w], valid [h, w], thresholds → score, label, anomaly_map, mask
    whole   images [b, h, w, c] → score, label, anomaly_map, mask, reconstruction, residual_map

The third is for images that are one tile: core and tail in one graph, with the thresholds in it. It
decides on images of the tile's size; where larger ones were resized to it, a detector decides at
their own size, by the residual map and the tail. Opening and minimum area are no part of any graph:
masks are raw.

What whoever runs a graph has to know stands in its metadata, as plain words under names that begin
with "recon_ad_" (`PREFIX`): `recon_ad.deployed` reads them, and so does the application in C++.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir
from jax2onnx import to_onnx
from jaxtyping import Array, Float, Shaped
from onnx_ir.passes import common as passes

from recon_ad.deployed import FORMAT, OUTPUTS, PREFIX
from recon_ad.detector import Detector, core, tail
from recon_ad.errors import UserError
from recon_ad.inference import Thresholds
from recon_ad.ops.conv import portable
from recon_ad.runtime import provenance

# It warns of types that it then leaves out, on which nothing here depends.
logging.getLogger("onnx_ir").setLevel(logging.ERROR)

OPSETS = range(18, 24)  # before, reductions had their axes elsewhere
MAPS = ("anomaly_map", "mask")
# No licence but the project's own: all weights that there are were learnt from the user's images.
LICENCE = "the user's own: learnt from the user's images"


def is_whole(detector: Detector) -> bool:
    """Whether images are resized to one tile, so that one graph can do everything."""
    geometry = detector.plan.geometry
    return geometry.resize == geometry.tile


def core_model(
    detector: Detector, *, dtype: np.dtype, batch: int | str, opset: int, nchw: bool
) -> onnx.ModelProto:
    """The core as a graph; where an image is one tile, core and tail.

    Args:
      detector: calibrated.
      dtype: of the images: uint8, uint16, or float32 in [0, 1].
      batch: how many there are, or a name where that is left open.
      opset: of ONNX, one of `OPSETS`.
      nchw: whether images and reconstructions are [b, c, h, w].
    """
    channels = detector.channels
    size = (*detector.plan.geometry.tile, channels)
    variables = jax.device_get(detector.variables)

    def of_tiles(images: Shaped[Array, "b h w c"]) -> tuple[Array, ...]:
        residual, reconstruction = core(variables, images, method=detector.method)
        return (residual,) if reconstruction is None else (residual, reconstruction)

    def of_images(images: Shaped[Array, "b h w c"]) -> tuple[Array, ...]:
        residual, *reconstruction = of_tiles(images)
        decided = jax.vmap(lambda r: _tail(detector, r, jnp.ones(r.shape, bool), _baked(detector)))
        weighted = residual * jnp.asarray(_border_weights(detector))
        return (*decided(weighted), *reconstruction, residual)

    whole = is_whole(detector)
    has_reconstruction = detector.method.reconstruct is not None
    names = [
        name
        for name in OUTPUTS["whole" if whole else "core"]
        if has_reconstruction or name != "reconstruction"
    ]
    shape = _shape(batch, *size)
    return _traced(
        of_images if whole else of_tiles,
        [jax.ShapeDtypeStruct(shape, dtype)],
        inputs=["images"],
        outputs=names,
        opset=opset,
        channels_first=(["images"], ["reconstruction"]) if nchw else ([], []),
    )


def tail_model(detector: Detector, *, opset: int) -> onnx.ModelProto:
    """The tail as a graph, for maps of any height and width."""

    def decide(residual: Array, valid: Array, image: Array, pixel: Array) -> tuple[Array, ...]:
        return _tail(detector, residual, valid, Thresholds(image, pixel))

    shape = _shape("h", "w")
    number = jax.ShapeDtypeStruct((), np.float32)
    return _traced(
        decide,
        [jax.ShapeDtypeStruct(shape, t) for t in (np.float32, np.bool_)] + [number, number],
        inputs=["residual_map", "valid", "image_threshold", "pixel_threshold"],
        outputs=OUTPUTS["tail"],
        opset=opset,
    )


def _tail(detector: Detector, residual: Array, valid: Array, thresholds: Thresholds):
    settings = detector.config.inference
    return tail(residual, valid, thresholds, sigma=settings.sigma, score=settings.score)


def _baked(detector: Detector) -> Thresholds:
    return Thresholds(*(np.float32(t) for t in detector.thresholds))


def _border_weights(detector: Detector) -> Float[np.ndarray, "1 h w"]:
    weights = np.ones(detector.plan.geometry.tile, np.float32)
    detector.attenuate(weights)
    return weights[None]


def _shape(*sides: int | str) -> tuple[Any, ...]:
    """With names as dimensions that are left open."""
    return jax.export.symbolic_shape(", ".join(map(str, sides)))


def _traced(
    function: Callable[..., tuple[Array, ...]],
    specs: Sequence[jax.ShapeDtypeStruct],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
    channels_first: tuple[Sequence[str], Sequence[str]] = ([], []),
) -> onnx.ModelProto:
    if opset not in OPSETS:
        raise UserError(f"--opset {opset}: choose one from {OPSETS[0]} to {OPSETS[-1]}.")
    with portable():
        model = to_onnx(
            function,
            inputs=specs,
            model_name="recon_ad",
            opset=opset,
            return_mode="ir",
            input_names=list(inputs),
            output_names=list(outputs),
            inputs_as_nchw=[inputs.index(name) for name in channels_first[0]],
            outputs_as_nchw=[outputs.index(n) for n in channels_first[1] if n in outputs],
        )
    # XLA would see that map and reconstruction ask for the same network; ONNX has to be told.
    onnx_ir.passes.Sequential(
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    )(model)
    proto = onnx_ir.to_proto(model)
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def described(
    detector: Detector, *, kind: str, dtype: np.dtype, batch: int | str, nchw: bool
) -> dict[str, str]:
    """The metadata of a graph, without `PREFIX`; `pair` is added by `paired`.

    Args:
      detector: as `core_model` takes it.
      kind: "core", "whole" or "tail".
      dtype: see `core_model`, as the others.
      batch: see there.
      nchw: see there.
    """
    plan, settings = detector.plan, detector.config.inference
    geometry = plan.geometry
    config = json.dumps(json.loads(detector.config.to_json()), sort_keys=True)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "version": provenance.versions()["recon_ad"],
        "method": detector.config.method.name,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "image_threshold": float(np.float32(detector.thresholds.image)),
        "pixel_threshold": float(np.float32(detector.thresholds.pixel)),
        "channels": plan.channels,
        "channel_order": {1: "gray", 3: "RGB"}.get(plan.channels, "as in the files"),
        "layout": "NCHW" if nchw else "NHWC",
        "dtype": np.dtype(dtype).name,
        "input_range": plan.input_range,
        "tile": geometry.tile,
        "stride": geometry.stride,
        "tile_weights": geometry.weights,
        "resize": geometry.resize or (0, 0),
        "batch_size": plan.batch_size if isinstance(batch, str) else batch,
        "border": plan.border,
        "border_weight": plan.border_weight,
        "smoothing_sigma": settings.sigma,
        "score": settings.score,
        "opening": plan.opening,
        "min_area": plan.min_area,
        "regions_of_interest": detector.calibrated_on_regions,
        "licence": LICENCE,
    }
    return {name: _word(value) for name, value in facts.items()}


def _word(value: Any) -> str:
    return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def paired(models: Sequence[tuple[onnx.ModelProto, dict[str, str]]]) -> list[bytes]:
    """The models as files, with their metadata, each of which names the set that it belongs to."""
    digest = hashlib.sha256()
    for model, facts in models:
        digest.update(model.SerializeToString(deterministic=True))
        digest.update(json.dumps(facts, sort_keys=True).encode())
    contents = []
    for model, facts in models:
        onnx.helper.set_model_props(
            model, {PREFIX + k: v for k, v in {**facts, "pair": digest.hexdigest()}.items()}
        )
        contents.append(model.SerializeToString(deterministic=True))
    return contents

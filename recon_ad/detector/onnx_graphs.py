"""A detector's two graphs as ONNX models, traced from its own core and tail.

    core    tiles [b, h, w, c] → residual_map [b, h, w], reconstruction [b, h, w, c]
    tail    residual_map [h, w], valid [h, w], thresholds → score, label, anomaly_map, mask
    whole   images [b, h, w, c] → score, label, anomaly_map, mask, reconstruction, residual_map

Where the detector has a classifier, the last two give defect_probability too, at the end. The third
is for images that are one tile: core and tail in one graph, with the thresholds in it. It decides
on images of the tile's size; where larger ones were resized to it, a detector decides at their own
size, by the residual map and the tail. Opening and minimum area are not part of any graph: masks
are raw.

The metadata hold everything else that running a graph takes, as plain words under names that begin
with "recon_ad_" (`PREFIX`): `onnx_detector` reads them, and so does the application in C++.
"""

import errno
import functools
import hashlib
import importlib
import json
import logging
import os
import pkgutil
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir
from jax2onnx import to_onnx
from jax2onnx.plugins import plugin_system
from jaxtyping import Array, Float, Shaped
from onnx_ir.passes import common as passes

from recon_ad.detector.classifier import Network, judge
from recon_ad.detector.history import history_facts
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector, core, tail
from recon_ad.detector.normalised import median_facts
from recon_ad.detector.onnx_detector import FORMAT, OUTPUTS, PROBABILITY
from recon_ad.detector.runtimes import FATAL, PREFIX, onnx_runtime
from recon_ad.errors import UserError
from recon_ad.ops.platforms import for_other_runtimes
from recon_ad.runtime import provenance
from recon_ad.runtime.files import sha256

# It warns about types that it leaves out, which are not used here.
logging.getLogger("onnx_ir").setLevel(logging.ERROR)

# The plugins that the project's networks need. All of them, with those for Equinox and NNX and with
# examples, would take seconds and 160 MiB more.
PLUGINS = ("jax2onnx.plugins.jax", "jax2onnx.plugins.flax.linen")
OPSETS = range(18, 24)  # before, reductions had their axes elsewhere
LICENCE = "the user's own: learnt from the user's images"  # of all but pretrained weights


class Options(NamedTuple):
    """The form of the graphs.

    Attributes:
      dtype: Type of the images: uint8, uint16, or float32 in [0, 1].
      batch: Number of images, or None where that is left open.
      opset: Opset of ONNX, one of `OPSETS`.
      nchw: Whether images and reconstructions are [b, c, h, w].
    """

    dtype: np.dtype
    batch: int | None
    opset: int
    nchw: bool


def models(detector: Detector, options: Options) -> tuple[bytes, bytes]:
    """Return M.onnx and M.tail.onnx of a calibrated detector.

    Raises:
      UserError: If the opset is not supported.
    """
    if options.opset not in OPSETS:
        raise UserError(f"--opset {options.opset}: choose one from {OPSETS[0]} to {OPSETS[-1]}.")
    kind = "whole" if is_whole(detector) else "core"
    made = (
        (core_model(detector, options), described(detector, options, kind=kind)),
        (tail_model(detector, options), described(detector, options, kind="tail")),
    )
    digest = hashlib.sha256()
    for model, facts in made:
        digest.update(model.SerializeToString(deterministic=True))
        digest.update(json.dumps(facts, sort_keys=True).encode())
    for model, facts in made:
        named = {PREFIX + k: v for k, v in {**facts, "pair": digest.hexdigest()}.items()}
        onnx.helper.set_model_props(model, named)
    core_file, tail_file = (model.SerializeToString(deterministic=True) for model, _ in made)
    return core_file, tail_file


def is_whole(detector: Detector) -> bool:
    """Return whether images are resized to one tile, so that one graph can do everything."""
    geometry = detector.plan.geometry
    # Only some pixels of an aligned image count, and the graph does not know which.
    return geometry.resize == geometry.tile and detector.part is None


def core_model(detector: Detector, options: Options) -> onnx.ModelProto:
    """Return the core as a graph; where an image is one tile, core and tail."""
    size = (*detector.plan.geometry.tile, detector.channels)
    variables = jax.device_get(detector.variables)

    def of_tiles(images: Shaped[Array, "b h w c"]) -> tuple[Array, ...]:
        residual, reconstruction = core(variables, images, method=detector.method)
        return (residual,) if reconstruction is None else (residual, reconstruction)

    thresholds, network = detector.thresholds.rounded(), _network(detector)

    def of_images(images: Shaped[Array, "b h w c"]) -> tuple[Array, ...]:
        residual, *reconstruction = of_tiles(images)
        decided = jax.vmap(lambda r: _tail(detector, r, jnp.ones(r.shape, bool), thresholds, None))
        weighted = residual * jnp.asarray(_border_weights(detector))
        score, label, smoothed, mask = decided(weighted)
        if network is None:
            return (score, label, smoothed, mask, *reconstruction, residual)
        # Not under vmap, which the exporter does not support in linen's layers.
        is_defect, probability = judge(network, smoothed, jnp.ones(smoothed.shape, bool))
        return (score, label & is_defect, smoothed, mask, *reconstruction, residual, probability)

    whole = is_whole(detector)
    has_reconstruction = detector.method.reconstruct is not None
    names = [
        name
        for name in OUTPUTS["whole" if whole else "core"]
        if has_reconstruction or name != "reconstruction"
    ]
    if whole and detector.classifier:
        names.append(PROBABILITY)
    shape = _shape(options.batch or "b", *size)
    return _traced(
        of_images if whole else of_tiles,
        [jax.ShapeDtypeStruct(shape, options.dtype)],
        inputs=["images"],
        outputs=names,
        options=options,
    )


def tail_model(detector: Detector, options: Options) -> onnx.ModelProto:
    """Return the tail as a graph, for maps of any height and width."""
    network = _network(detector)

    def decide(residual: Array, valid: Array, image: Array, pixel: Array) -> tuple[Array, ...]:
        return _tail(detector, residual, valid, Thresholds(image, pixel), network)

    shape = _shape("h", "w")
    number = jax.ShapeDtypeStruct((), np.float32)
    return _traced(
        decide,
        [jax.ShapeDtypeStruct(shape, t) for t in (np.float32, np.bool_)] + [number, number],
        inputs=["residual_map", "valid", "image_threshold", "pixel_threshold"],
        outputs=(*OUTPUTS["tail"], *[PROBABILITY] * bool(detector.classifier)),
        options=options,
    )


def _network(detector: Detector) -> Network | None:
    return jax.device_get(detector.classifier.network) if detector.classifier else None


def _tail(
    detector: Detector,
    residual: Array,
    valid: Array,
    thresholds: Thresholds,
    network: Network | None,
) -> tuple[Array, ...]:
    settings = detector.config.inference
    return tail(residual, valid, thresholds, network, sigma=settings.sigma, score=settings.score)


def _border_weights(detector: Detector) -> Float[np.ndarray, "1 h w"]:
    weights = np.ones(detector.plan.geometry.tile, np.float32)
    detector.attenuate(weights)
    return weights[None]


def _shape(*sides: int | str) -> tuple[Any, ...]:
    """Return a shape with names for the dimensions that are left open."""
    return jax.export.symbolic_shape(", ".join(map(str, sides)))


def _traced(
    function: Callable[..., tuple[Array, ...]],
    specs: Sequence[jax.ShapeDtypeStruct],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: Options,
) -> onnx.ModelProto:
    def swapped(names: Sequence[str]) -> list[int]:
        return [
            i for i, n in enumerate(names) if options.nchw and n in ("images", "reconstruction")
        ]

    # Functions of jax.numpy that are jits themselves are traced by their content: jax2onnx 0.17
    # cannot read a jit of JAX 0.12. Its own programs stay compiled: one by one their operations
    # would take 250 MiB.
    def flat(*arguments: Array) -> tuple[Array, ...]:
        with jax.disable_jit():
            return function(*arguments)

    _register_plugins()
    with for_other_runtimes():
        model = to_onnx(
            flat,
            inputs=specs,
            model_name="recon_ad",
            opset=options.opset,
            return_mode="ir",
            input_names=list(inputs),
            output_names=list(outputs),
            inputs_as_nchw=swapped(inputs),
            outputs_as_nchw=swapped(outputs),
        )
    # XLA would merge the two passes of the network; ONNX needs it done here.
    onnx_ir.passes.Sequential(
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    )(model)
    proto = onnx_ir.to_proto(model)
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    proto = _simplified(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _simplified(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Apply ONNX Runtime's basic optimizations, whose result is standard ONNX again.

    They remove transpositions around each convolution, which took half of OpenVINO's time for nine
    tiles of the CAE.

    Raises:
      OSError: If the disk of temporary files is full.
      ValueError: If the result is not standard ONNX.
    """
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(proto, before)
        options.optimized_model_filepath = str(after)
        try:
            onnxruntime.InferenceSession(before, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a full disk has no exception class here
            if shutil.disk_usage(folder).free >= before.stat().st_size:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(after)) from error
        found = onnx.load(after)
    if foreign := {node.domain for node in found.graph.node} - {""}:
        raise ValueError(f"ONNX Runtime wrote operations of {', '.join(sorted(foreign))}.")
    # It lists all domains that it knows.
    kept = [opset for opset in found.opset_import if opset.domain == ""]
    del found.opset_import[:]
    found.opset_import.extend(kept)
    return found


@functools.cache
def _register_plugins() -> None:
    """Import `PLUGINS`, which register themselves, and tell jax2onnx that this is done."""
    for name in PLUGINS:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, prefix=f"{name}."):
            importlib.import_module(module.name)
    plugin_system._already_imported_plugins = True  # its own switch; it has no public one


def described(detector: Detector, options: Options, *, kind: str) -> dict[str, str]:
    """Return the metadata of a graph of that kind, without `PREFIX`; `models` adds `pair`."""
    plan, settings = detector.plan, detector.config.inference
    geometry = plan.geometry
    thresholds = detector.thresholds.rounded()
    classifier = detector.classifier
    encoders = [detector.record, classifier.record if classifier else {}]
    origin = "; ".join(
        f"{pretrained['encoder']}: {pretrained['licence']}"
        for pretrained in (record.get("pretrained", {}) for record in encoders)
        if "licence" in pretrained
    )
    config = json.dumps(json.loads(detector.config.to_json()), sort_keys=True)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "version": provenance.versions()["recon_ad"],
        "method": detector.config.method.name,
        "config_sha256": sha256(config.encode()),
        "categories": categories_word(detector.categories),
        "image_threshold": float(thresholds.image),
        "pixel_threshold": float(thresholds.pixel),
        **median_facts(detector.median, detector.medians, categories=detector.categories),
        "channels": plan.channels,
        "channel_order": {1: "gray", 3: "RGB"}.get(plan.channels, "as in the files"),
        "layout": "NCHW" if options.nchw else "NHWC",
        "dtype": options.dtype.name,
        "input_range": plan.input_range,
        "tile": geometry.tile,
        "stride": geometry.stride,
        "tile_weights": geometry.weights,
        "resize": geometry.resize or (0, 0),
        "batch_size": options.batch or plan.batch_size,
        "border": plan.border,
        "border_weight": plan.border_weight,
        "smoothing_sigma": settings.sigma,
        "score": settings.score,
        "opening": plan.opening,
        "min_area": plan.min_area,
        "regions_of_interest": detector.calibrated_on_regions,
        "part_sha256": "" if detector.part is None else sha256(detector.part.packed()),
        "classifier": classifier.network.spec.features if classifier else "none",
        "classifier_threshold": classifier.threshold if classifier else "none",
        "licence": f"{LICENCE}; {origin}" if origin else LICENCE,
    }
    if kind != "tail":
        facts |= history_facts(detector)
    return {name: _word(value) for name, value in facts.items()}


def categories_word(categories: Mapping[str, Thresholds]) -> str:
    """Return thresholds by category as name=image,pixel;… with names as in a URL."""
    return ";".join(
        f"{quote(name, safe='')}={','.join(repr(float(x)) for x in each.rounded())}"
        for name, each in categories.items()
    )


def _word(value: Any) -> str:
    return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)

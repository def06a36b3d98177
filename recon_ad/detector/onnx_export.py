"""Export of a detector to ONNX files, kept only where they decide as it does.

M.onnx is the core, M.tail.onnx the tail, M.parity.json the comparison, M.part.safetensors the part
where images are aligned.
"""

import functools
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from recon_ad.alignment.part import NotRegistered, Part
from recon_ad.data import Record, Source
from recon_ad.data.build import build_source
from recon_ad.data.source import roi_of, spread
from recon_ad.detector.bounds import check_calibrated
from recon_ad.detector.image_files import decoded, inputs
from recon_ad.detector.jax_detector import Detector
from recon_ad.errors import UserError
from recon_ad.runtime import files, memory, provenance

PACKAGES = ("jax2onnx", "onnx", "onnxruntime")  # of the extra

INSTALL = 'pip install -e ".[export]"'

OPSET = 18  # the opset that all current runtimes take

IMAGES, SIDE = 16, 1024  # most images that are compared, and px of each side, cut from the middle


logger = logging.getLogger("recon_ad")


def missing() -> list[str]:
    """Return the packages that an export needs and that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def export(
    detector: Detector,
    output: Path,
    images: Sequence[Shaped[np.ndarray, "_ _ c"]],
    *,
    opset: int = OPSET,
    batch: int | None = None,
    layout: str = "nhwc",
    dtype: str = "",
) -> dict[str, Any]:
    """Write the files and return the content of M.parity.json; models are kept if `passed`.

    Args:
      detector: Calibrated detector.
      output: Path of M.onnx.
      images: Real images for the comparison; aligned, if the detector aligns.
      opset: Opset of ONNX.
      batch: Number of tiles at a time; None allows any.
      layout: "nhwc" or "nchw", of images and reconstructions.
      dtype: Type of the images, one of `onnx_detector.DTYPES`; "" uses the type of the given
        images, where all have one.

    Raises:
      UserError: If packages are missing, or the arguments do not fit the detector.
    """
    if absent := missing():
        raise UserError(f"to export, install {', '.join(absent)}: {INSTALL}.")
    from recon_ad.detector import onnx_detector, onnx_graphs, parity, runtimes

    if output.suffix != ".onnx":
        raise UserError(f"--output {output}: give a name that ends in .onnx.")
    check_calibrated(detector.thresholds)
    chosen = np.dtype(dtype or _common_dtype(detector, images))
    if detector.plan.geometry.resize and chosen != np.float32:
        raise UserError(
            f"--dtype {chosen}: this detector resizes its images, which makes them float32."
        )
    memory.give_back()  # tracing and comparing need memory
    # The runtimes multiply in float32; `parity` allows for the detector's own type.
    core, tail = onnx_graphs.models(
        detector.in_float32(), onnx_graphs.Options(chosen, batch, opset, nchw=layout == "nchw")
    )
    memory.give_back()
    graph = runtimes.OnnxRuntimeGraph
    exported = onnx_detector.OnnxDetector(
        graph(core), graph(tail), name=str(output), part=detector.part
    )
    result = parity.compare(
        detector,
        exported,
        images,
        batches=parity.BATCHES if batch is None else (batch,),
    )
    result |= {
        "onnx": provenance.versions_of(*PACKAGES),
        "opset": opset,
        "metadata": dict(exported.facts),
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
    }
    if result["passed"]:
        # The tail first, so that a core always has its tail.
        if detector.part is not None:
            files.write_bytes(onnx_detector.part_path(output), detector.part.packed())
        else:
            onnx_detector.part_path(output).unlink(missing_ok=True)
        files.write_bytes(onnx_detector.tail_path(output), tail)
        files.write_bytes(output, core)
    else:  # an earlier export must not pass for this one
        for stale in (output, onnx_detector.tail_path(output), onnx_detector.part_path(output)):
            stale.unlink(missing_ok=True)
    files.write_json(output.with_suffix(".parity.json"), result)
    return result


def _common_dtype(detector: Detector, images: Sequence[np.ndarray]) -> str:
    kinds = {image.dtype.name for image in images}
    if detector.plan.geometry.resize or len(kinds) > 1:
        return "float32"
    return kinds.pop()


def comparison_images(
    records: Sequence[Record], *, part: Part | None
) -> list[Shaped[np.ndarray, "_ _ c"]]:
    """Return images spread over all, aligned if there is a part.

    Of large images the middle is taken, as a comparison holds several at once.
    """
    images = []
    for record in spread(records, IMAGES):
        image = record.load()
        if part is not None:
            try:
                image = part.align(image, roi=roi_of(record)).image
            except NotRegistered:  # it has no score to compare
                continue
        top, left = (max(0, n - SIDE) // 2 for n in image.shape[:2])
        images.append(image[top : top + SIDE, left : left + SIDE].copy())
    if not images:
        raise UserError(
            "the part is found in none of the images to compare the exported model on: give others "
            "with --data FOLDER."
        )
    return images


def export_run(detector: Detector, source: Source, workdir: Path) -> str:
    """Export a run's detector to its model.onnx; return "", or in a sentence why that failed."""
    if absent := missing():
        return f"not exported, as {', '.join(absent)} are not installed: {INSTALL}"
    result = export(
        detector,
        workdir / "model.onnx",
        comparison_images(source.test or source.train, part=detector.part),
    )
    if result["passed"]:
        return ""
    return f"the exported model did not decide as the detector does: {worst(result)}"


def warn_of_outdated_files(detector: Path) -> None:
    """Warn, after a detector has changed, of its run's files that describe the old one."""
    run = detector.absolute().parent
    found = [file for file in (run / "metrics.json", run / "model.onnx") if file.is_file()]
    named = f" ({', '.join(map(str, found))})" if found else ""
    logger.warning(
        "figures and exported models from before this change are out of date%s: evaluate and "
        "export the detector again", named,
    )  # fmt: skip


def own_images(detector: Detector) -> list[Shaped[np.ndarray, "_ _ c"]]:
    """Return images of the detector's own data: test images, or else good ones.

    Raises:
      UserError: If they are not found.
    """
    try:
        source = build_source(detector.config)
    except UserError as error:
        raise UserError(
            f"the images that the detector was made with cannot be read ({error}): give others to "
            "compare on with --data FOLDER."
        ) from None
    return comparison_images(source.test or source.train, part=detector.part)


def folder_images(folder: Path, detector: Detector) -> list[Shaped[np.ndarray, "_ _ c"]]:
    """Return images for the comparison, of a folder or of one file."""
    found = inputs(folder, output=folder / "overlays")
    records = [Record(f.name, functools.partial(decoded, detector, f)) for f in found]
    return comparison_images(records, part=detector.part)


def worst(result: dict[str, Any]) -> str:
    """Return a description of what did not pass."""
    parts = []
    for group, outputs in result["groups"].items():
        for name, found in outputs.items():
            if found["passed"]:
                continue
            if "differ" in found:
                parts.append(f"{name} ({group}) in {found['differ']} of {found['compared']}")
            else:
                parts.append(
                    f"{name} ({group}) by {found['max_share_of_scale']} of its scale, "
                    f"{result['share_of_scale']:g} allowed"
                )
    return "; ".join(parts)

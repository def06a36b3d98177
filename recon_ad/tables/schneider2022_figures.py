"""Figures 4 to 9 of Schneider et al. 2022 (VISAPP), from our runs on generated images.

The truth decides which patch is shown, never the quality of the result. Each function takes the
folders of the runs by their names, and returns PNG bytes and a caption.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy import ndimage

from recon_ad.data import GOOD, Record, Source
from recon_ad.data.build import build_source
from recon_ad.detector.directory import load
from recon_ad.detector.jax_detector import Detector
from recon_ad.evaluation.judge import truth_of
from recon_ad.evaluation.panels import whole_panel
from recon_ad.metrics import iou_max
from recon_ad.metrics.patches import PatchMeans, joined, patch_means
from recon_ad.report import Panel, panel_sheet
from recon_ad.report.drawing import BLUE, ORANGE, png, style_text
from recon_ad.report.pictures import HeatScale, heat, rgb, shrink_max, shrink_mean
from recon_ad.tables.stretches import first_defective, look_at_stretches
from recon_ad.tables.watch import pooled_pixels

DEFECT, HARMLESS = "#e02020", "#20a040"  # the colours of the paper's boxes
GAP = 2  # px between input and reconstruction in a run's sample pictures
HISTOGRAM_BINS = 40

Runs = Mapping[str, Path]


class Patch(NamedTuple):
    """Patch of a test image; `name` gives its top left corner."""

    image: np.ndarray
    truth: Bool[np.ndarray, "p p"]
    name: str


def opened(folder: Path) -> tuple[Detector, Source]:
    """Open a run's detector and its images."""
    detector = load(folder / "detector")
    return detector, build_source(detector.config)


def tiled_once(detector: Detector) -> Detector:
    """Return the same model with tiles that do not overlap, so patches are independent."""
    config = detector.config.copy_and_resolve_references()
    config.inference.stride, config.inference.tile_weights = config.data.patch_size, "uniform"
    return Detector(config, channels=detector.channels, variables=detector.variables)


def picture_grid(
    rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"] | None]],
    *,
    columns: Sequence[str],
    names: Sequence[str] = (),
    width: float = 2.3,
) -> tuple[Figure, np.ndarray]:
    """Draw pictures in rows under the heads of their columns; None leaves a place empty.

    Args:
      rows: Pictures, of the same shape within a row.
      columns: Heads of the columns.
      names: Names of the rows, drawn to their left.
      width: Width of a picture in inches.

    Returns:
      The figure and its axes [rows, columns].
    """
    shapes = [next(p.shape for p in row if p is not None) for row in rows]
    heights = [width * shape[0] / shape[1] for shape in shapes]
    size = (width * len(columns) + 0.3, sum(heights) + 0.1 * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots(
        len(rows), len(columns), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for i, row in enumerate(rows):
        for j, (place, picture) in enumerate(zip(axes[i], row, strict=True)):
            place.set(xticks=[], yticks=[], frame_on=False)
            if picture is not None:
                place.imshow(picture, interpolation="nearest")
            if i == 0:
                style_text(place.set_title(columns[j]))
        if names:
            style_text(axes[i, 0].set_ylabel(names[i]))
    return figure, axes


def binary_maps(runs: Runs) -> tuple[bytes, str]:
    """Draw figure 4: an anomalous image, its truth, and each model's map at the best threshold."""
    methods = list(dict.fromkeys(name.split("-")[1] for name in runs))
    datasets = list(dict.fromkeys(name.split("-")[0] for name in runs))
    rows = []
    for dataset in datasets:
        row: list[UInt8[np.ndarray, "h w 3"] | None] = []
        for method in methods:
            folder = runs.get(f"{dataset}-{method}-seed0")
            if folder is None:
                row.append(None)
                continue
            detector, source = opened(folder)
            pixels = next(iter(pooled_pixels(detector, source).values()))
            threshold = iou_max(pixels.levels())[1]
            record = first_defective(source)
            image = record.load()
            truth = truth_of(record, image.shape[:2])
            marked = detector.predict(image).anomaly_map >= threshold
            row.append(_binary(marked))
        rows.append([rgb(image), _binary(truth), *row])
    heads = ["x", "y (truth B)", *(f"{m.upper()}: R_t" for m in methods)]
    figure, _ = picture_grid(rows, columns=heads, names=datasets)
    return png(figure), (
        "the first anomalous test image x, its truth y, and the residual map of each model at the "
        "threshold that maximises the IoU over all test images."
    )


def _binary(mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return rgb(mask.astype(np.float32)[..., None])


def chosen_patches(record: Record, *, side: int) -> tuple[Patch, Patch]:
    """Return the middle clean cell of a grid over a defective image, and the most damaged one."""
    image = record.load()
    truth = truth_of(record, image.shape[:2])
    assert truth is not None
    rows, columns = (n // side for n in truth.shape)
    cells = truth[: rows * side, : columns * side].reshape(rows, side, columns, side)
    damage = cells.sum(axis=(1, 3)).ravel()
    clean = np.flatnonzero(damage == 0)

    def patch(cell: int) -> Patch:
        top, left = (int(n) * side for n in divmod(cell, columns))
        window = np.s_[top : top + side, left : left + side]
        return Patch(image[window], truth[window], f"rows {top}…, columns {left}…")

    return patch(int(clean[len(clean) // 2])), patch(int(damage.argmax()))


def patch_panel(detector: Detector, patch: Patch) -> Panel:
    """Return the model's result on a single patch."""
    return whole_panel(
        detector,
        patch.image,
        detector.predict(patch.image),
        name=patch.name,
        defect="defective" if patch.truth.any() else GOOD,
        truth=patch.truth,
    )


def two_patches(runs: Runs) -> tuple[bytes, str]:
    """Draw figure 5: a normal and a defective patch of the albedo, and their reconstructions."""
    (folder,) = runs.values()
    detector, source = opened(folder)
    patches = chosen_patches(first_defective(source), side=detector.config.data.patch_size)
    return panel_sheet([patch_panel(detector, patch) for patch in patches]), (
        "a normal and the most damaged patch of the first damaged albedo image (a grid of "
        "patches), their reconstructions and residuals."
    )


def patch_histograms(runs: Runs) -> tuple[bytes, str]:
    """Draw figure 6: the mean residual of normal and of defective patches, albedo and normals."""
    figure = Figure(figsize=(4.2 * len(runs), 2.9), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    for place, (name, folder) in zip(axes, runs.items(), strict=True):
        means = all_patch_means(folder)
        edges = np.linspace(0, max(map(np.max, means)), HISTOGRAM_BINS + 1)
        for values, colour, kind in zip(means, (BLUE, ORANGE), means._fields, strict=True):
            shares = np.histogram(values, edges)[0] / len(values)
            label = f"{kind} ({len(values):,})"
            place.stairs(shares, edges, fill=True, color=colour, alpha=0.5, label=label)
        # Logarithmic, as most patches are normal with a small residual and would hide the others.
        place.set_yscale("log")
        for text in place.legend(frameon=False).get_texts():
            style_text(text)
        style_text(place.set_title(name.split("-")[0]))
        style_text(place.set_xlabel("mean residual of a patch"))
        style_text(place.set_ylabel("share of the class (logarithmic)"))
    return png(figure), (
        "mean squared residual of each patch of all test images. A patch with one defective pixel "
        "counts as defective, while the paper drew boxes by hand."
    )


def all_patch_means(folder: Path) -> PatchMeans:
    """Return the mean residuals of the patches of all test images."""
    detector, source = opened(folder)
    once, side = tiled_once(detector), detector.config.data.patch_size
    parts = []
    for record in source.test:
        image = record.load()
        truth = truth_of(record, image.shape[:2])
        assert truth is not None
        parts.append(patch_means(once.residual_map(image)[0], truth, side=side))
    return joined(parts)


def dark_stretch(runs: Runs) -> tuple[bytes, str]:
    """Draw figure 7: a damaged albedo image, its residual, and a harmless darker stretch."""
    (folder,) = runs.values()
    seen = look_at_stretches(*opened(folder))
    shape = seen.small.shape
    shown = shrink_max(seen.residual, shape)
    pictures = [
        rgb(shrink_mean(seen.image, shape)),
        heat(shown, scale=HeatScale(0.0, float(np.quantile(shown, 0.999)))),
    ]
    figure, axes = picture_grid([pictures], columns=("albedo", "residual map"), width=5.5)
    dark = shrink_max(seen.dark, shape).astype(int)
    for labels, colour in ((seen.small, DEFECT), (dark, HARMLESS)):
        for rows, columns in ndimage.find_objects(labels):
            size = (columns.stop - columns.start, rows.stop - rows.start)
            box = Rectangle((columns.start, rows.start), *size, fill=False, color=colour)
            axes[0, 0].add_patch(box)
    return png(figure), (
        "the first damaged albedo image with its defects (red) and the darkest patch without a "
        "defect (green), and the residual map. Mean residual: "
        f"{seen.residual[seen.truth].mean():.2e} on defective pixels, {seen.on_dark:.2e} on the "
        f"darkest patch without a defect, {seen.elsewhere:.2e} on all other pixels. {seen.above} "
        f"of the {len(seen.means)} defects have a higher mean residual than that patch."
    )


def as_training_goes(runs: Runs) -> tuple[bytes, str]:
    """Draw figure 8: the reconstruction of a held-out granular patch during training."""
    (folder,) = runs.values()
    side = load(folder / "detector").config.data.patch_size
    sheets = sorted((folder / "samples").glob("step_*.png"))
    chosen = [sheets[i] for i in sorted({0, len(sheets) // 2, len(sheets) - 1})]
    # The first pair of the sheet that the trainer draws: the patch, a gap, the reconstruction.
    pairs = [np.asarray(Image.open(sheet))[:side, : 2 * side + GAP] for sheet in chosen]
    made = [pair[:, side + GAP :] for pair in pairs]
    steps = [int(sheet.stem.removeprefix("step_")) for sheet in chosen]
    heads = ("input", *(f"step {step:,}" for step in steps))
    figure, _ = picture_grid([[pairs[0][:, :side], *made]], columns=heads)
    spread = [float(picture.std()) / 255 for picture in (pairs[0][:, :side], *made)]
    return png(figure), (
        "a held-out patch of the gradient image and its reconstruction during training. Standard "
        "deviation over the patch: "
        + ", ".join(f"{head} {value:.3f}" for head, value in zip(heads, spread, strict=True))
        + "."
    )


def defective_patch(runs: Runs) -> tuple[bytes, str]:
    """Draw figure 9: a defective granular patch, its reconstruction and its residual."""
    (folder,) = runs.values()
    detector, source = opened(folder)
    _, patch = chosen_patches(first_defective(source), side=detector.config.data.patch_size)
    panel = patch_panel(detector, patch)
    inside, outside = (panel.residual[m].mean() for m in (patch.truth, ~patch.truth))
    return panel_sheet([panel]), (
        "the most damaged patch of the gradient image, its reconstruction and residual. Mean "
        f"squared residual: {inside:.2e} on the defect, {outside:.2e} around it."
    )

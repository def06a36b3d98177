"""Schneider et al. 2022 (VISAPP), Table 1 and what section 4.2 shows of the two materials."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon_ad.tables import schneider2022_figures as figures
from recon_ad.tables.base import SEEDS, Cell, Column, Figure, Run, Table
from recon_ad.tables.page import values

METHODS = ("cae", "vae", "aae")
IOU, RECALL = "iou_max_oracle", "recall_at_iou_max_oracle"
# Table 1: A, IoU, seconds of training.
PAPER = {
    ("chess", "cae"): (0.9487, 0.7975, 212),
    ("chess", "vae"): (0.9492, 0.7995, 213),
    ("chess", "aae"): (0.9499, 0.7998, 1223),
    ("noise", "cae"): (0.9093, 0.7594, 216),
    ("noise", "vae"): (0.8797, 0.7698, 220),
    ("noise", "aae"): (0.9218, 0.7743, 1227),
}
MARK = PAPER["chess", "cae"][1]  # the IoU to which training on chess is timed
CONFIG = "configs/schneider2022.py"
# Steps between two looks at the IoU on chess, and between two pictures of figure 8.
LOOKS = {"cpu": 50, "paper": 500}
MAIN, MATERIALS = "Table 1", "The materials of section 4.2"
VARIANTS = "The VAE with eq. 4 as it stands"


def _synthetic(dataset: str, method: str, seed: int, scale: str) -> Cell:
    recall, iou, seconds = PAPER[dataset, method]
    return Cell(
        dataset,
        method,
        seed,
        CONFIG,
        arguments={"dataset": dataset, "scale": scale},
        part=MAIN,
        fields={"train.eval_every": LOOKS[scale]} if dataset == "chess" else {},
        paper={RECALL: recall, IOU: iou, "train_seconds": seconds},
        source="Schneider et al. 2022, Table 1",
        iou_watched=MARK if dataset == "chess" else None,
    )


def _material(dataset: str, method: str, scale: str, *, optional: bool = False) -> Cell:
    fields: dict[str, Any] = {}
    if dataset == "granular_gradient":
        fields["train.eval_every"] = LOOKS[scale]
    if scale == "cpu":  # images of up to 20 megapixels
        fields |= {"inference.stride": 128, "inference.tile_weights": "uniform"}
    return Cell(
        dataset,
        method,
        0,
        CONFIG,
        arguments={"dataset": dataset, "scale": scale},
        part=MATERIALS,
        fields=fields,
        protocol=("tiles do not overlap, for the time that it takes.",) if scale == "cpu" else (),
        optional=optional,
    )


def cells(scale: str, data: Path | None) -> list[Cell]:
    """Table 1 with one seed, the materials, Table 1 with two more seeds (paper), a variant."""
    del data  # all is generated
    main = [_synthetic(d, m, 0, scale) for d in ("chess", "noise") for m in METHODS]
    # Eq. 4 as it stands; else the KL has the weight that stands in the config.
    heavy = _synthetic("chess", "vae", 0, scale)._replace(
        part=VARIANTS, variant="KL weight 1", paper={}, source="", optional=True
    )
    heavy = heavy._replace(fields={**heavy.fields, "method.kl_weight": 1.0})
    if scale == "cpu":
        shown = ("riblet_albedo", "granular_gradient", "riblet_normals")
        further = [(d, m) for d in shown[:2] for m in METHODS[1:]]
        return [
            *main,
            *(_material(d, "cae", scale) for d in shown),
            *(_material(d, m, scale, optional=True) for d, m in further),
            heavy,
        ]
    materials = ("riblet_albedo", "riblet_normals", "granular_gradient", "granular_curvature")
    return [
        *main,
        *(_material(d, m, scale) for d in materials for m in METHODS),
        *(
            _synthetic(d, m, s, scale)
            for s in SEEDS[1:]
            for d in ("chess", "noise")
            for m in METHODS
        ),
    ]


def ranking(runs: Sequence[Run], dataset: str, key: str) -> str:
    """The order of the methods by a figure, as found, beside the paper's order."""
    same = [run for run in runs if run["part"] == MAIN and run["dataset"] == dataset]
    found = {m: values([run for run in same if run["method"] == m], key) for m in METHODS}
    means = {m: statistics.mean(figures) for m, figures in found.items() if figures}
    if len(means) < 2:
        return ""
    order = sorted(means, key=lambda m: -means[m])
    paper = sorted(means, key=lambda m: -PAPER[dataset, m][key == IOU])
    seeds = min(len(found[m]) for m in means)
    verdict = "the same order" if order == paper else "another order"
    return (
        f"On {dataset} the order by {'IoU' if key == IOU else 'A'} (truth B, "
        f"{seeds} seed{'s' * (seeds > 1)}) is "
        f"{', '.join(f'{m.upper()} {means[m]:.4f}' for m in order)}: {verdict} as the paper's "
        f"({', '.join(m.upper() for m in paper)})."
    )


def time_to_mark(run: Run) -> str:
    """When training reached the paper's IoU on chess, against either truth."""
    story = run["seconds_to_iou"]
    parts = [
        f"after {seconds:.0f} s of training against truth {truth}"
        if seconds is not None
        else f"not at all against truth {truth} (best {story['best'][truth]:.4f})"
        for truth, seconds in story["seconds"].items()
    ]
    return (
        f"{run['name']}: IoU {story['iou']} is reached {', '.join(parts)}; looked at "
        f"{story['looks']} times."
    )


def remarks(runs: Sequence[Run]) -> list[str]:
    """The orders as found, the time to the paper's IoU, and the materials."""
    orders = [
        ranking(runs, dataset, key) for dataset in ("chess", "noise") for key in (IOU, RECALL)
    ]
    times = [time_to_mark(run) for run in runs if run.get("seconds_to_iou")]
    return [*filter(None, orders), *times, *(material(r) for r in runs if r["part"] == MATERIALS)]


def material(run: Run) -> str:
    """Whether the structure was learnt, and how well the residual tells patches apart."""
    explained = run["training"]["explained_variance"]
    auroc = run["patch_auroc"]
    return (
        f"{run['name']} explains {'an unknown share' if explained is None else f'{explained:.2f}'} "
        "of the variance of held-out patches; the mean residual of a patch ranks defective against "
        f"normal patches with AUROC {'unknown' if auroc is None else f'{auroc:.3f}'}."
    )


TABLE = Table(
    name="schneider2022",
    title="Schneider et al. 2022: autoencoders on chess and noise, and on two materials",
    columns=(
        Column(RECALL, "A, truth B", 4),
        Column(f"truths.A.{RECALL}", "A, truth A", 4),
        Column(IOU, "IoU, truth B", 4),
        Column(f"truths.A.{IOU}", "IoU, truth A", 4),
        Column("pixel_auroc", "pixel AUROC"),
        Column("patch_auroc", "patch AUROC"),
        Column("train_seconds", "training, s", 0),
    ),
    cells=cells,
    protocol=(
        "The paper's images are not published. Chess and noise are drawn after its section 3.1 and "
        "the materials after 3.2, with sizes and strengths of our own: agreement is indicative.",
        "The paper does not say which pixels its truth holds. Truth B are the pixels whose value "
        "the anomaly changed; truth A those that it displaced by half a pixel or more, or drew "
        "over. The paper's figures stand beside truth B; they may be of either.",
        "A is eq. 7, the recall of anomalous pixels, at the threshold that maximises the IoU: one "
        "threshold for a data set, chosen on its test images, so both are oracle figures. Here "
        "they are pooled over four anomalous and four normal test images; the paper has no normal "
        "ones, whose false positives cost IoU.",
        "The models learn from all four normal images, as in the paper, but for a strip at the end "
        "of each, which is held out for calibration.",
        "Epochs, batch size, learning rate and image size are not in the paper: they are ours, the "
        "same for all three models, and stand in the config.",
        "A seed draws images as well as weights. Training times are of other hardware.",
        "The residual map is not smoothed. Patches and tiles of 128 px are ours.",
    ),
    remarks=remarks,
    figures=(
        Figure(
            "figure4",
            tuple(f"{d}-{m}-seed0" for d in ("chess", "noise") for m in METHODS),
            figures.binary_maps,
        ),
        Figure("figure5", ("riblet_albedo-cae-seed0",), figures.two_patches),
        Figure(
            "figure6",
            ("riblet_albedo-cae-seed0", "riblet_normals-cae-seed0"),
            figures.patch_histograms,
        ),
        Figure("figure7", ("riblet_albedo-cae-seed0",), figures.dark_stretch),
        Figure("figure8", ("granular_gradient-cae-seed0",), figures.as_training_goes),
        Figure("figure9", ("granular_gradient-cae-seed0",), figures.defective_patch),
    ),
)

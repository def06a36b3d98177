"""Schneider et al. 2022 (VISAPP), Table 1 and what section 4.2 shows of the two materials."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon_ad.data import Source
from recon_ad.detector.jax_detector import Detector
from recon_ad.tables import schneider2022_figures as figures
from recon_ad.tables.base import SEEDS, Cell, Column, Figure, Run, Table
from recon_ad.tables.codes import codes_of
from recon_ad.tables.page import values
from recon_ad.tables.stretches import look_at_stretches, summary

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
LOOKS = {"cpu": 100, "paper": 500}
MAIN, MATERIALS = "Table 1", "The materials of section 4.2"
OTHERS = "Other papers' methods on these materials"
OTHER_METHODS = ("l2_ae", "ssim_ae", "ssim_l1", "dae")
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


def _material(dataset: str, method: str, scale: str) -> Cell:
    fields: dict[str, Any] = {}
    if dataset == "granular_gradient":
        fields["train.eval_every"] = LOOKS[scale]
    if scale == "cpu":  # images of up to 20 megapixels
        fields |= {"inference.stride": 128, "inference.tile_weights": "uniform"}
        fields |= {"evaluation.panels": 1}
    return Cell(
        dataset,
        method,
        0,
        CONFIG,
        arguments={"dataset": dataset, "scale": scale},
        part=MATERIALS,
        fields=fields,
        protocol=("tiles do not overlap, for the time that it takes.",) if scale == "cpu" else (),
    )


def _other(dataset: str, method: str, scale: str) -> Cell:
    """As many patches as the paper's models have seen, in a training that suits the network."""
    cell = _material(dataset, method, scale)
    fields = {**cell.fields, "train.eval_every": 200}
    if scale == "cpu" and method != "dae":
        fields |= {"train.batch_size": 8, "train.steps": 1_400}
        fields |= {"optim.learning_rate": 1e-3, "optim.warmup": 300}
    return cell._replace(part=OTHERS, fields=fields)


def cells(scale: str, data: Path | None) -> list[Cell]:
    """Table 1 with one seed, the materials, other methods, two more seeds (paper), a variant."""
    del data  # all is generated
    main = [_synthetic(d, m, 0, scale) for d in ("chess", "noise") for m in METHODS]
    # Eq. 4 as it stands; else the KL counts 1/(H·W·C).
    heavy = _synthetic("chess", "vae", 0, scale)._replace(
        part=VARIANTS, variant="KL weight 1", paper={}, source=""
    )
    heavy = heavy._replace(fields={**heavy.fields, "vae.kl_weight": 1.0})
    shown_to_others = ("riblet_albedo", "granular_gradient")
    if scale == "cpu":
        shown = [(d, m) for d in shown_to_others for m in METHODS]
        shown.append(("riblet_normals", "cae"))  # for figure 6
        others = [_other(d, m, scale) for d in shown_to_others for m in OTHER_METHODS]
        return [*main, heavy, *(_material(d, m, scale) for d, m in shown), *others]
    materials = ("riblet_albedo", "riblet_normals", "granular_gradient", "granular_curvature")
    return [
        *main,
        *(_material(d, m, scale) for d in materials for m in METHODS),
        *(_other(d, m, scale) for d in shown_to_others for m in OTHER_METHODS),
        *(
            _synthetic(d, m, s, scale)
            for s in SEEDS[1:]
            for d in ("chess", "noise")
            for m in METHODS
        ),
        heavy,
    ]


def ranking(runs: Sequence[Run], dataset: str, key: str) -> str:
    """The order of the methods by a figure, as found, beside the paper's order."""
    same = [run for run in runs if run["part"] == MAIN and run["dataset"] == dataset]
    found = {m: values([run for run in same if run["method"] == m], key) for m in METHODS}
    means = {m: statistics.mean(found[m]) for m in METHODS if found[m]}
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


def measure(detector: Detector, source: Source) -> Run:
    """How far codes of normal images are from the prior; of the foil, defects and dark stretches.

    Of methods that map images to a code, and of the riblet's albedo; else None.
    """
    albedo = detector.config.data.name == "riblet_albedo"
    return {
        "code": codes_of(detector, [r for r in source.test if not r.anomalous]),
        "dark_stretch": summary(look_at_stretches(detector, source)) if albedo else None,
    }


def code_spread(run: Run) -> str:
    """That in a sentence."""
    code = run["code"]
    return (
        f"{run['name']}: codes of normal patches have variance {code['variance']:.3g} and a "
        f"squared Fréchet distance of {code['frechet']:.4g} to N(0, I) (as many samples of it: "
        f"{code['sampled']:.3g}; a code that is always 0: {code['length']})."
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
    on_materials = [run for run in runs if run["part"] in (MATERIALS, OTHERS)]
    spreads = [code_spread(run) for run in runs if run not in on_materials and run["code"]]
    times = [time_to_mark(run) for run in runs if run.get("seconds_to_iou")]
    return [
        *filter(None, orders),
        *spreads,
        *times,
        *map(material, on_materials),
        *(stretches(run) for run in on_materials if run.get("dark_stretch")),
    ]


def material(run: Run) -> str:
    """Whether the structure was learnt, and how well the residual tells patches apart."""
    explained = run["training"]["explained_variance"]
    auroc = run["patch_auroc"]
    return (
        f"{run['name']} explains {'an unknown share' if explained is None else f'{explained:.2f}'} "
        "of the variance of held-out patches; the mean residual of a patch ranks defective against "
        f"normal patches with AUROC {'unknown' if auroc is None else f'{auroc:.3f}'}."
    )


def stretches(run: Run) -> str:
    """Whether harmless dark stretches stay below the defects."""
    seen = run["dark_stretch"]
    return (
        f"{run['name']}: {seen['above']} of the {seen['defects']} defects of the first damaged "
        "image have a higher mean residual than its darkest harmless stretch ("
        f"{seen['on_defects']:.2e} on defective pixels, {seen['on_dark']:.2e} there, "
        f"{seen['elsewhere']:.2e} elsewhere)."
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
        "same for all three models, and stand in the config. So are what only one model has: the "
        "VAE's KL divergence counts 1/(H·W·C), and its log σ² begins at −5; the AAE's critic takes "
        "5 steps a batch with weights within ±0.01, and its encoder's step against the critic has "
        "0.3 of the learning rate.",
        "A seed draws images as well as weights. Training times are of other hardware.",
        "The residual map is not smoothed. Patches and tiles of 128 px are ours.",
        "Other papers' methods see as many patches as the paper's models; those on the network of "
        "Bergmann et al. 2019 in smaller batches, at a rate that warms up.",
    ),
    remarks=remarks,
    measure=measure,
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

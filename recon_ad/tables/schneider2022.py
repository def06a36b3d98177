"""Table 1 of Schneider et al. 2022 (VISAPP), and the two materials of its section 4.2."""

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
MARK = PAPER["chess", "cae"][1]  # the time to reach this IoU is measured on chess
CONFIG = "configs/schneider2022.py"
# Steps between two measurements of the IoU on chess, and between two pictures of figure 8.
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
        protocol=("tiles do not overlap, to save time.",) if scale == "cpu" else (),
    )


def _other(dataset: str, method: str, scale: str) -> Cell:
    """Return a cell that sees as many patches as the paper's models, with a suitable schedule."""
    cell = _material(dataset, method, scale)
    fields = {**cell.fields, "train.eval_every": 200}
    if scale == "cpu" and method != "dae":
        fields |= {"train.batch_size": 8, "train.steps": 1_400}
        fields |= {"optim.learning_rate": 1e-3, "optim.warmup": 300}
    return cell._replace(part=OTHERS, fields=fields)


def cells(scale: str, data: Path | None) -> list[Cell]:
    """Return Table 1 with one seed, materials, other methods, two more seeds (paper), a variant."""
    del data  # all images are generated
    main = [_synthetic(d, m, 0, scale) for d in ("chess", "noise") for m in METHODS]
    # Eq. 4 unchanged; in all other cells the KL divergence has the weight 1/(H·W·C).
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
    """Return a sentence on the order of the methods by a figure, beside the paper's order."""
    same = [run for run in runs if run["part"] == MAIN and run["dataset"] == dataset]
    found = {m: values([run for run in same if run["method"] == m], key) for m in METHODS}
    means = {m: statistics.mean(found[m]) for m in METHODS if found[m]}
    if len(means) < 2:
        return ""
    order = sorted(means, key=lambda m: -means[m])
    paper = sorted(means, key=lambda m: -PAPER[dataset, m][key == IOU])
    seeds = min(len(found[m]) for m in means)
    verdict = "the same order as" if order == paper else "a different order from"
    return (
        f"On {dataset} the order by {'IoU' if key == IOU else 'A'} (truth B, "
        f"{seeds} seed{'s' * (seeds > 1)}) is "
        f"{', '.join(f'{m.upper()} {means[m]:.4f}' for m in order)}: {verdict} the paper's "
        f"({', '.join(m.upper() for m in paper)})."
    )


def measure(detector: Detector, source: Source) -> Run:
    """Measure the codes of normal images, and the dark stretches of the riblet foil.

    `code` is None for methods without a code, `dark_stretch` for all sets but the riblet's albedo.
    """
    albedo = detector.config.data.name == "riblet_albedo"
    return {
        "code": codes_of(detector, [r for r in source.test if not r.anomalous]),
        "dark_stretch": summary(look_at_stretches(detector, source)) if albedo else None,
    }


def code_spread(run: Run) -> str:
    """Return a sentence on the codes' distance from the prior."""
    code = run["code"]
    return (
        f"{run['name']}: the codes of normal patches have variance {code['variance']:.3g} and a "
        f"squared Fréchet distance of {code['frechet']:.4g} from N(0, I) (for comparison, as many "
        f"samples of N(0, I): {code['sampled']:.3g}; a code that is always 0: {code['length']})."
    )


def time_to_mark(run: Run) -> str:
    """Return a sentence on when training reached the paper's IoU on chess, for each truth."""
    story = run["seconds_to_iou"]
    parts = [
        f"after {seconds:.0f} s of training against truth {truth}"
        if seconds is not None
        else f"not at all against truth {truth} (best {story['best'][truth]:.4f})"
        for truth, seconds in story["seconds"].items()
    ]
    return (
        f"{run['name']}: IoU {story['iou']} is reached {', '.join(parts)}; measured "
        f"{story['looks']} times during training."
    )


def remarks(runs: Sequence[Run]) -> list[str]:
    """Return the sentences on orders, codes, the time to the paper's IoU, and the materials."""
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
    """Return a sentence on how well the structure was learnt and the residual ranks patches."""
    explained = run["training"]["explained_variance"]
    auroc = run["patch_auroc"]
    return (
        f"{run['name']}: the reconstruction explains "
        f"{'an unknown share' if explained is None else f'{explained:.2f}'} of the variance of "
        "held-out patches (0: their mean alone, 1: a perfect copy); the mean residual of a patch "
        "ranks defective against normal patches with AUROC "
        f"{'unknown' if auroc is None else f'{auroc:.3f}'}."
    )


def stretches(run: Run) -> str:
    """Return a sentence on whether harmless dark stretches stay below the defects."""
    seen = run["dark_stretch"]
    return (
        f"{run['name']}: {seen['above']} of the {seen['defects']} defects of the first damaged "
        "image have a higher mean residual than its darkest harmless stretch (mean residual "
        f"{seen['on_defects']:.2e} on defective pixels, {seen['on_dark']:.2e} on the stretch, "
        f"{seen['elsewhere']:.2e} elsewhere)."
    )


TABLE = Table(
    name="schneider2022",
    title="Schneider et al. 2022: autoencoders on chess and noise, and on two materials",
    columns=(
        Column(RECALL, "recall A, truth B", 4),
        Column(f"truths.A.{RECALL}", "recall A, truth A", 4),
        Column(IOU, "IoU, truth B", 4),
        Column(f"truths.A.{IOU}", "IoU, truth A", 4),
        Column("pixel_auroc", "pixel AUROC"),
        Column("patch_auroc", "patch AUROC"),
        Column("train_seconds", "training, s", 0),
    ),
    cells=cells,
    protocol=(
        "The paper's images are not published. Chess and noise are drawn after its section 3.1 and "
        "the materials after 3.2, with sizes and strengths of our choice. Agreement with the paper "
        "is therefore only indicative.",
        "The paper does not say which pixels count as anomalous. Truth B holds the pixels whose "
        "value the anomaly changed. Truth A holds the pixels that it displaced by half a pixel or "
        "more, or drew over. The paper's figures are shown beside truth B, but may be for either.",
        "A is the recall of anomalous pixels (eq. 7) at the threshold that maximises the IoU. The "
        "threshold is one for a data set and is chosen on its test images, so both figures are "
        "oracle figures, which cannot be reached without knowing the truth. Here they are pooled "
        "over four anomalous and four normal test images. The paper has no normal test images, "
        "whose false positives reduce the IoU.",
        "The models learn from all four normal images, as in the paper, except for a strip at the "
        "end of each, which is held out for calibration.",
        "The paper does not give epochs, batch size, learning rate and image size. They are our "
        "choice, the same for all three models, and are in the config. So are the settings of "
        "single models: the VAE's KL divergence has the weight 1/(H·W·C), and its log σ² begins at "
        "−5; the AAE's critic takes 5 steps per batch with weights within ±0.01, and its encoder's "
        "step against the critic has 0.3 of the learning rate.",
        "A seed determines the images as well as the weights. The paper's training times are from "
        "other hardware.",
        "The residual map is not smoothed. The size of patches and tiles, 128 px, is our choice.",
        "Other papers' methods see as many patches as the paper's models. Those with the network "
        "of Bergmann et al. 2019 use smaller batches and a learning rate that warms up.",
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

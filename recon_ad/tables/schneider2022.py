"""Table 1 of Schneider et al. 2022 (VISAPP), and the two materials of its section 4.2."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon_ad.data import Source
from recon_ad.detector.jax_detector import Detector
from recon_ad.tables import schneider2022_figures as figures
from recon_ad.tables.base import Cell, Column, Figure, Run, Table, seeds_at
from recon_ad.tables.bounds import lost, measure_bounds, section, where_lost
from recon_ad.tables.codes import codes_of
from recon_ad.tables.page import values
from recon_ad.tables.stretches import look_at_stretches, summary
from recon_ad.tables.watch import seconds_to

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
LOOKS = {"cpu": 100, "long": 200, "paper": 500}
# Shares of held-out variance whose time to reach is measured.
EXPLAINED = (0.99, 0.995, 0.999)
MAIN, MATERIALS = "Table 1", "The materials of section 4.2"
OTHERS = "Other papers' methods on these materials"
OTHER_METHODS = ("l2_ae", "ssim_ae", "ssim_l1", "dae")
VARIANTS = "The VAE with eq. 4 as it stands"
LAST = "The CAE without the average of its weights"


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
    if scale != "paper":  # images of up to 20 megapixels
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
        protocol=("tiles do not overlap, to save time.",) if scale != "paper" else (),
    )


def _other(dataset: str, method: str, scale: str) -> Cell:
    """Return a cell that sees as many patches as the paper's models, with a suitable schedule."""
    cell = _material(dataset, method, scale)
    fields = {**cell.fields, "train.eval_every": 200}
    if scale != "paper" and method != "dae":
        fields |= {"train.batch_size": 8, "train.steps": 1_400}
        fields |= {"optim.learning_rate": 1e-3, "optim.warmup": 300}
    return cell._replace(part=OTHERS, fields=fields)


def cells(scale: str, data: Path | None) -> list[Cell]:
    """Return Table 1 seed by seed, then materials, other methods on them, and variants."""
    del data  # all images are generated
    seeds = seeds_at(scale)
    main = [_synthetic(d, m, s, scale) for s in seeds for d in ("chess", "noise") for m in METHODS]
    shown = ("riblet_albedo", "granular_gradient")
    others = [_other(d, m, scale) for d in shown for m in OTHER_METHODS]
    if scale == "paper":
        shown = ("riblet_albedo", "riblet_normals", "granular_gradient", "granular_curvature")
    materials = [_material(d, m, scale) for d in shown for m in METHODS]
    if scale != "paper":
        materials.append(_material("riblet_normals", "cae", scale))  # for figure 6
    # Eq. 4 unchanged; in all other cells the KL divergence has the weight 1/(H·W·C).
    heavy = _synthetic("chess", "vae", 0, scale)._replace(
        part=VARIANTS, variant="KL weight 1", paper={}, source=""
    )
    heavy = heavy._replace(fields={**heavy.fields, "vae.kl_weight": 1.0})
    found = [*main, *materials, *others, heavy]
    if scale == "long":  # the only scale that takes the average
        last = _synthetic("chess", "cae", 0, scale)
        last = last._replace(part=LAST, variant="last weights", paper={}, source="")
        found.append(last._replace(fields={**last.fields, "optim.average": 0.0}))
    return found


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
    spans = {m: _span([run for run in same if run["method"] == m], key) for m in means}
    text = f"{order[0].upper()} {means[order[0]]:.4f}"
    tied = False
    for better, worse in itertools.pairwise(order):
        tie = spans[worse][1] >= spans[better][0]
        tied |= tie
        text += f"{' ≈' if tie else ','} {worse.upper()} {means[worse]:.4f}"
    verdict = "the same order as" if order == paper else "a different order from"
    if tied:
        what = "95 % intervals" if seeds == 1 else "ranges over the seeds"
        verdict = f"with ties (≈: the {what} overlap), so no order beside"
    return (
        f"On {dataset} the order by {'IoU' if key == IOU else 'A'} "
        f"({seeds} seed{'s' * (seeds > 1)}) is {text}: {verdict} the paper's "
        f"({', '.join(m.upper() for m in paper)})."
    )


def _span(runs: Sequence[Run], key: str) -> tuple[float, float]:
    """Return the range of a figure over the seeds; with one seed its bootstrap interval."""
    found = values(runs, key)
    if len(found) == 1:
        low, high = runs[0].get("intervals", {}).get(key) or (found[0], found[0])
        return low, high
    return min(found), max(found)


def measure(detector: Detector, source: Source) -> Run:
    """Measure codes of normal images, dark stretches of the riblet foil, floor and ceiling.

    `code` is None for methods without a code, `dark_stretch` for all sets but the riblet's albedo,
    and `bounds` for all but chess and noise.
    """
    albedo = detector.config.data.name == "riblet_albedo"
    boards = detector.config.data.name in ("chess", "noise")
    return {
        "bounds": measure_bounds(detector, source) if boards else None,
        "where_lost": where_lost(detector, source) if boards else None,
        "code": codes_of(detector, [r for r in source.test if not r.anomalous]),
        "dark_stretch": summary(look_at_stretches(detector, source)) if albedo else None,
    }


def code_spread(run: Run) -> str:
    """Return a sentence on the codes' distance from the prior."""
    code = run["code"]
    return (
        f"{run['name']}: the codes of normal patches have variance {code['variance']:.3g} and a "
        f"squared Fréchet distance of {code['frechet']:.4g} from N(0, I), "
        f"{_nearness(code)} (a code that is always 0: {code['length']}; as many samples of "
        f"N(0, I): {code['sampled']:.3g})."
    )


def _nearness(code: Run) -> str:
    if code["frechet"] > code["length"]:
        return "farther than a constant code"
    return "nearer than a constant code" + (
        ", and as near as samples" if code["frechet"] <= 1.1 * code["sampled"] else ""
    )


def time_to_mark(run: Run) -> str:
    """Return a sentence on when training reached the paper's IoU on chess, and a good copy."""
    story = run["seconds_to_iou"]
    seconds, best = story["seconds"]["B"], story["best"]["B"]
    reached = f"reached after {seconds:.0f} s of training" if seconds is not None else "not reached"
    shares = seconds_to(run.get("curve", ()), "explained_variance", EXPLAINED)
    copies = ", ".join(
        f"{mark:g} {'never' if s is None else f'after {s:.0f} s'}" for mark, s in shares.items()
    )
    return (
        f"{run['name']}: IoU {story['iou']} is {reached} (highest {best:.4f}, measured "
        f"{story['looks']} times during training); a share of explained held-out variance of "
        f"{copies}."
    )


def floor_and_ceiling(runs: Sequence[Run]) -> dict[str, str]:
    """Return the section with floor, ceiling and both protocols for the sets of Table 1."""
    measured = [run for run in runs if run["part"] == MAIN and run.get("bounds")]
    if not measured:
        return {}
    papers = {key: figures[:2] for key, figures in PAPER.items()}
    return {"Floor, ceiling and both protocols": section(measured, papers)}


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
        *(lost(run) for run in runs if run["dataset"] == "chess" and run.get("where_lost")),
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
        Column(RECALL, "recall A", 4),
        Column(IOU, "IoU", 4),
        Column("pixel_auroc", "pixel AUROC"),
        Column("patch_auroc", "patch AUROC"),
        Column("train_seconds", "training, s", 0),
    ),
    cells=cells,
    protocol=(
        "The paper's images are not published. Chess and noise are drawn after its section 3.1 and "
        "the materials after 3.2, with sizes and strengths of our choice. Agreement with the paper "
        "is therefore only indicative.",
        "The paper does not say which pixels count as anomalous. All figures are for truth B: the "
        "pixels whose value the anomaly changed by 2/255 or more. Truth A, all displaced or "
        "overdrawn pixels, is in the JSON only: on chess even a perfect reconstruction has a low "
        "IoU against it, because nothing changes inside a displaced square.",
        "Truth B counts faint pixels too, which no map separates from the model's own error. "
        "Smoothing the map, or averaging the reconstructions of overlapping tiles instead of "
        "their residuals, finds more of them. Both are ours.",
        "The floor needs no model: its reconstruction is 0.5 everywhere. On noise a model cannot "
        "reconstruct more than the mean, so the floor is what all models reach there.",
        "A is the recall of anomalous pixels (eq. 7) at the threshold that maximises the IoU. The "
        "threshold is one for a data set and is chosen on its test images, so both figures are "
        "oracle figures, which cannot be reached without knowing the truth. Here they are pooled "
        "over four anomalous and four normal test images. The paper has no normal test images, "
        "whose false positives reduce the IoU.",
        "The models learn from all four normal images, as in the paper, except for a strip at the "
        "end of each, which is held out for calibration.",
        "The paper does not give epochs, batch size, learning rate and image size. They are our "
        "choice, the same for all three models, and are in the config. So are the settings of "
        "single models: the VAE's KL divergence has the weight 1/(H·W·C), its log σ² begins at −5, "
        "and it reconstructs from the mean code; the AAE's critic takes 5 steps per batch with "
        "weights within ±0.01, and its encoder's step against the critic has 0.3 of the learning "
        "rate.",
        "A seed determines the images as well as the weights. The paper's training times are from "
        "other hardware.",
        "At the long scale the models have the averages of their weights during training, which is "
        "ours.",
        "The residual map is not smoothed. The size of patches and tiles, 128 px, is our choice.",
        "Other papers' methods see as many patches as the paper's models. Those with the network "
        "of Bergmann et al. 2019 use smaller batches and a learning rate that warms up.",
    ),
    remarks=remarks,
    sections=floor_and_ceiling,
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

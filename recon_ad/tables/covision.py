"""Gain of each step of the line of Buzzega et al. (Covision Lab); the paper has no figures.

The part is BSData's ball screw, moved as parts lie on a line.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from recon_ad.tables import labels, preste
from recon_ad.tables.base import Cell, Column, Made, Run, Table, seeds_at
from recon_ad.tables.moved import ANGLE, GROUND, SCALE, SHIFT, TEMPLATE, write_moved

CONFIG = "configs/covision.py"
ABSENT = "put BSData's ball_screw there, in the MVTec layout."
# The screw's lit side in the template, drawn by hand, as shares of its width and height.
OUTLINE = (
    (0.035, 0.0), (0.031, 0.13), (0.035, 0.39), (0.031, 0.58), (0.075, 0.65), (0.084, 0.76),
    (0.106, 0.80), (0.053, 0.91), (0.035, 1.0), (0.920, 1.0), (0.951, 0.96), (0.969, 0.89),
    (0.965, 0.76), (0.956, 0.72), (0.965, 0.55), (0.965, 0.39), (0.903, 0.35), (0.916, 0.30),
    (0.912, 0.17), (0.885, 0.07), (0.947, 0.0),
)  # fmt: skip
STILL, LYING, ALIGNED, MASKED = "not moved", "as it lies", "aligned", "aligned, without ground"
MOVED = functools.partial(write_moved, outline=OUTLINE)


def _cell(variant: str, seed: int, scale: str) -> Cell:
    files = {"part.template": TEMPLATE} if variant in (ALIGNED, MASKED) else {}
    if variant == MASKED:
        files["part.background"] = GROUND
    return Cell(
        "ball_screw",
        "dae",
        seed,
        CONFIG,
        {"scale": scale, "align": str(variant in (ALIGNED, MASKED)).lower()},
        variant=variant,
        fields=preste.FIELDS["ball_screw"],
        folders=preste.FOLDERS["ball_screw"],
        made=None if variant == STILL else Made("ball_screw_moved", MOVED, files),
        absent=ABSENT,
    )


def cells(scale: str, data: Path | None) -> list[Cell]:
    """Return the cells, each with one step more than the one before."""
    del data  # missing sets give empty cells
    variants = (LYING, ALIGNED, MASKED, STILL)
    return [_cell(variant, seed, scale) for seed in seeds_at(scale) for variant in variants]


def remarks(runs: Sequence[Run]) -> list[str]:
    """Return sentences on the change that each step made."""
    found = {(run["variant"], run["seed"]): run for run in runs if "reason" not in run}
    told = []
    for before, after in ((LYING, ALIGNED), (ALIGNED, MASKED), (STILL, ALIGNED)):
        both = [seed for variant, seed in found if variant == after and (before, seed) in found]
        for key, name in (("pixel_auroc", "pixel AUROC"), ("aupro_30", "AUPRO")):
            pairs = [(found[after, s][key], found[before, s][key]) for s in both]
            gains = [a - b for a, b in pairs if a is not None and b is not None]
            if gains:
                told.append(
                    f"'{after}' compared with '{before}': {name} {sum(gains) / len(gains):+.4f} "
                    f"({len(gains)} seed{'s' * (len(gains) > 1)})."
                )
    for run in found.values():
        if run["classifier"]:
            gain = run["classifier"]["hu"]["auroc_gain_on_threshold"]
            told.append(
                f"{run['name']}: the classifier's image AUROC compared with the score's: "
                f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f} in 95 % of the "
                "draws)."
            )
        if lost := run["evaluation"]["not_registered"]:
            told.append(
                f"{run['name']}: the part was not found in {len(lost)} test images, which are left "
                "out."
            )
    return told


TABLE = Table(
    name="covision",
    title="Buzzega et al.: a denoising autoencoder on parts that lie in any pose",
    columns=(
        Column("pixel_auroc", "pixel AUROC"),
        Column("pixel_ap", "pixel AP"),
        Column("aupro_30", "AUPRO (FPR ≤ 0.3)"),
        Column("iou_max_oracle", "best IoU (oracle)"),
        Column("classifier.threshold.auroc.mean", "image AUROC, score"),
        Column("classifier.hu.auroc.mean", "image AUROC, classifier"),
        Column("classifier.threshold.balanced_accuracy.mean", "balanced accuracy, threshold"),
        Column("classifier.hu.balanced_accuracy.mean", "balanced accuracy, classifier"),
        Column("images_per_second", "images/s", 1),
        Column("train_seconds", "training, s", 0),
    ),
    cells=cells,
    protocol=(
        "The paper gives no figures; its images belong to a customer.",
        f"Each image of the set, good or defective, is rotated by up to {ANGLE:g}° in either "
        f"direction, scaled by up to {SCALE:.0%} and shifted by up to {SHIFT:g} px, at random and "
        "in the same way for every row. Pixels that were outside the image are excluded from "
        "training and metrics, since their black would reveal the motion. The template is the "
        "middle one of the good images, unmoved.",
        "Maps of aligned images are transformed back to the images and ranked there. Pixels that "
        "the template does not show, and pixels of the background (called ground in the table), "
        "have the lowest value of their image. The background is everything beside the screw's lit "
        "side, by an outline drawn on the template.",
        "Image figures may only be compared within a row. The pittings were photographed on other "
        "days than the good images, and mean brightness alone has an image AUROC of 0.85. Whole "
        "places on the screw are held out.",
        f"Score and classifier (Hu's moments, an MLP) both learn from {labels.LABELS} labelled "
        f"test images, half of them defects, drawn {labels.SPLITS} times, and are evaluated on the "
        "remaining test images. From the labels the score learns its threshold. The table shows "
        "means over the draws.",
        "Noise, widths, learning rate and steps of the autoencoder are our choice.",
    ),
    remarks=remarks,
    measure=labels.measure,
)

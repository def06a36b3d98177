"""Every method on a texture, on low contrast, on a part seen again and again, and on fibres.

This is no paper's table: it says which method to use for what. The settings are those of
`configs/folder.py`, the same for every set.
"""

from pathlib import Path

from recon_ad.methods import ON_FEATURES
from recon_ad.methods.features import RANDOM
from recon_ad.tables import bergmann2019, preste
from recon_ad.tables.base import SEEDS, Cell, Column, Table

FOLDERS = {name: preste.FOLDERS[name] for name in ("grid", "magnetic_tile", "ball_screw")} | {
    "nanofibres": bergmann2019.FOLDERS["nanofibres"]
}
TOGETHER = tuple(name for name in FOLDERS if name != "nanofibres")  # which has no good test images
ABSENT = (
    "put MVTec AD's grid, the magnetic tiles, BSData and NanoTWICE there, each in the MVTec layout."
)
# The quickest first; they are run with all seeds before the others.
WITHOUT_TRAINING = ("knn", "subspace")
TRAINED = (
    "vit_flow",
    "vit_recon",
    "cae",
    "ssim_ae",
    "vae",
    "aae",
    "dae",
    "l2_ae",
    "ssim_l1",
    "fm_ae",
)
FEATURES, PIXELS = "Methods on pretrained features", "Autoencoders"
RANDOM_WEIGHTS, ONE_MODEL = "Random weights of the encoder", "One model for three sets"


def _cell(dataset: str, method: str, seed: int, scale: str, *, random: bool = False) -> Cell:
    return Cell(
        dataset,
        method,
        seed,
        "configs/folder.py",
        {"scale": scale} | ({"weights": RANDOM} if random else {}),
        part=RANDOM_WEIGHTS if random else FEATURES if method in ON_FEATURES else PIXELS,
        variant="random weights" if random else "",
        fields=preste.FIELDS.get(dataset, {}),
        folders=FOLDERS[dataset],
        absent=ABSENT,
        optional=random,
    )


def _together(method: str, scale: str) -> Cell:
    return Cell(
        "all",
        method,
        SEEDS[0],
        "configs/folder.py",
        {"scale": scale},
        part=ONE_MODEL,
        variant="one for all",
        together={name: FOLDERS[name] for name in TOGETHER},
        absent=ABSENT,
        optional=True,
    )


def cells(scale: str, data: Path | None) -> list[Cell]:
    """Return all cells, those that take longest last."""
    del data  # a set that is absent gives empty cells
    found = [
        _cell(dataset, method, seed, scale)
        for methods in (WITHOUT_TRAINING, TRAINED)
        for seed in SEEDS
        for method in methods
        for dataset in FOLDERS
    ]
    found += [
        _cell(dataset, method, SEEDS[0], scale, random=True)
        for dataset in ("grid", "magnetic_tile")
        for method in ON_FEATURES
    ]
    return found + [_together(method, scale) for method in ON_FEATURES]


TABLE = Table(
    name="detectors",
    title="Every method on four sets",
    columns=(
        Column("image_auroc", "image AUROC"),
        Column("pixel_auroc", "pixel AUROC"),
        Column("aupro_30", "AUPRO (FPR ≤ 0.3)"),
        Column("seg_f1_calibrated", "SegF1 at the threshold"),
        Column("image_tpr_calibrated", "defective images found"),
        Column("wall_seconds", "to the report, s", 0),
    ),
    cells=cells,
    protocol=(
        "The settings are those of configs/folder.py, the same for every set. What knn and "
        "subspace take from the encoder (blocks, neighbourhoods, weights of the maps, image score) "
        "was chosen on these four sets by their test figures, so that their figures here are "
        "optimistic.",
        "At cpu scale the encoder is DeiT-Tiny. Maps are smoothed, by 4 px on features and 2 on "
        "pixels, and ranked at the images' own size.",
        "SegF1 is the F1 score of the pixels at the calibrated pixel threshold, over all test "
        "images.",
        "“Defective images found” is the share of defective test images above the calibrated image "
        "threshold. On ball screw it is confounded like the image AUROC.",
        "Seconds go from the images to the finished report, without an export.",
        "One model for three sets takes as many steps as each single model; knn's memory is "
        "as large, so that each set has a part of it by its share of the images. Each set is "
        "ranked by itself; the time is that of all sets.",
        "Ball screw's image figures are confounded: its pittings were photographed on other days "
        "than the good images, and mean brightness alone has an image AUROC of 0.85. Whole places "
        "on the screw are held out where it is learnt by itself.",
        "Nanofibres has no good test images, and so neither an image AUROC nor a measured "
        "false-positive rate.",
        "If a set has another split or resolution than the official one, its figures are near to "
        "published ones, but not equal.",
        "A method without a row on a set has not been run on it yet.",
    ),
    hours={"cpu": 17.0, "long": 17.0},
)

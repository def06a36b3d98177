"""The autoencoder rows of Preste, "Unsupervised learning models for visual inspection".

The article gives mean IoU over the images, at the thresholds of its two maps, and the ROC AUC of
the segmentation.
"""

from pathlib import Path

from recon_ad.tables.base import Cell, Column, Table, seeds_at

CONFIG = "configs/preste.py"
IOU, AUC = "iou_mean_calibrated", "pixel_auroc"
PAPER = {"transistor": {IOU: 0.543, AUC: 0.761}, "sewer": {IOU: 0.207, AUC: 0.731}}
FOLDERS = {
    "transistor": ("transistor",),
    "sewer": ("sewer", "sewers"),
    "grid": ("grid",),
    "magnetic_tile": ("magnetic_tile", "magnetic_tiles"),
    "ball_screw": ("ball_screw", "ball_screws"),
}
ABSENT = {
    "transistor": "put MVTec AD's transistor there as a folder transistor.",
    "sewer": (
        "put images with masks there as a folder sewer in the MVTec layout; Sewer-ML has labels "
        "but no masks, from which neither figure could be computed."
    ),
    "grid": "put MVTec AD's grid there as a folder grid.",
    "magnetic_tile": "put the magnetic tiles there as a folder magnetic_tile in the MVTec layout.",
    "ball_screw": "put BSData there as a folder ball_screw in the MVTec layout.",
}
# The series of BSData's frames: the place on the screw, the third and fourth part of a file's name.
FIELDS = {"ball_screw": {"holdout.group": r"_(\d+_\d+)_crop"}}
PROTOCOL = {
    "sewer": ("the article's mean IoU is over its images of obstacles only.",),
    "ball_screw": (
        "its pittings were photographed on other days than the good images, and mean brightness "
        "alone tells them apart: image figures say nothing, pixel figures do. Whole places on the "
        "screw are held out.",
    ),
}


def _cell(dataset: str, seed: int, scale: str) -> Cell:
    return Cell(
        dataset,
        "ssim_l1",
        seed,
        CONFIG,
        arguments={"dataset": dataset, "scale": scale},
        part="Autoencoder with SSIM and L1",
        fields=FIELDS.get(dataset, {}),
        folders=FOLDERS[dataset],
        absent=ABSENT[dataset],
        paper=PAPER.get(dataset, {}),
        source="Preste, section The results" if dataset in PAPER else "",
        protocol=PROTOCOL.get(dataset, ()),
    )


def cells(scale: str, data: Path | None) -> list[Cell]:
    """All sets with one seed; at paper scale two more seeds."""
    del data  # what is not there is null
    return [_cell(dataset, seed, scale) for seed in seeds_at(scale) for dataset in FOLDERS]


TABLE = Table(
    name="preste",
    title="Preste: the autoencoder with SSIM and L1 thresholds",
    columns=(
        Column(IOU, "mean IoU (calibrated)"),
        Column(AUC, "pixel AUROC"),
        Column("iou_max_oracle", "best IoU (oracle)"),
        Column("image_auroc", "image AUROC"),
        Column("train_seconds", "training, s", 0),
    ),
    cells=cells,
    protocol=(
        "The mean IoU is over defective test images, at the article's thresholds for transistor "
        "and sewer, which belong to its network and not to this one, and else at thresholds from "
        "held-out normal images. How the article found its thresholds it does not say; if on the "
        "test images, its IoU is an oracle's.",
        "The article does not give image size, epochs or learning rate: they are ours and stand in "
        "the config.",
        "Opening (4 px) and border (5 px) are at the image's own size; other implementations have "
        "them at the network's, where they weigh more.",
        "The grid, the magnetic tiles and the ball screw are not in the article.",
    ),
)

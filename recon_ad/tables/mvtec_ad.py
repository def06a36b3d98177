"""All categories of MVTec AD that the user has, with each method, and the mean.

At cpu scale they are run with one seed, one method after the other, until the table's time is
spent.
"""

from pathlib import Path

from recon_ad.data.locate import categories
from recon_ad.errors import UserError
from recon_ad.methods import METHODS
from recon_ad.tables.base import Cell, Column, Table, seeds_at

FOLDERS = ("mvtec_ad", "mvtec", "mvtec_anomaly_detection")


def cells(scale: str, data: Path | None) -> list[Cell]:
    """Return the cells of each category that is found.

    Raises:
      UserError: If no folder was given, or it contains no category.
    """
    if data is None:
        raise UserError("the table mvtec_ad needs --data with the folder that holds MVTec AD.")
    found = categories(data, FOLDERS)
    if not found:
        raise UserError(
            f"--data {data} contains no category of MVTec AD; give the folder with its categories, "
            "each with train/good in it."
        )
    return [
        Cell(
            folder.name,
            method,
            seed,
            "configs/folder.py",
            arguments={"scale": scale},
            folders=(f"{folder.absolute().parent.name}/{folder.name}",),
            optional=True,
        )
        for seed in seeds_at(scale)
        for method in METHODS
        for folder in found
    ]


TABLE = Table(
    name="mvtec_ad",
    title="MVTec AD: every category and method",
    columns=(
        Column("image_auroc", "image AUROC"),
        Column("image_ap", "image AP"),
        Column("pixel_auroc", "pixel AUROC"),
        Column("aupro_30", "AUPRO (FPR ≤ 0.3)"),
        Column("iou_max_oracle", "best IoU (oracle)"),
        Column("train_seconds", "training, s", 0),
    ),
    cells=cells,
    protocol=(
        "All methods learn with the settings of configs/folder.py, the same for every category. "
        "The encoder's blocks of knn and subspace were chosen on four sets, grid among them.",
        "If a category in the folder has another split or resolution than the official one, its "
        "figures are close to published ones, but not equal.",
    ),
    mean_row=True,
)

"""The SSIM autoencoder and the one with squared error, of Bergmann et al. 2019 (VISAPP).

The paper's two figures on nanofibres are as other authors cite them. Its other tables were not
available, so feature matching, the VAE on nanofibres and the ablations have no figures beside them.
"""

from pathlib import Path

from recon_ad.config import flatten, load_config
from recon_ad.tables.base import Cell, Column, Table, seeds_at

CONFIG = "configs/bergmann2019.py"
METHODS = ("ssim_ae", "l2_ae", "vae", "fm_ae")
NANOFIBRES = {"ssim_ae": {"pixel_auroc": 0.966}, "l2_ae": {"pixel_auroc": 0.688}}
# PRO is from Bergmann et al. 2020 (CVPR), up to 30 % false positives like aupro_30.
GRID = {
    "vae": {"aupro_30": 0.224},
    "ssim_ae": {"pixel_auroc": 0.94, "aupro_30": 0.849},
    "l2_ae": {"pixel_auroc": 0.90, "aupro_30": 0.582},
}
FOLDERS = {
    "nanofibres": ("nanofibres", "nanofibers", "nanotwice"),
    "grid": ("grid",),
    "woven_fabrics_1": ("woven_fabrics_1", "texture_1"),
    "woven_fabrics_2": ("woven_fabrics_2", "texture_2"),
}
ABSENT = {
    "nanofibres": "put NanoTWICE there as a folder nanofibres in the MVTec layout.",
    "grid": "put MVTec AD's grid there as a folder grid.",
    "woven_fabrics_1": "put the paper's first fabric there as a folder texture_1.",
    "woven_fabrics_2": "put the paper's second fabric there as a folder texture_2.",
}
PROTOCOL = {
    "grid": (
        "grid replaces the paper's fabrics; the figures beside it are from a later paper of the "
        "same authors.",
    ),
    "vae": (
        "the residual is the squared error of the mean code's reconstruction, while the paper uses "
        "a probability of each pixel from several samples; the divergence's weight is 1/(H·W·C).",
    ),
    "fm_ae": (
        "features are the first three blocks of a DeiT-Tiny instead of the first layers of "
        "AlexNet, and their weight is our choice.",
    ),
}
MAIN, ABLATIONS = "Main results", "Ablations on nanofibres (SSIM autoencoder)"
# The symbol on the page -> the config's field, and its values.
CHANGES = {
    "d": ("method.n_z", (50, 100, 200, 500)),
    "K": ("ssim.window", (3, 7, 11, 15, 19)),
    "patch": ("data.patch_size", (32, 64, 128)),
}


def _cell(dataset: str, method: str, seed: int, scale: str) -> Cell:
    paper = {"nanofibres": NANOFIBRES, "grid": GRID}.get(dataset, {}).get(method, {})
    sources = {
        "nanofibres": "nanofibres: Bergmann et al. 2019, as other authors cite it",
        "grid": (
            "grid: pixel AUROC of MVTec AD's paper (Bergmann et al. 2019, CVPR), PRO of Bergmann "
            "et al. 2020 (CVPR), both as other authors cite them"
        ),
    }
    return Cell(
        dataset,
        method,
        seed,
        CONFIG,
        arguments={"dataset": dataset, "scale": scale},
        part=MAIN,
        folders=FOLDERS[dataset],
        absent=ABSENT[dataset],
        paper=paper,
        source=sources.get(dataset, "") if paper else "",
        optional=dataset != "nanofibres" or method not in NANOFIBRES,
        protocol=(*PROTOCOL.get(dataset, ()), *PROTOCOL.get(method, ())),
    )


def ablations(scale: str) -> list[Cell]:
    """Return cells that change one setting of the main run: latent size, SSIM window or patch."""
    base = _cell("nanofibres", "ssim_ae", 0, scale)._replace(part=ABLATIONS, paper={}, source="")
    main = flatten(load_config(base.spec).to_dict())
    return [
        base._replace(variant=f"{sign}={value}", fields={field: value})
        for sign, (field, values) in CHANGES.items()
        for value in values
        if value != main[field]  # the main result has this value
    ]


def cells(scale: str, data: Path | None) -> list[Cell]:
    """Return the cells of all sets, and of the ablations at paper scale.

    At cpu scale they have one seed, and optional cells depend on the table's time. At paper scale
    they have three seeds.
    """
    del data  # missing sets give empty cells
    main = [_cell(d, m, seed, scale) for seed in seeds_at(scale) for d in FOLDERS for m in METHODS]
    return main + (ablations(scale) if scale == "paper" else [])


TABLE = Table(
    name="bergmann2019",
    title="Bergmann et al. 2019: structural similarity against squared error",
    columns=(
        Column("pixel_auroc", "pixel AUROC"),
        Column("aupro_30", "AUPRO (FPR ≤ 0.3)"),
        Column("pixel_ap", "pixel AP"),
        Column("iou_max_oracle", "best IoU (oracle)"),
        Column("image_auroc", "image AUROC"),
        Column("train_seconds", "training, s", 0),
    ),
    cells=cells,
    protocol=(
        "The network and its protocol are the paper's as other implementations describe them. "
        "Steps and batch size, and at cpu scale the schedule, are our choice and are in the "
        "config.",
        "The constants of SSIM are (0.01)² and (0.03)², as in Wang et al. and scikit-image. The "
        "paper is quoted with 0.01 and 0.03, which would hide weak texture.",
        "Where the window K changes, the Gaussian's standard deviation stays 1.5 px, so windows "
        "above 11 px differ only in the weak outer part of the Gaussian.",
        "Nanofibres has no good test images, so it has no image AUROC. Its pixel figures are over "
        "the 40 defective images. A part of each of the five good images is held out for "
        "calibration.",
        "If a set in the folder has another split or resolution than the official one, its figures "
        "are close to published ones, but not equal.",
    ),
)

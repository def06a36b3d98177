"""Bergmann et al. 2019 (VISAPP): the SSIM autoencoder against the one with squared error.

Its two figures on nanofibres are as others cite them. For its further tables no source could be
read, so that feature matching, the VAE on nanofibres and the ablations have no figures beside them.
"""

from pathlib import Path

from recon_ad.config import flatten, load_config
from recon_ad.tables.base import Cell, Column, Table, seeds_at

CONFIG = "configs/bergmann2019.py"
METHODS = ("ssim_ae", "l2_ae", "vae", "fm_ae")
NANOFIBRES = {"ssim_ae": {"pixel_auroc": 0.966}, "l2_ae": {"pixel_auroc": 0.688}}
# PRO is of Bergmann et al. 2020 (CVPR), up to 30 % false positives, as aupro_30 is.
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
        "grid stands in place of the paper's fabrics; its figures are of a later paper of the same "
        "authors.",
    ),
    "vae": (
        "the residual is the squared error of the mean code's reconstruction, where the paper has "
        "a probability of each pixel from several samples; the divergence's weight is 1/(H·W·C).",
    ),
    "fm_ae": (
        "features are the first three blocks of a DeiT-Tiny instead of the first layers of "
        "AlexNet, and their weight is ours.",
    ),
}
MAIN, ABLATIONS = "Main results", "Ablations on nanofibres (SSIM autoencoder)"
# By the sign that the page shows: the config's field, and the values it is given.
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
    """One change of the main nanofibres run at a time: latent size, SSIM window, patch."""
    base = _cell("nanofibres", "ssim_ae", 0, scale)._replace(part=ABLATIONS, paper={}, source="")
    main = flatten(load_config(base.spec).to_dict())
    return [
        base._replace(variant=f"{sign}={value}", fields={field: value})
        for sign, (field, values) in CHANGES.items()
        for value in values
        if value != main[field]  # that is the main result
    ]


def cells(scale: str, data: Path | None) -> list[Cell]:
    """All sets with one seed, at cpu scale what there is time for; at paper scale three, and the
    ablations."""
    del data  # what is not there is null
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
        "The network and its protocol are the paper's as other implementations describe them; "
        "steps and batch size, and at cpu scale the schedule, are ours and stand in the config.",
        "The constants of SSIM are (0.01)² and (0.03)², Wang et al.'s and scikit-image's; the "
        "paper is quoted with 0.01 and 0.03, which would hide weak texture.",
        "Where the window K is changed, the Gaussian's 1.5 px stay: windows above 11 px differ "
        "from it by their tails only.",
        "Nanofibres has no good test images, so there is no image AUROC; pixel figures are over "
        "its 40 defective images. A part of each of its five good images is held out for "
        "calibration.",
        "A set that lies in the folder in another split or at another resolution than the "
        "official one gives figures near to, not equal to, published ones.",
    ),
)

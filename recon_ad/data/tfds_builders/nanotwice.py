"""NanoTWICE (Carrera et al. 2017): SEM images of nanofibres, 5 good ones and 40 with defects.

    Normal/<name>.tif
    Anomalous/images/<name>.tif
    Anomalous/gt/<name>_gt.png

as three public programs that read its archive have it; or `nanofibres/` or `nanotwice/` in the
MVTec layout. The set has no good test image, so image AUROC cannot be computed.
"""

from pathlib import Path

from recon_ad.data.listing import images_in
from recon_ad.data.source import GOOD
from recon_ad.data.tfds_builders.base import DefectBuilder, Example, Layout
from recon_ad.data.tfds_builders.mvtec import mvtec_splits


def _root(folder: Path, category: str) -> Path | None:
    original = all((folder / name).is_dir() for name in ("Normal", "Anomalous/images"))
    # By name only: train/good is what any other set in that layout has too.
    mvtec = folder.name.lower() in ("nanofibres", "nanotwice")
    return folder if original or (mvtec and (folder / "train" / GOOD).is_dir()) else None


def _splits(root: Path, category: str) -> dict[str, list[Example]]:
    if not (root / "Normal").is_dir():
        return mvtec_splits(root, category)
    truths = root / "Anomalous" / "gt"
    masks = {mask.stem: mask for mask in images_in(truths)} if truths.is_dir() else {}
    test = []
    for file in images_in(root / "Anomalous" / "images"):
        mask = masks.get(f"{file.stem}_gt")
        test.append(
            Example(f"Anomalous/images/{file.name}", file, "defect", (mask,) if mask else ())
        )
    train = [Example(f"Normal/{file.name}", file) for file in images_in(root / "Normal")]
    return {"train": train, "test": test}


class Nanotwice(DefectBuilder):
    """One set without configs; the type of every defect is "defect"."""

    name = "nanotwice"
    LAYOUT = Layout(
        what="folders Normal and Anomalous",
        archives=("dfg05er_Data", "NanoTWICE", "nanofibres"),
        root_of=_root,
        splits=_splits,
    )
    ABOUT = (
        "NanoTWICE: scanning electron microscope images of nanofibres, some with specks of dust."
    )
    HOMEPAGE = "http://web.mi.imati.cnr.it/ettore/NanoTWICE"
    LICENSE = "for research; cite the authors"
    CITATION = """@article{carrera2017defect,
  title = {Defect Detection in {SEM} Images of Nanofibrous Materials},
  author = {Carrera, Diego and Manganini, Fabio and Boracchi, Giacomo and Lanzarone, Ettore},
  journal = {IEEE Transactions on Industrial Informatics},
  volume = {13},
  number = {2},
  year = {2017}
}"""

"""KolektorSDD (Tabernik et al. 2020): 399 gray images of 50 commutators, 52 with a crack.

    kos01/Part0.jpg ... Part7.jpg
    kos01/Part0_label.bmp ...           0 where good

The authors cross-validate a supervised method over commutators and give no split for learning from
good images only. Here the good images of kos01 to kos25 train, and all others test, so that no good
test image is of a commutator seen in training; a defective one may be.
"""

import re
from pathlib import Path

from recon_ad.data.decode import decode_mask
from recon_ad.data.listing import images_in, subfolders
from recon_ad.data.tfds_builders.base import DefectBuilder, Example, Layout
from recon_ad.errors import UserError

_LAST_TO_TRAIN = 25


def _items(root: Path) -> dict[int, Path]:
    """Return the folders of commutators by number."""
    matches = [(re.fullmatch(r"kos(\d+)", folder.name), folder) for folder in subfolders(root)]
    return {int(match[1]): folder for match, folder in matches if match}


def _root(folder: Path, category: str) -> Path | None:
    return folder if _items(folder) else None


def _splits(root: Path, category: str) -> dict[str, list[Example]]:
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for number, folder in _items(root).items():
        for file in images_in(folder):
            if file.stem.endswith("_label"):
                continue
            label = folder / f"{file.stem}_label.bmp"
            if not label.is_file():
                raise UserError(
                    f"{file}: has no {label.name} beside it, which says whether it is good: fetch "
                    "the data set again"
                )
            name = f"{folder.name}/{file.name}"
            if decode_mask(label).any():
                splits["test"].append(Example(name, file, "defect", (label,)))
            else:
                split = "train" if number <= _LAST_TO_TRAIN else "test"
                splits[split].append(Example(name, file))
    return splits


class KolektorSdd(DefectBuilder):
    """One set without configs; the type of every defect is "defect"."""

    name = "kolektor_sdd"
    LAYOUT = Layout(
        what="folders kos01 to kos50",
        archives=("KolektorSDD", "KolektorSDD-boxes"),
        root_of=_root,
        splits=_splits,
    )
    ABOUT = "KolektorSDD: surfaces of plastic commutators, some with fine cracks."
    HOMEPAGE = "https://www.vicos.si/resources/kolektorsdd"
    LICENSE = "CC BY-NC-SA 4.0"
    CITATION = """@article{tabernik2020segmentation,
  title = {Segmentation-Based Deep-Learning Approach for Surface-Defect Detection},
  author = {Tabernik, Domen and {\\v S}ela, Samo and Skvar{\\v c}, Jure and Sko{\\v c}aj, Danijel},
  journal = {Journal of Intelligent Manufacturing},
  volume = {31},
  year = {2020}
}"""

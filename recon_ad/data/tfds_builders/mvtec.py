"""MVTec AD (Bergmann et al. 2019) and MVTec LOCO AD (Bergmann et al. 2022), and what is like them.

    <category>/train/good/000.png
    <category>/validation/good/000.png                              LOCO only
    <category>/test/good/000.png, test/<defect>/000.png
    <category>/ground_truth/<defect>/000_mask.png                   MVTec AD
    <category>/ground_truth/<defect>/000/000.png, 001.png, ...      LOCO, united

What the gray level of a LOCO mask says (which defect, and so by `defects_config.json` how much of
it has to be found) is for that set's own metric and is not kept.
"""

from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from recon_ad.data import truth
from recon_ad.data.listing import images_below, subfolders
from recon_ad.data.source import GOOD
from recon_ad.data.tfds_builders.base import DefectBuilder, Example, Layout, own_folder

_MVTEC_AD = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)
_LOCO = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
_WHAT = f"{{category}}/train/{GOOD}"


def mvtec_splits(root: Path, category: str) -> dict[str, list[Example]]:
    """For `Layout.splits`: the examples of one category, lists empty for what it does not have."""
    splits = {
        split: [Example(_name(file, root), file) for file in _images(root / split / GOOD)]
        for split in ("train", "validation")
    }
    splits["test"] = []
    for folder in subfolders(root / "test") if (root / "test").is_dir() else ():
        masks = truth.stems(root / "ground_truth" / folder.name) if folder.name != GOOD else {}
        splits["test"] += [
            Example(
                _name(file, root), file, folder.name, tuple(truth.masks_of(file, folder, masks))
            )
            for file in images_below(folder)
        ]
    return splits


def _images(folder: Path) -> list[Path]:
    return images_below(folder) if folder.is_dir() else []


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _root(folder: Path, category: str) -> Path | None:
    return category_folder(folder, category, f"train/{GOOD}")


def category_folder(folder: Path, category: str, needed: str) -> Path | None:
    """The folder of the category in this one, or this one itself, if it has the needed folder."""
    roots = [folder / category, *([folder] if folder.name == category else [])]
    return next((root for root in roots if (root / needed).is_dir()), None)


class MvtecAd(DefectBuilder):
    """The 15 categories, each a config; any other set in this layout by a config of its name."""

    name = "mvtec_ad"
    LAYOUT = Layout(
        what=_WHAT,
        archives=("mvtec_anomaly_detection", "{category}"),
        root_of=_root,
        splits=mvtec_splits,
        wanted=own_folder,
    )
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=category) for category in _MVTEC_AD]
    ABOUT = (
        "MVTec AD: objects and textures of industrial inspection, 5354 images of 15 categories, "
        "masks for every defect."
    )
    HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
    LICENSE = "CC BY-NC-SA 4.0"
    CITATION = """@inproceedings{bergmann2019mvtec,
  title = {{MVTec AD}: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection},
  author = {Bergmann, Paul and Fauser, Michael and Sattlegger, David and Steger, Carsten},
  booktitle = {CVPR},
  year = {2019}
}"""


class MvtecLoco(DefectBuilder):
    """The 5 categories, each a config; good images also as the split `validation`."""

    name = "mvtec_loco"
    LAYOUT = Layout(
        what=_WHAT,
        archives=("mvtec_loco_anomaly_detection", "{category}"),
        root_of=_root,
        splits=mvtec_splits,
        wanted=own_folder,
    )
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=category) for category in _LOCO]
    ABOUT = (
        "MVTec LOCO AD: five scenes with structural defects and with logical ones, where a part is "
        "missing, doubled or in the wrong place."
    )
    HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-loco"
    LICENSE = "CC BY-NC-SA 4.0"
    CITATION = """@article{bergmann2022beyond,
  title = {Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
           Localization},
  author = {Bergmann, Paul and Batzner, Kilian and Fauser, Michael and Sattlegger, David and
            Steger, Carsten},
  journal = {International Journal of Computer Vision},
  volume = {130},
  year = {2022}
}"""

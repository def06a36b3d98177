"""MVTec AD (Bergmann et al. 2019), LOCO (Bergmann et al. 2022), AD 2 (Heckler-Kram et al. 2025).

    <category>/train/good/000.png
    <category>/validation/good/000.png                              LOCO and AD 2
    <category>/test/good/000.png, test/<defect>/000.png             MVTec AD and LOCO
    <category>/ground_truth/<defect>/000_mask.png                   MVTec AD
    <category>/ground_truth/<defect>/000/000.png, 001.png, ...      LOCO, united
    <category>/test_public/good/000_regular.png, test_public/bad/000_regular.png             AD 2
    <category>/test_public/ground_truth/bad/000_regular_mask.png                             AD 2

AD 2's private images, of which only the benchmark's server knows the truth, are not kept: they are
judged as a folder (`recon_ad.detector.submission`).

The gray level of a LOCO mask names the defect, and by `defects_config.json` how much of it has to
be found. It serves that set's own metric and is not kept.
"""

from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from recon_ad.data import truth
from recon_ad.data.layout import layout_of
from recon_ad.data.listing import images_below
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
_AD_2 = ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts")
_WHAT = f"{{category}}/train/{GOOD}"


def mvtec_splits(root: Path, category: str) -> dict[str, list[Example]]:
    """Return the examples of one category as `Layout.splits`; missing splits are empty lists."""
    splits = {
        split: [Example(_name(file, root), file) for file in _images(root / split / GOOD)]
        for split in ("train", "validation")
    }
    splits["test"] = []
    layout = layout_of(root)
    truths = layout.truths or root
    for folder in layout.types():
        masks = truth.stems(truths / folder.name) if folder.name != GOOD else {}
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
    """Return the category's folder in this one, or this one, if it has the needed folder."""
    roots = [folder / category, *([folder] if folder.name == category else [])]
    return next((root for root in roots if (root / needed).is_dir()), None)


def _layout(archive: str) -> Layout:
    """Return MVTec's packing of a set: one archive of that name, or one for each category."""
    return Layout(
        what=_WHAT,
        archives=(archive, "{category}"),
        root_of=_root,
        splits=mvtec_splits,
        wanted=own_folder,
    )


class MvtecAd(DefectBuilder):
    """The 15 categories, each a config; any other set in this layout by a config of its name."""

    name = "mvtec_ad"
    LAYOUT = _layout("mvtec_anomaly_detection")
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
    LAYOUT = _layout("mvtec_loco_anomaly_detection")
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


class MvtecAd2(DefectBuilder):
    """The 8 categories, each a config; good images also as the split `validation`."""

    name = "mvtec_ad_2"
    LAYOUT = _layout("mvtec_ad_2")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=category) for category in _AD_2]
    ABOUT = (
        "MVTec AD 2: eight scenes of industrial inspection, among them transparent parts and bulk "
        "goods, in images of several megapixels; its test images are those of the public part."
    )
    HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad-2"
    LICENSE = "CC BY-NC-SA 4.0"
    CITATION = """@article{heckler2025mvtec,
  title = {The {MVTec AD 2} Dataset: Advanced Scenarios for Unsupervised Anomaly Detection},
  author = {Heckler-Kram, Lars and Neudeck, Jan-Hendrik and Scheler, Ulla and K{\\"o}nig, Rebecca
            and Steger, Carsten},
  journal = {arXiv preprint arXiv:2503.21622},
  year = {2025}
}"""

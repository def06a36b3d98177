"""VisA (Zou et al. 2022), 12 categories, in the layout of its archive VisA_20220922.tar.

    split_csv/1cls.csv                  object,split,label,image,mask
    <category>/image_anno.csv           image,label,mask; the label names the defects: "bent,melt"
    <category>/Data/Images/Normal/0000.JPG, Data/Images/Anomaly/000.JPG
    <category>/Data/Masks/Anomaly/000.png        0 where good, else a number for each defect type

The split is the one for learning from good images only: 90 % of them train. The authors'
script converts it to folders in the MVTec layout, which the builder `mvtec_ad` reads with a config
of the category's name.
"""

import csv
from pathlib import Path, PurePosixPath
from typing import ClassVar

import tensorflow_datasets as tfds

from recon_ad.data.source import GOOD
from recon_ad.data.tfds_builders.base import DefectBuilder, Example, Layout, own_folder
from recon_ad.errors import UserError

_SPLIT = PurePosixPath("split_csv/1cls.csv")
_CATEGORIES = (
    "candle",
    "capsules",
    "cashew",
    "chewinggum",
    "fryum",
    "macaroni1",
    "macaroni2",
    "pcb1",
    "pcb2",
    "pcb3",
    "pcb4",
    "pipe_fryum",
)


def _root(folder: Path, category: str) -> Path | None:
    complete = (folder / _SPLIT).is_file() and (folder / category / "Data").is_dir()
    return folder if complete else None


def _wanted(member: PurePosixPath, category: str) -> bool:
    return own_folder(member, category) or member.name == _SPLIT.name


def _splits(root: Path, category: str) -> dict[str, list[Example]]:
    types = _defects(root / category)
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for row in _rows(root / _SPLIT, ("object", "split", "label", "image", "mask")):
        if row["object"] != category:
            continue
        if row["split"] not in splits or row["label"] not in ("normal", "anomaly"):
            raise UserError(
                f"{root / _SPLIT}: {row['image']} is in split {row['split']!r} with label "
                f"{row['label']!r}, and not train or test, normal or anomaly: fetch it again"
            )
        good = row["label"] == "normal"
        splits[row["split"]].append(
            Example(
                row["image"].removeprefix(f"{category}/"),
                root / row["image"],
                GOOD if good else types.get(row["image"], "anomaly"),
                (root / row["mask"],) if row["mask"] and not good else (),
            )
        )
    return splits


def _defects(folder: Path) -> dict[str, str]:
    """Return the types of defect by image, {} where the file that names them is missing."""
    path = folder / "image_anno.csv"
    if not path.is_file():
        return {}
    return {
        row["image"]: "+".join(part.strip() for part in row["label"].split(","))
        for row in _rows(path, ("image", "label"))
    }


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{path}: has no column {missing[0]}: fetch the data set again")
        return list(reader)


class Visa(DefectBuilder):
    """A config for each category; an image with several defects has their names joined by "+"."""

    name = "visa"
    LAYOUT = Layout(
        what=f"{_SPLIT} beside {{category}}/Data",
        archives=("VisA_20220922", "VisA"),
        root_of=_root,
        splits=_splits,
        wanted=_wanted,
    )
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=category) for category in _CATEGORIES]
    ABOUT = "VisA: 10821 images of 12 kinds of goods, from circuit boards to candles, with masks."
    HOMEPAGE = "https://github.com/amazon-science/spot-diff"
    LICENSE = "CC BY 4.0"
    CITATION = """@inproceedings{zou2022spot,
  title = {{SPot}-the-Difference Self-Supervised Pre-training for Anomaly Detection and
           Segmentation},
  author = {Zou, Yang and Jeong, Jongheon and Pemula, Latha and Zhang, Dongqing and Dabeer, Onkar},
  booktitle = {ECCV},
  year = {2022}
}"""

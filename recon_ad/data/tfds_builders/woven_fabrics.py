"""The two woven fabrics of Bergmann et al. 2019 (VISAPP), gray, 100 good and 50 to test each.

    texture_1/train/good/000.png
    texture_1/test/<defect>/000.png
    texture_1/ground_truth/<defect>/000.png or 000_mask.png

and the same for texture_2. The archive, textures.zip, was not available when this was written.
Several public programs that read it have train/good, one of them also test/defective and
ground_truth/defective; the description of another lists the images of train and test without those
folders, which is read too.
"""

from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from recon_ad.data.listing import images_in
from recon_ad.data.source import GOOD
from recon_ad.data.tfds_builders.base import DefectBuilder, Example, Layout, own_folder
from recon_ad.data.tfds_builders.mvtec import category_folder, mvtec_splits

_DEFECTIVE = "defective"


def _root(folder: Path, category: str) -> Path | None:
    return category_folder(folder, category, "train")


def _splits(root: Path, category: str) -> dict[str, list[Example]]:
    if (root / "train" / GOOD).is_dir():
        return mvtec_splits(root, category)
    truths = root / "ground_truth" / _DEFECTIVE
    masks = {mask.stem: mask for mask in images_in(truths)} if truths.is_dir() else {}
    test = []
    for file in images_in(root / "test") if (root / "test").is_dir() else ():
        mask = masks.get(f"{file.stem}_mask") or masks.get(file.stem)
        test.append(Example(f"test/{file.name}", file, _DEFECTIVE, (mask,) if mask else ()))
    train = [Example(f"train/{file.name}", file) for file in images_in(root / "train")]
    return {"train": train, "test": test}


class WovenFabrics(DefectBuilder):
    """A config for each of the two."""

    name = "woven_fabrics"
    LAYOUT = Layout(
        what="{category}/train",
        archives=("textures", "{category}"),
        root_of=_root,
        splits=_splits,
        wanted=own_folder,
    )
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=f"texture_{i}") for i in (1, 2)]
    ABOUT = "Two woven fabrics: of each 100 good gray images, and 50 with defects and their masks."
    HOMEPAGE = "https://www.mvtec.com/company/research/publications"
    LICENSE = "for research; cite the authors"
    CITATION = """@inproceedings{bergmann2019improving,
  title = {Improving Unsupervised Defect Segmentation by Applying Structural Similarity to
           Autoencoders},
  author = {Bergmann, Paul and L{\\"o}we, Sindy and Fauser, Michael and Sattlegger, David and
            Steger, Carsten},
  booktitle = {VISAPP},
  year = {2019}
}"""

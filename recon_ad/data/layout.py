"""The folders of a data set that hold good images, test images and masks.

MVTec AD's layout (Bergmann et al. 2019, CVPR, section 3) is `train/good`, `test/<defect>` and
`ground_truth/<defect>`; MVTec AD 2's (Heckler-Kram et al. 2025) is `train/good`,
`test_public/<defect>` and `test_public/ground_truth/<defect>`. In either, `validation/good` may
hold good images to calibrate with. Any other folder with images is a folder of good images.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from recon_ad.data.decode import SUFFIXES
from recon_ad.data.listing import images_below, images_in, subfolders
from recon_ad.data.source import GOOD
from recon_ad.errors import UserError

# In a folder without train/good every image counts as good, unless a folder has such a name.
_NOT_GOOD = frozenset(
    {"anomalies", "anomalous", "anomaly", "bad", "broken", "defect", "defective", "defects", "fail"}
    | {"ground_truth", "label", "labels", "mask", "masks", "ng", "nok", "reject", "rejects"}
    | {"test", "train", "validation"}
)
# Ends of the names of masks that lie beside their images.
_OF_MASKS = ("_gt", "_label", "_labels", "_mask", "_masks", "_seg", "_segmentation")


class Layout(NamedTuple):
    """The folders of a data set.

    Attributes:
      good: Folder of the good images.
      validation: Folder of good images that are never trained on; None where it is missing.
      test: Folder with a folder for each type of defect; None where all images are good ones.
      truths: Folder of the masks, laid out as `test` is.
      unused: Names of folders that hold images and are not used.
    """

    good: Path
    validation: Path | None = None
    test: Path | None = None
    truths: Path | None = None
    unused: tuple[str, ...] = ()

    def types(self) -> list[Path]:
        """Return the folders of test images, one for each type."""
        if self.test is None or not self.test.is_dir():
            return []
        folders = [f for f in subfolders(self.test) if f != self.truths]
        return [f for f in folders if f.suffix.lower() not in SUFFIXES]

    def good_images(self) -> list[Path]:
        """Return all good images that are not test images, those to train on first."""
        of_validation = images_below(self.validation) if self.validation else []
        return images_below(self.good) + of_validation

    def is_validation(self, file: Path) -> bool:
        """Return whether a good image belongs to the validation part."""
        return self.validation is not None and file.is_relative_to(self.validation)


def layout_of(root: Path) -> Layout:
    """Return the folders of a data set, below the folder that `dataset_root` finds."""
    good, public = root / "train" / GOOD, root / "test_public"
    if not good.is_dir():
        return Layout(root)
    validation = root / "validation" / GOOD
    if not validation.is_dir():
        validation = None
    if public.is_dir() and not (root / "test").is_dir():
        used = {"train", public.name, "roi"} | ({"validation"} if validation else set())
        others = [f.name for f in subfolders(root) if f.name not in used]
        return Layout(good, validation, public, public / "ground_truth", tuple(others))
    return Layout(good, validation, root / "test", root / "ground_truth")


def dataset_root(path: Path, category: str) -> Path:
    """Return the folder that holds `train/good` or the images.

    Raises:
      UserError: If there is none; the message lists what was found instead.
    """
    if not path.exists():
        raise UserError(f"{path}: folder not found: check the path")
    if not path.is_dir():
        raise UserError(f"{path}: is a file: give the folder that holds the images")
    root = path / category
    categories = [d.name for d in subfolders(path) if (d / "train" / GOOD).is_dir()]
    if not root.is_dir():
        there = f"there are {', '.join(categories)}" if categories else "there are none"
        raise UserError(f'{path}: has no category "{category}": {there}')
    if (root / "train" / GOOD).is_dir() or images_in(root):
        return root
    if categories and not category:
        raise UserError(
            f"{path}: holds a folder for each category: choose one with category=, several as a+b, "
            f"or all as *; there are {', '.join(categories)}"
        )
    if (root / "train").is_dir():
        raise UserError(f"{root}: has a folder train but no train/{GOOD}: put good images there")
    if images_below(root):
        return root
    raise UserError(
        f"{root}: holds neither images ({', '.join(sorted(SUFFIXES))}) nor a folder train/{GOOD}: "
        "give a folder of good images or one in the MVTec layout"
    )


def check_all_good(files: Iterable[Path], root: Path) -> None:
    """Raise UserError where a plain folder has a subfolder not named like good images."""
    folders = list(dict.fromkeys(file.parent.relative_to(root) for file in files))
    tops = {folder.parts[0].lower() for folder in folders if folder.parts}
    sorted_by_kind = GOOD in tops and len(tops) > 1
    for folder in folders:
        kinds = [part.lower() for part in folder.parts]
        if _NOT_GOOD & set(kinds) or (sorted_by_kind and kinds and kinds[0] != GOOD):
            raise UserError(
                f"{root}: has images in {folder} and no train/{GOOD}, so that they would count as "
                f"good: put the good images into train/{GOOD}, or give a folder of good images only"
            )


def check_no_masks(files: Iterable[Path]) -> None:
    """Raise UserError where masks lie among good images, beside the images they belong to."""
    stems = {file.parent / file.stem.lower(): file for file in files}
    for place, file in stems.items():
        for end in _OF_MASKS:
            of = stems.get(place.with_name(place.name.removesuffix(end)))
            if of not in (None, file):
                raise UserError(
                    f"{file} seems to be the mask of {of.name}, and would count as a good image: "
                    "put defective images into test/<defect> and their masks into "
                    "ground_truth/<defect>, or rename it if it is a good image"
                )

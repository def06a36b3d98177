"""Shared parts of the builders: the features, finding the download, checking and writing examples.

An example is a dict: `image`, the original file's bytes, 8 bits, gray or RGB, of any size; `mask`,
gray PNG of the image's size, 255 where defective; `has_mask`, False for a good image, and for a
defective one without a drawn truth (its mask is all 0 and means nothing); `label`, 0 good, 1
defective; `defect`, its type or "good"; `name`, the file's path in the data set; `channels` of the
file, 1 or 3 (TFDS itself decodes gray to three equal channels).

Without TensorFlow, TFDS encodes no arrays, and keeps no more than 1000 MiB of a split before it
writes. So images are given as paths and masks as encoded bytes, and that limit is lifted while a
builder writes: it holds one split of one category in memory, under 1 GB for MVTec AD.
"""

import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool
from PIL import Image
from tensorflow_datasets.core import shuffle

from recon_ad.data.decode import decode_image
from recon_ad.data.source import GOOD
from recon_ad.data.tfds_builders.downloads import find_root
from recon_ad.data.truth import united_mask
from recon_ad.errors import UserError

VERSION = "1.0.0"


class Example(NamedTuple):
    """One image of a download.

    Attributes:
      name: Path in the data set, with forward slashes.
      image: Path of the file.
      defect: `GOOD` or the type of its defect.
      masks: Files whose union is its truth; empty where it has no truth.
    """

    name: str
    image: Path
    defect: str = GOOD
    masks: tuple[Path, ...] = ()


def whole_archive(member: PurePosixPath, category: str) -> bool:
    """Return True for every file, as `Layout.wanted`."""
    return True


def own_folder(member: PurePosixPath, category: str) -> bool:
    """Return whether a file is in the category's folder or archive, as `Layout.wanted`."""
    return category in member.parts


class Layout(NamedTuple):
    """The layout of a data set's files; each function takes the category last, "" if it has none.

    Attributes:
      what: Folder that makes the data set, for messages; `{category}` is filled in.
      archives: Names of the archive without suffix, the likeliest first, with `{category}` as well.
      root_of: Returns the root of the data set if the given folder is or has one, else None.
      splits: Returns the examples of every split, from the root.
      wanted: Returns whether to unpack the file of this path, which begins with the archive's name.
    """

    what: str
    archives: tuple[str, ...]
    root_of: Callable[[Path, str], Path | None]
    splits: Callable[[Path, str], dict[str, list[Example]]]
    wanted: Callable[[PurePosixPath, str], bool] = whole_archive


class DefectBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set for learning from good images only, read from the user's download.

    A subclass has a `name`, `BUILDER_CONFIGS` where the set has categories, and:

    Attributes:
      LAYOUT: The layout of its files.
      ABOUT: Its subject, in a sentence.
      HOMEPAGE: Address to get it from.
      LICENSE: Its terms, in short.
      CITATION: The paper, as BibTeX.
    """

    VERSION = tfds.core.Version(VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the archive of the data set, as downloaded from its home page, or what is in it, into "
        "the folder."
    )
    LAYOUT: Layout
    ABOUT: str
    HOMEPAGE: str
    LICENSE: str
    CITATION: str

    def __init__(self, *, file_format: Any = "array_record", **kwargs: Any):
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.ABOUT,
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            citation=self.CITATION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "mask": tfds.features.Image(shape=(None, None, 1)),
                    "has_mask": np.bool_,
                    "label": tfds.features.ClassLabel(names=[GOOD, "defective"]),
                    "defect": tfds.features.Text(),
                    "name": tfds.features.Text(),
                    "channels": np.uint8,
                }
            ),
        )

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        limit = shuffle.MAX_MEM_BUFFER_SIZE
        # Beyond the limit examples would go to disk by TensorFlow's file functions.
        shuffle.MAX_MEM_BUFFER_SIZE = sys.maxsize
        try:
            # TFDS's own folder for unfinished sets: a stopped build leaves no other.
            with tempfile.TemporaryDirectory(dir=self.data_dir) as scratch:
                self._scratch = Path(scratch)
                super()._download_and_prepare(*args, **kwargs)
        finally:
            shuffle.MAX_MEM_BUFFER_SIZE = limit

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        layout, config = self.LAYOUT, self.builder_config
        category = config.name if config else ""
        root = find_root(
            Path(dl_manager.manual_dir),
            lambda folder: layout.root_of(folder, category),
            archives=[name.format(category=category) for name in layout.archives],
            wanted=lambda member: layout.wanted(member, category),
            scratch=self._scratch,
            what=layout.what.format(category=category),
        )
        splits = layout.splits(root, category)
        if not splits["train"]:
            raise UserError(f"{root}: has no good image to train on: check that it is complete")
        # TFDS cannot write an empty split.
        return {
            split: self._generate_examples(examples)
            for split, examples in splits.items()
            if examples
        }

    def _generate_examples(self, examples: list[Example]) -> Iterator[tuple[str, dict]]:
        for example in examples:
            image = decode_image(example.image)
            if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
                raise UserError(
                    f"{example.image}: has {image.shape[2]} channels of {image.dtype}, and TFDS "
                    "keeps 8-bit gray or RGB: read this set as a folder"
                )
            size = image.shape[:2]
            mask = united_mask(example.masks) if example.masks else np.zeros(size, bool)
            if mask.shape != size:
                raise UserError(
                    f"{example.masks[0]}: the mask has {mask.shape[0]} × {mask.shape[1]} pixels "
                    f"(height × width) and its image {example.image} has {size[0]} × {size[1]}: "
                    "fetch the data set again"
                )
            yield (
                example.name,
                {
                    "image": example.image,
                    "mask": _png(mask),
                    "has_mask": bool(mask.any()),
                    "label": int(example.defect != GOOD),
                    "defect": example.defect,
                    "name": example.name,
                    "channels": image.shape[2],
                },
            )


def _png(mask: Bool[np.ndarray, "h w"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()

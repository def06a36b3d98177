"""A source of images with labels in CSV files, in the format of Sewer-ML.

Sewer-ML (Haurum & Moeslund 2021, CVPR): 1.3 million images of sewer pipes, each with any of 17
defects, in `SewerML_Train.csv` and `SewerML_Val.csv`; the labels of its test set are not public.
The columns are `Filename`, `WaterLevel`, `VA` (water level again, not a defect), the 17 defects,
`ND` (no defect) and `Defect` (any of the 17); values are 0 or 1. The set has no masks.

Listing reads the CSV files and checks that about a hundred images of each exist. The others are
located when they load, since asking a network disk for a million files is slow.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from recon_ad.data.decode import check_channels, decode_image
from recon_ad.data.listing import subfolders
from recon_ad.data.source import GOOD, Record, Source
from recon_ad.errors import UserError

# Cracks, surface damage, production error, deformation, ...: in the CSV files' own order.
# fmt: off
SEWER_ML_DEFECTS = (
    "RB", "OB", "PF", "DE", "FS", "IS", "RO", "IN", "AF",
    "BE", "FO", "GR", "PH", "PB", "OS", "OP", "OK",
)
# fmt: on
_TRAIN, _TEST = "SewerML_Train.csv", "SewerML_Val.csv"
_NAME, _ANY = "Filename", "Defect"
_LOOKED_FOR = 100  # images of each CSV file, about


class _Load(NamedTuple):
    """Loader of one image: a tuple of shared state and the name, as there are a million of them."""

    folders: "_Folders"
    name: str

    def __call__(self) -> Shaped[np.ndarray, "h w c"]:
        return decode_image(self.folders.find(self.name), channels=self.folders.channels)


class _Folders:
    """Folders of the images: one folder, or all folders directly below it.

    Args:
      folder: Folder that the user gave.
      channels: Number of channels to read images with.
    """

    def __init__(self, folder: Path, channels: int):
        self.channels = channels
        self._folder = folder
        self._below: list[Path] | None = None

    def find(self, name: str) -> Path:
        """Return the path of the file of this name.

        Raises:
          UserError: If no folder holds it.
        """
        path = self._folder / name
        if path.exists():
            return path
        if self._below is None:  # not before: a flat folder of a million files is slow to list
            self._below = subfolders(self._folder)
        for folder in self._below:
            if (path := folder / name).exists():
                return path
        raise UserError(
            f"{self._folder}: the image {name} is listed but neither there nor in a folder below: "
            "unpack the archives of images there"
        )


def csv_source(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str],
    channels: int | None = None,
) -> Source:
    """List Sewer-ML: the good images of its training set, and its validation set as the test set.

    Args:
      path: Folder with `SewerML_Train.csv` and `SewerML_Val.csv`.
      images: Folder with the images, or with the folders that the archives unpack to.
      channels: 1 (gray) or 3 (RGB) for all images. None means 3; no image is opened to find out.

    Returns:
      Records named as in the column `Filename` and sorted by it. An image is good if the file says
      so in every column of a defect, and in `Defect` where it has that. The type of a defective
      image is the names of its columns in their order joined by "+", such as "RB+RO". 1.3 million
      rows take 6 seconds and 0.4 GB on one CPU core of an EPYC.

    Raises:
      UserError: If a file is missing, is not a CSV file in UTF-8, lacks a column or has no rows; if
        a row is too short or long, a value is not 0 or 1, or a name is empty or listed twice, also
        in both files; if no training image is good; or if one of the images checked does not exist.
    """
    check_channels(channels)
    root, folder = Path(path).expanduser(), Path(images).expanduser()
    for needed in (root, folder):
        if not needed.is_dir():
            raise UserError(f"{needed}: folder not found: check the path")
    folders = _Folders(folder, 3 if channels is None else channels)
    listed: set[str] = set()
    train, test = (_labels(root / name, listed) for name in (_TRAIN, _TEST))
    good = [(name, defect) for name, defect in train if defect == GOOD]
    if not good:
        raise UserError(
            f"{root / _TRAIN}: lists no image without a defect: none is left to train on"
        )
    return Source(_records(good, folders), _records(test, folders))


def _records(labels: list[tuple[str, str]], folders: _Folders) -> tuple[Record, ...]:
    labels.sort()
    for name, _ in labels[:: max(1, len(labels) // _LOOKED_FOR)]:
        folders.find(name)
    return tuple(Record(name, _Load(folders, name), defect) for name, defect in labels)


def _labels(path: Path, listed: set[str]) -> list[tuple[str, str]]:
    """Return the name and the type of defect of each row; add the names to those listed."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            labels = list(_parsed(csv.reader(file), path, listed))
    except FileNotFoundError as error:
        raise UserError(f"{path}: file not found: put {path.name} there") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text in UTF-8 ({error}): save it as CSV UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}: is not a valid CSV file ({error}): fetch it again") from error
    if not labels:
        raise UserError(f"{path}: lists no images: fetch it again")
    return labels


def _parsed(rows: Iterator[list[str]], path: Path, listed: set[str]) -> Iterator[tuple[str, str]]:
    header = [column.strip() for column in next(rows, [])]
    missing = [column for column in (_NAME, *SEWER_ML_DEFECTS) if column not in header]
    if missing:
        raise UserError(
            f"{path}: has no column {missing[0]}: its first line has to name the columns, "
            f"separated by commas, among them {_NAME} and one for each defect"
        )
    columns = [column for column in header if column in (*SEWER_ML_DEFECTS, _ANY)]
    name_of = itemgetter(header.index(_NAME))
    values_of = itemgetter(*map(header.index, columns))
    known: dict[tuple[str, ...], str] = {}  # combinations are few, rows a million
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            if not row:  # an empty line
                continue
            raise UserError(
                f"{path}: row {number} has {len(row)} values and the first {len(header)}: fetch "
                "the file again"
            )
        name, values = name_of(row), values_of(row)
        defect = known.get(values)
        if defect is None:
            for column, value in zip(columns, values, strict=True):
                if value not in ("0", "1"):
                    raise UserError(
                        f"{path}: row {number} ({name}) has {value!r} in column {column}: give 0 "
                        "or 1"
                    )
            defect = known[values] = _defect(columns, values)
        if not name or name in listed:
            what = f"lists {name} a second time" if name else "names no image"
            raise UserError(f"{path}: row {number} {what}: remove the row")
        listed.add(name)
        yield name, defect


def _defect(columns: Sequence[str], values: Sequence[str]) -> str:
    """Return the columns of defects that are 1, or "Defect" if only that one is."""
    present = [column for column, value in zip(columns, values, strict=True) if value == "1"]
    return "+".join(column for column in present if column != _ANY) or (present or [GOOD])[0]

"""Small generated data sets in the file layouts of the real ones."""

import csv
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (20, 30)  # height and width in px of most images
SEWER_ML = [
    "Filename", "WaterLevel", "VA",
    "RB", "OB", "PF", "DE", "FS", "IS", "RO", "IN", "AF", "BE", "FO", "GR", "PH", "PB",
    "OS", "OP", "OK", "ND", "Defect",
]  # fmt: skip


def picture(path: Path, size: tuple[int, int] = SIZE, *, rgb: bool = False) -> Path:
    """Write noise that depends on the end of the path, in the format of its suffix."""
    random = np.random.default_rng(zlib.crc32("/".join(path.parts[-4:]).encode()))
    return saved(path, random.integers(0, 256, size + (3,) * rgb, dtype=np.uint8))


def saved(path: Path, image: np.ndarray | Image.Image, **options: Any) -> Path:
    """Write an image and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def mask(path: Path, *corners: int, size: tuple[int, int] = SIZE, value: int = 255) -> Path:
    """Write a mask with a rectangle of 3 × 4 px at row = column = each of the corners."""
    return saved(path, np.uint8(value) * rectangles(*corners, size=size).astype(np.uint8))


def cut(path: Path) -> Path:
    """Cut off the second half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 100])
    return path


def rectangles(*corners: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return the pixels that `mask` marks, bool [h, w]."""
    marked = np.zeros(size, bool)
    for corner in corners:
        marked[corner : corner + 3, corner : corner + 4] = True
    return marked


def mvtec_ad(folder: Path, category: str = "bottle", *, rgb: bool = True) -> Path:
    """Write 3 good and 2 + 3 test images; the second crack is elsewhere, the blob has no mask."""
    root = folder / category
    for i in range(3):
        picture(root / f"train/good/{i:03d}.png", rgb=rgb)
    for i in range(2):
        picture(root / f"test/good/{i:03d}.png", (SIZE[0] + i, SIZE[1]), rgb=rgb)
        picture(root / f"test/crack/{i:03d}.png", rgb=rgb)
        mask(root / f"ground_truth/crack/{i:03d}_mask.png", 2 + 5 * i)
    picture(root / "test/blob/000.png", rgb=rgb)
    (root / "license.txt").write_text("of the data set")
    return folder


def mvtec_loco(folder: Path, category: str = "pushpins") -> Path:
    """Write 3 good, 2 validation and 1 + 1 + 1 test images; the logical one has two masks."""
    root = folder / category
    for i in range(3):
        picture(root / f"train/good/{i:03d}.png", rgb=True)
    for i in range(2):
        picture(root / f"validation/good/{i:03d}.png", rgb=True)
    for kind in ("good", "logical_anomalies", "structural_anomalies"):
        picture(root / f"test/{kind}/000.png", rgb=True)
    mask(root / "ground_truth/logical_anomalies/000/000.png", 2, value=254)
    mask(root / "ground_truth/logical_anomalies/000/001.png", 9, value=230)
    mask(root / "ground_truth/structural_anomalies/000/000.png", 5)
    (root / "defects_config.json").write_text("[]")
    return folder


def mvtec_ad_2(folder: Path, category: str = "can") -> Path:
    """Write 3 good, 2 validation and 1 + 2 test images, and one in each of the private parts."""
    root = folder / category
    for i in range(3):
        picture(root / f"train/good/{i:03d}_regular.png", rgb=True)
    for i in range(2):
        picture(root / f"validation/good/{i:03d}_regular.png", rgb=True)
        picture(root / f"test_public/bad/{i:03d}_regular.png", rgb=True)
        mask(root / f"test_public/ground_truth/bad/{i:03d}_regular_mask.png", 2 + i)
    picture(root / "test_public/good/000_overexposed.png", rgb=True)
    picture(root / "test_private/000_regular.png", rgb=True)
    picture(root / "test_private_mixed/000_shift_1.png", (SIZE[0] + 1, SIZE[1]), rgb=True)
    return folder


def visa(folder: Path, category: str = "candle") -> Path:
    """Write 3 good and 1 + 2 test images, and a second category that must stay separate."""
    splits = [["object", "split", "label", "image", "mask"]]
    for name in (category, "pcb4"):
        labels = [["image", "label", "mask"]]
        for i in range(4):
            image = f"{name}/Data/Images/Normal/{i:04d}.JPG"
            picture(folder / image, rgb=True)
            splits.append([name, "train" if i < 3 else "test", "normal", image, ""])
            labels.append([image, "normal", ""])
        for i, defects in enumerate(("melt", "chunk of wax missing, melt")):
            image = f"{name}/Data/Images/Anomaly/{i:03d}.JPG"
            truth = f"{name}/Data/Masks/Anomaly/{i:03d}.png"
            picture(folder / image, rgb=True)
            mask(folder / truth, 2 + i, value=1 + i)
            splits.append([name, "test", "anomaly", image, truth])
            labels.append([image, defects, truth])
        table(folder / name / "image_anno.csv", labels)
    table(folder / "split_csv" / "1cls.csv", splits)
    table(folder / "split_csv" / "2cls_highshot.csv", splits[:1])
    return folder


def nanotwice(folder: Path) -> Path:
    """Write 2 good and 3 defective images; the good ones are 4 px taller."""
    for i in range(2):
        picture(folder / f"Normal/ND{i:02d}.tif", (SIZE[0] + 4, SIZE[1]))
    for i in range(3):
        picture(folder / f"Anomalous/images/ITIA11{i:02d}.tif")
        mask(folder / f"Anomalous/gt/ITIA11{i:02d}_gt.png", 2 + i)
    return folder


def woven_fabrics(folder: Path, category: str = "texture_2", *, flat: bool = False) -> Path:
    """Write 3 good and 2 defective images; `flat` omits the folders train/good, test/defective."""
    root = folder / category
    for i in range(3):
        picture(root / "train" / ("" if flat else "good") / f"{i:03d}.png")
    for i in range(2):
        picture(root / "test" / ("" if flat else "defective") / f"{i:03d}.png")
        mask(root / f"ground_truth/defective/{i:03d}.png", 2 + i)
    return folder


def kolektor_sdd(folder: Path) -> Path:
    """Write four commutators with 3 images each; the first and the last have a crack."""
    for number in (1, 25, 26, 50):
        for part in range(3):
            picture(folder / f"kos{number:02d}" / f"Part{part}.jpg")
            cracked = part == 1 and number in (1, 50)
            mask(folder / f"kos{number:02d}" / f"Part{part}_label.bmp", *[2] * cracked)
    return folder


def sewer_ml(
    folder: Path,
    *,
    train: Sequence[str] = ("", "", "RB", "", "RO+OK"),
    test: Sequence[str] = ("", "RB", "RO+OK", "AF"),
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write the two CSV files with a row for each of the given labels, and images/."""
    for name, labels, first in (("Train", train, 0), ("Val", test, len(train))):
        named = {f"{i:08d}.png": label for i, label in enumerate(labels, start=first)}
        for image in named:
            picture(folder / "images" / image, size, rgb=True)
        table(folder / f"SewerML_{name}.csv", [SEWER_ML, *map(sewer_row, named, named.values())])
    return folder


def sewer_row(name: str, label: str) -> list[str]:
    """Return a row of Sewer-ML's files, with a water level, which is a column but not a defect."""
    present = set(label.split("+")) - {""}
    values = {column: str(int(column in present)) for column in SEWER_ML}
    values |= {"Filename": name, "WaterLevel": "15", "VA": "1"}
    return [*(values | {"ND": str(int(not present)), "Defect": str(int(bool(present)))}).values()]


def table(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def packed(folder: Path, archive: Path) -> Path:
    """Pack a folder's content in the format of the suffix: .zip, .tar, .tar.gz or .tar.xz."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    kind = {".zip": "zip", ".tar": "tar", ".gz": "gztar", ".xz": "xztar"}[archive.suffix]
    made = Path(shutil.make_archive(str(archive.parent / "made"), kind, folder))
    return made.rename(archive)

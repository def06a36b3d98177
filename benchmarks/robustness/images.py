"""Trials of damaged images, each of which must be decoded twice to the same pixels or refused."""

import io
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from benchmarks.robustness.damage import damaged, with_checksums
from benchmarks.robustness.trials import Verdict
from recon_ad.data.decode import decode_image, decode_mask, image_size, stored_type
from recon_ad.errors import UserError


def whole_files() -> dict[str, bytes]:
    """Return small images of every supported kind."""
    rng = np.random.default_rng(0)
    gray, colour, alpha = (rng.integers(0, 256, (24, 31, *c), np.uint8) for c in ((), (3,), (4,)))
    deep = rng.integers(0, 65536, (24, 31), np.uint16)
    floats = rng.random((24, 31, 3)).astype(np.float32)
    exif = Image.Exif()
    exif[0x0112] = 6
    files: dict[str, bytes] = {}

    def keep(name: str, image: np.ndarray | Image.Image, **options: object) -> None:
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        content = io.BytesIO()
        picture.save(content, name.rpartition(".")[2], **options)
        files[name] = content.getvalue()

    for name, image in (("gray", gray), ("colour", colour), ("alpha", alpha), ("deep", deep)):
        keep(f"{name}.png", image)
    keep("bit.png", gray > 128)
    keep("palette.png", Image.fromarray(colour).quantize(8))
    keep("turned.png", colour, exif=exif.tobytes())
    for name, options in (("plain", {}), ("progressive", {"progressive": True}), ("turned", {})):
        keep(f"{name}.jpeg", colour, exif=exif.tobytes(), **options)
    keep("gray.jpeg", gray)
    for name, image in (("gray", gray), ("colour", colour), ("alpha", alpha)):
        keep(f"{name}.bmp", image)
    for kind in ("deep", "colour"):
        image = {"deep": deep, "colour": np.dstack([deep] * 3)}[kind]
        files[f"{kind}_16.png"] = cv2.imencode(".png", image)[1].tobytes()
    for name, image in (("gray", gray), ("colour", colour), ("deep", deep), ("floats", floats)):
        for compression in (None, "lzw", "zlib", "packbits"):
            content = io.BytesIO()
            photometric = "rgb" if image.ndim == 3 else "minisblack"
            tifffile.imwrite(content, image, photometric=photometric, compression=compression)
            files[f"{name}_{compression}.tif"] = content.getvalue()
    content = io.BytesIO()
    tifffile.imwrite(content, np.stack([gray, gray]), photometric="minisblack", tile=(16, 16))
    files["pages.tif"] = content.getvalue()
    for name, image in (("colour", colour), ("deep", deep), ("floats", floats)):
        content = io.BytesIO()
        np.save(content, image)
        files[f"{name}.npy"] = content.getvalue()
    return files


def write_damaged(folder: Path, files: Mapping[str, bytes], rng: random.Random) -> tuple[str, Path]:
    """Damage one of the files and write it; return its name among them and the written path."""
    name = rng.choice(list(files))
    content = damaged(files[name], rng, others=list(files.values()))
    if name.endswith(".png") and rng.random() < 0.85:
        content = with_checksums(content)
    file = folder / f"image{Path(name).suffix}"
    file.write_bytes(content)
    return name, file


def images(folder: Path, seed: int) -> Callable[[int], Verdict]:
    """Make trials that pass one damaged file to every reader."""
    files = whole_files()

    def trial(i: int) -> Verdict:
        rng = random.Random(seed * 1_000_003 + i)
        name, file = write_damaged(folder, files, rng)
        what = f"trial {i}: a damaged {name}"
        for reader in (decode_mask, stored_type):
            try:
                reader(file)
            except UserError:
                continue
        try:
            first, second = decode_image(file), decode_image(file)
        except UserError as error:
            wrong = "\n" in str(error)
            return ("wrong", f"{what}: several lines") if wrong else ("refused", what)
        same = first.tobytes() == second.tobytes() and first.shape[:2] == image_size(file)
        return ("accepted", what) if same else ("wrong", f"{what}: two readings differ")

    return trial

"""More than thirty odd files as users really have them, and the expected result for each."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from helpers.layouts import saved

GRAY = np.random.default_rng(3).integers(60, 180, (96, 128), dtype=np.uint8)
RGB = np.dstack([GRAY, GRAY[::-1], GRAY[:, ::-1]])
DEEP = GRAY.astype(np.uint16) * 257

# A part of the error that the table must contain, by the name of the file.
BROKEN = {
    "truncated.png": "truncated", "truncated.jpg": "truncated", "truncated.tif": "truncated",
    "truncated.bmp": "truncated", "truncated_16_bit_colour.png": "truncated",
    "zero_bytes.png": "empty file (0 bytes)", "text.png": "not an image that can be decoded",
    "html.jpg": "not an image that can be decoded",
    "gif_inside.png": "not an image that can be decoded", "noise_inside.png": "cannot be decoded",
    "folder.png": "is a folder with the name of an image", "dangling.png": "is a link to",
    "pipe.png": "is not a regular file", "nan.tif": "NaN or infinite",
    "infinite.npy": "NaN or infinite", "float_in_255.tif": "outside the range from 0 to 1",
    "integers_32_bit.tif": "signed integers", "cmyk.jpg": "CMYK", "lab.tif": "CIELAB",
    "animated.png": "holds 2 pages", "channels_first.npy": "channels last",
    "five_channels.npy": "has 5 channels and not 1", "two_pages.tif": "has 2 channels and not 1",
    "pickled.npy": "cannot be decoded", "cube.npy": "holds an array",
}  # fmt: skip
SCORED = (
    "gray.png", "one_bit.png", "rgb.png", "rgba.png", "gray_alpha.png", "palette.png",
    "sixteen_bit.png", "sixteen_bit.tif", "sixteen_bit_colour.png", "float.tif", "float.npy",
    "one_pixel.png", "smaller_than_a_tile.png", "long.png", "turned.jpg",
    "name with spaces, commas & ünïcode.png", "UPPER.PNG", "sub/folder/deep.jpeg", "link.png",
    "cmyk_named.tif.jpg",
)  # fmt: skip


def write_odd_files(folder: Path) -> None:
    """Write all files of `BROKEN` and `SCORED`, and two files that the program must ignore."""

    def save(name: str, image, **options) -> Path:
        return saved(folder / name, image, **options)

    def cut(name: str, image) -> None:
        data = save(name, image).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 2 // 3])

    for suffix in ("png", "jpg", "tif", "bmp"):
        cut(f"truncated.{suffix}", np.kron(RGB, np.ones((4, 4, 1), np.uint8)))
    deep_colour = cv2.imencode(".png", np.dstack([DEEP, DEEP[::-1], DEEP]))[1].tobytes()
    start = save("noise_inside.png", RGB).read_bytes()[:60]
    for name, content in {
        "truncated_16_bit_colour.png": deep_colour[: len(deep_colour) // 2],
        "sixteen_bit_colour.png": deep_colour, "zero_bytes.png": b"", ".hidden.png": b"",
        "noise_inside.png": start + np.random.default_rng(4).bytes(5000),
        "text.png": b"the camera was off\n" * 30, "html.jpg": b"<html><body>404</body></html>",
        "readme.txt": b"not an image, and not called one",
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    (folder / "link.png").symlink_to(folder / "gray.png")
    os.mkfifo(folder / "pipe.png")

    unit = GRAY.astype(np.float32) / 255
    nan, infinite = unit.copy(), unit.copy()
    nan[3, 4], infinite[3, 4] = np.nan, np.inf
    for name, array in {
        "infinite.npy": infinite, "channels_first.npy": np.moveaxis(RGB, 2, 0),
        "five_channels.npy": np.dstack([GRAY] * 5), "cube.npy": np.zeros((2, 3, 4, 5), np.uint8),
        "pickled.npy": np.array([{"image": 1}], object), "float.npy": unit.astype(np.float64),
    }.items():  # fmt: skip
        np.save(folder / name, array, allow_pickle=True)
    pages = {"save_all": True, "append_images": [Image.fromarray(GRAY[::-1])]}
    for name in ("animated.png", "two_pages.tif"):
        save(name, GRAY, **pages)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("turned.jpg", GRAY, exif=exif)
    save("gif_inside.png", GRAY, format="GIF")
    colour = Image.fromarray(RGB)
    for name, image in {
        "nan.tif": nan, "float_in_255.tif": unit * 255, "float.tif": unit,
        "integers_32_bit.tif": GRAY.astype(np.int32), "sixteen_bit.png": DEEP,
        "sixteen_bit.tif": DEEP, "cmyk.jpg": colour.convert("CMYK"),
        "lab.tif": colour.convert("LAB"), "palette.png": colour.convert("P"), "rgb.png": RGB,
        "rgba.png": np.dstack([RGB, GRAY]), "gray_alpha.png": np.dstack([GRAY, GRAY]),
        "one_bit.png": Image.fromarray(GRAY > 120), "one_pixel.png": GRAY[:1, :1],
        "smaller_than_a_tile.png": GRAY[:9, :11],
        "long.png": np.tile(GRAY[:20], (1, 157))[:, :20000].T.copy(),
    }.items():  # fmt: skip
        save(name, image)
    for name in SCORED:  # the remaining ones
        if not (folder / name).exists():
            save(name, GRAY)

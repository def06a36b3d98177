"""Thirty-odd files that users really have, beside good ones, and what is to become of each."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

GRAY = np.random.default_rng(3).integers(60, 180, (96, 128), dtype=np.uint8)
RGB = np.dstack([GRAY, GRAY[::-1], GRAY[:, ::-1]])
DEEP = GRAY.astype(np.uint16) * 257

# Name -> a part of the sentence that has to stand in the table.
BROKEN = {
    "truncated.png": "truncated", "truncated.jpg": "truncated", "truncated.tif": "truncated",
    "truncated.bmp": "truncated", "truncated_16_bit_colour.png": "truncated",
    "zero_bytes.png": "empty file (0 bytes)", "text.png": "not an image that can be decoded",
    "html.jpg": "not an image that can be decoded",
    "gif_inside.png": "not an image that can be decoded", "noise_inside.png": "cannot be decoded",
    "folder.png": "is a folder with the name of an image", "dangling.png": "is a link to",
    "pipe.png": "is not a regular file", "nan.tif": "NaN or infinite",
    "infinite.npy": "NaN or infinite", "float_in_255.tif": "outside the range from 0 to 1",
    "integers_32_bit.tif": "32-bit integers", "cmyk.jpg": "CMYK", "lab.tif": "CIELAB",
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
    """All of `BROKEN` and `SCORED`, and two files that are none of the program's business."""
    (folder / "sub/folder").mkdir(parents=True)

    def save(name: str, image, **options) -> Path:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image.save(folder / name, **options)
        return folder / name

    def cut(name: str, image) -> None:
        data = save(name, image).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 2 // 3])

    for suffix in ("png", "jpg", "tif", "bmp"):
        cut(f"truncated.{suffix}", np.kron(RGB, np.ones((4, 4, 1), np.uint8)))
    deep_colour = cv2.imencode(".png", np.dstack([DEEP, DEEP[::-1], DEEP]))[1].tobytes()
    (folder / "truncated_16_bit_colour.png").write_bytes(deep_colour[: len(deep_colour) // 2])
    (folder / "zero_bytes.png").touch()
    (folder / "text.png").write_text("the camera was off\n" * 30)
    (folder / "html.jpg").write_text("<html><body>404</body></html>")
    save("gif_inside.png", GRAY, format="GIF")
    whole = save("noise_inside.png", RGB).read_bytes()
    (folder / "noise_inside.png").write_bytes(whole[:60] + np.random.default_rng(4).bytes(5000))
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    os.mkfifo(folder / "pipe.png")
    unit = GRAY.astype(np.float32) / 255
    wrong = unit.copy()
    wrong[3, 4] = np.nan
    save("nan.tif", wrong)
    np.save(folder / "infinite.npy", np.where(np.isnan(wrong), np.inf, wrong))
    save("float_in_255.tif", unit * 255)
    save("integers_32_bit.tif", GRAY.astype(np.int32))
    save("cmyk.jpg", Image.fromarray(RGB).convert("CMYK"))
    save("lab.tif", Image.fromarray(RGB).convert("LAB"))
    other = Image.fromarray(GRAY[::-1])
    save("animated.png", GRAY, save_all=True, append_images=[other])
    np.save(folder / "channels_first.npy", np.moveaxis(RGB, 2, 0))
    np.save(folder / "five_channels.npy", np.dstack([GRAY] * 5))
    save("two_pages.tif", GRAY, save_all=True, append_images=[other])
    np.save(folder / "pickled.npy", np.array([{"image": 1}], object), allow_pickle=True)
    np.save(folder / "cube.npy", np.zeros((2, 3, 4, 5), np.uint8))

    save("gray.png", GRAY)
    save("one_bit.png", Image.fromarray(GRAY > 120))
    save("rgb.png", RGB)
    save("rgba.png", np.dstack([RGB, GRAY]))
    save("gray_alpha.png", np.dstack([GRAY, GRAY]))
    save("palette.png", Image.fromarray(RGB).convert("P"))
    save("sixteen_bit.png", DEEP)
    save("sixteen_bit.tif", DEEP)
    (folder / "sixteen_bit_colour.png").write_bytes(deep_colour)
    save("float.tif", unit)
    np.save(folder / "float.npy", unit.astype(np.float64))
    save("one_pixel.png", GRAY[:1, :1])
    save("smaller_than_a_tile.png", GRAY[:9, :11])
    save("long.png", np.tile(GRAY[:20], (1, 157))[:, :20000].T.copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    save("turned.jpg", GRAY, exif=exif)
    save("name with spaces, commas & ünïcode.png", GRAY)
    save("UPPER.PNG", GRAY)
    save("sub/folder/deep.jpeg", GRAY)
    (folder / "link.png").symlink_to(folder / "gray.png")
    save("cmyk_named.tif.jpg", GRAY)
    (folder / "readme.txt").write_text("not an image, and not called one")
    (folder / ".hidden.png").write_bytes(b"")

"""The built C++ program, exported models and images for it."""

import functools
import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.classifiers import with_classifier
from helpers.cpp import CATEGORY, MODELS, called, noise
from helpers.detectors import make_detector
from helpers.layouts import saved
from helpers.paths import ROOT
from helpers.png_files import with_clear_colour
from helpers.shared_folders import made_once
from PIL import Image

from recon_ad.detector import onnx_export
from recon_ad.detector.inference import Thresholds

SOURCE = ROOT / "deploy" / "cpp"


@pytest.fixture(scope="session")
def program(shared_folder) -> Path:
    """Return the path of the built program, which all processes of a test run share."""
    for tool in ("cmake", "make", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    found = Path(find_spec("openvino").origin).parent / "cmake"

    def build(folder: Path) -> None:
        done = called("cmake", "-S", SOURCE, "-B", folder, f"-DOpenVINO_DIR={found}")
        for library in ("PNG", "JPEG"):
            if f"Could NOT find {library}" in done.stderr:
                pytest.skip(f"the headers of lib{library.lower()} are not installed")
        assert done.returncode == 0, done.stderr
        done = called("make", "-C", folder)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr

    return made_once(shared_folder / "cpp", build) / "recon_ad_inspect"


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Write a folder with files of every kind that the program reads, and broken ones."""
    folder = tmp_path_factory.mktemp("images")

    def save(name, image, **options):
        return saved(folder / name, image, **options)

    gray, colour = noise()[..., 0], noise(channels=3)
    deep = noise(channels=4, dtype=np.uint16)
    palette = Image.fromarray(colour).quantize(50)
    save("palette_alpha.png", palette, transparency=bytes(range(0, 250, 5)))
    for name, image in {
        "gray": gray, "colour": colour, "one_bit": Image.fromarray(gray > 128),
        "gray_alpha": np.dstack([gray, gray[::-1]]), "colour_alpha": np.dstack([colour, gray]),
        "palette": palette, "gray_palette": Image.fromarray(gray).convert("P"),
        "deep": deep[..., 0], "twelve_bits": deep[..., 0] // 16,
    }.items():  # fmt: skip
        save(f"{name}.png", image)
    for name, channels in (("deep_colour", 3), ("deep_alpha", 4)):
        assert cv2.imwrite(str(folder / f"{name}.png"), deep[..., :channels])
    for depth, kind in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)):
        file = folder / f"clear/{depth}_{kind}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(with_clear_colour(depth, kind)[0])
    for height, width in ((1, 1), (5, 64), (33, 31), (100, 33), (301, 257)):
        save(f"sizes/{height}x{width}.png", noise(height, width, 3))
    save("photo.jpg", colour, quality=80)
    save("photo_progressive.jpeg", colour, quality=60, progressive=True, subsampling=0)
    save("photo_gray.JPG", gray)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"turned/{orientation}.jpg", colour, exif=exif)
        save(f"turned/{orientation}.png", gray, exif=exif)
    for name in ("truncated.png", "truncated.jpg"):
        data = save(name, noise(200, 200, 3)).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    (folder / "text.png").write_text("the camera was off\n" * 30)
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    save("animated.png", gray, save_all=True, append_images=[Image.fromarray(gray[::-1])])
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Return a function that exports a model of `MODELS` with random weights and thresholds.

    Some images are above the thresholds. Models on features have a classifier of them."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def made(name: str, features: str = "") -> Path:
        model = folder / f"{name}{features}.onnx"
        channels, fields, options = MODELS[name]
        kind = np.uint16 if options["dtype"] == "uint16" else np.uint8
        pictures = [noise(*size, channels, kind) for size in ((50, 70), (60, 33), (10, 9))]
        detector = make_detector(channels=channels, thresholds=Thresholds(1.0, 1.0), **fields)
        found = [detector.predict(picture) for picture in pictures]
        # Below the scores of large images, whose masks have several regions.
        score = 0.99 * float(min(p.score for p in found[:2]))
        pixel = float(np.quantile(found[0].anomaly_map, 0.85))
        categories = {
            category: Thresholds(share * score, share * pixel)
            for category, share in (("a part", 0.5), (CATEGORY, 1.5))
        }
        # Half of the thresholds. The second category has a median above its threshold.
        medians = {"": score / 2, "a part": score / 4, CATEGORY: 2 * score}
        shown = ["a part", "a part", "a part", CATEGORY]
        scores = [medians["a part"]] * 2 + [3 * score / 4, medians[CATEGORY]]
        record = {"calibration": {"scores": scores, "shown": shown}}
        detector = detector.with_thresholds(Thresholds(score, pixel), record, categories=categories)
        assert detector.medians == medians
        if features:
            detector = with_classifier(detector, features)
        assert onnx_export.export(detector, model, pictures, **options)["passed"]
        return model

    return made


@pytest.fixture
def model(exported):
    return exported("gray")

"""The application in C++ judges as `python -m recon_ad.predict --onnx` does."""

import csv
import functools
import io
import json
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.classifiers import with_classifier
from helpers.commands import run_command
from helpers.detectors import make_detector
from helpers.layouts import saved
from helpers.paths import ROOT
from PIL import Image

from recon_ad.data.decode import decode_image
from recon_ad.detector import onnx_export
from recon_ad.detector.inference import Thresholds

pytestmark = pytest.mark.slow

SOURCE = ROOT / "deploy" / "cpp"
RESIZED = {"data.resize": (48, 80)}
ONE_TILE = {"data.resize": (32, 32), "inference.border": 3}
CLEANED = {"inference.opening": 1, "inference.min_area": 8, "inference.border": 9}
UNIFORM = {"inference.tile_weights": "uniform", "inference.stride": 11}
RANGED = {"data.input_range": (0.0, 4095.0)}

# Name -> channels, fields of the config, how it is exported.
MODELS = {
    "gray": (1, {}, {"dtype": "float32"}),
    "bytes": (1, UNIFORM, {"dtype": "uint8"}),
    "words": (1, RANGED, {"dtype": "uint16"}),
    "colour": (3, CLEANED, {"dtype": "float32", "layout": "nchw", "batch": 3}),
    "resized": (3, RESIZED, {"dtype": "float32"}),
    "one_tile": (1, ONE_TILE, {"dtype": "float32"}),
}
BROKEN = ("truncated.png", "truncated.jpg", "text.png", "empty.png", "folder.png", "animated.png")


def called(*command, cwd=None):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The built program."""
    for tool in ("cmake", "make", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    found = Path(find_spec("openvino").origin).parent / "cmake"
    build = tmp_path_factory.mktemp("build")
    done = called("cmake", "-S", SOURCE, "-B", build, f"-DOpenVINO_DIR={found}")
    for library in ("PNG", "JPEG"):
        if f"Could NOT find {library}" in done.stderr:
            pytest.skip(f"the headers of lib{library.lower()} are not installed")
    assert done.returncode == 0, done.stderr
    done = called("make", "-C", build)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return build / "recon_ad_inspect"


def noise(height=50, width=70, channels=1, dtype=np.uint8, seed=0):
    """Noise with spots: maps with regions of many sizes."""
    random = np.random.default_rng(seed)
    values = cv2.GaussianBlur(random.random((height, width, channels), np.float32), (0, 0), 1.5)
    values = values.reshape(height, width, channels) + random.random((height, width, channels)) / 20
    values = (values - values.min()) / max(np.ptp(values), 1e-6)
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with files of every kind that the program reads, and `BROKEN`."""
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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns a model of `MODELS` by its name, of random weights, with thresholds that some images
    are above of; with features, it has a classifier of them."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def made(name: str, features: str = "") -> Path:
        model = folder / f"{name}{features}.onnx"
        channels, fields, options = MODELS[name]
        kind = np.uint16 if options["dtype"] == "uint16" else np.uint8
        pictures = [noise(*size, channels, kind) for size in ((50, 70), (60, 33), (10, 9))]
        detector = make_detector(channels=channels, thresholds=Thresholds(1.0, 1.0), **fields)
        found = [detector.predict(picture) for picture in pictures]
        score = float(np.mean([p.score for p in found]))
        pixel = float(np.quantile(found[0].anomaly_map, 0.85))
        detector = detector.with_thresholds(Thresholds(score, pixel), {})
        if features:
            detector = with_classifier(detector, features)
        assert onnx_export.export(detector, model, pictures, **options)["passed"]
        return model

    return made


@pytest.fixture
def model(exported):
    return exported("gray")


def ended(done, output: Path) -> SimpleNamespace:
    """What a finished command said, and the rows that it wrote."""
    text = (output / "predictions.csv").read_text() if output.is_dir() else ""
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(text))}
    return SimpleNamespace(status=done.returncode, out=done.stdout, error=done.stderr, rows=rows)


def by_cpp(program, model, given, output, *more):
    flags = ("--model", model, "--input", given, f"--output={output}")
    return ended(called(program, *flags, *more), output)


def by_python(model, given, output, *more):
    flags = ["--onnx", model, "--runtime", "openvino", "--input", given, "--output", output]
    return ended(run_command("predict", *flags, *more), output)


def same_rows(ours, theirs):
    assert list(ours.rows) == list(theirs.rows)
    for path, expected in theirs.rows.items():
        row = ours.rows[path]
        assert bool(row["error"]) == bool(expected["error"]), row
        # The same runtime; only resizing may round in another order.
        near = {"score": {"rel": 1e-5}, "defect_probability": {"abs": 1e-6}}
        for field in row.keys() - {"error"}:
            if field in near and row[field]:
                value = pytest.approx(float(expected[field]), **near[field])
                assert float(row[field]) == value, (path, field)
            else:
                assert row[field] == expected[field], (path, field)


@pytest.mark.parametrize(
    ("name", "features"), [*((name, "") for name in MODELS), ("gray", "hu"), ("gray", "encoder")]
)
def test_it_judges_and_draws_as_python_does(name, features, program, exported, images, tmp_path):
    model = exported(name, features)
    ours = by_cpp(program, model, images, tmp_path / "ours")
    theirs = by_python(model, images, tmp_path / "theirs")
    assert ours.status == theirs.status == 3, ours.error + theirs.error
    same_rows(ours, theirs)
    judged = [row for row in ours.rows.values() if not row["error"]]
    assert all(bool(row["defect_probability"]) == bool(features) for row in judged)
    assert {row["anomalous"] for row in judged} == {"true", "false"}
    assert max(int(row["regions"]) for row in judged) > 1
    for row in judged:
        name = f"overlays/{row['path']}.png"
        drawn, expected = (decode_image(tmp_path / who / name) for who in ("ours", "theirs"))
        np.testing.assert_array_equal(drawn, expected, err_msg=name)
    for path in BROKEN:
        assert ours.rows[path]["error"].startswith(f"{images / path}: ")
    said, expected = (
        [line for line in run.out.replace(str(tmp_path / who), "OUT").splitlines() if "OUT" in line]
        for run, who in ((ours, "ours"), (theirs, "theirs"))
    )
    assert said == expected and len(said) == 2  # how many are what, and how many more are broken
    broken = len(ours.rows) - len(judged)
    assert f", {broken} not judged; " in said[0]
    lines = (tmp_path / "ours/predictions.jsonl").read_text().splitlines()
    for line, row in zip(map(json.loads, lines), ours.rows.values(), strict=True):
        assert line["path"] == row["path"] and line["error"] == (row["error"] or None)
        assert line["score"] == (float(row["score"]) if row["score"] else None)


# Sorted by code points, as which Python puts a byte that is no UTF-8 before U+E123.
NAMES = (
    "a b.png", 'q"u,ote.png', "Ä.png", "_x.PNG", "\U0001d518.png", "\ue123.png", "tab\t.png",
    "sub/b.png", "a.b/z.png", os.fsdecode(b"\xff.png"), os.fsdecode(b"\xe2\x82.png"),
)  # fmt: skip


def test_every_byte_of_the_tables_is_pythons_whatever_files_are_called(program, model, tmp_path):
    folder = tmp_path / "images"
    for i, name in enumerate(NAMES):
        saved(folder / name, noise(20 + i)[..., 0], format="PNG")
    (folder / ".hidden.png").touch()
    (folder / "notes.txt").touch()
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    theirs = by_python(model, folder, tmp_path / "theirs")
    assert ours.status == theirs.status == 0, ours.error
    assert "1 other files" in ours.out
    for table in ("predictions.csv", "predictions.jsonl"):
        written, expected = ((tmp_path / who / table).read_bytes() for who in ("ours", "theirs"))
        assert written == expected
    kept, expected = (
        sorted(p.relative_to(tmp_path / who) for p in (tmp_path / who).rglob("*"))
        for who in ("ours", "theirs")
    )
    assert kept == expected  # nothing half written beside


@pytest.mark.parametrize(
    "given, roi",
    [("", ""), ("test/good", "roi.png"), ("test/good", "roi/test/good"), ("z.png", "")],
)
def test_regions_of_interest_are_found_and_heeded(program, model, tmp_path, given, roi):
    data = tmp_path / "data"
    region = np.zeros((50, 70), np.uint8)
    region[10:40, 20:60] = 255
    for i, path in enumerate(("test/good/a", "test/good/b", "test/good/other", "z")):
        size = (20, 20) if "other" in path else (50, 70)
        saved(data / f"{path}.png", noise(*size, seed=i)[..., 0])
    saved(data / "roi.png", region)
    saved(data / "roi/test/good/a.png", region // 255)
    saved(data / "roi/test/good/b.jpg", 255 - region)
    saved(data / "ground_truth/bad/a_mask.png", region)
    more = ("--roi", data / roi) if roi else ()
    # Both into one folder: what is there already is not judged.
    theirs = by_python(model, data / given, data / "out", *more)
    ours = by_cpp(program, model, data / given, data / "out", *more)
    assert ours.status == theirs.status, ours.error
    assert ours.out == theirs.out
    same_rows(ours, theirs)


UNREAD = {
    "bitmap.bmp": "is a BMP file",
    "floats.tif": "is a TIFF file",
    "array.npy": "is a .npy file",
    "print.jpg": "is a CMYK image",
    "bitmap_inside.png": "is a BMP file",
}


def test_formats_that_it_does_not_read_are_rows_with_a_sentence(program, model, tmp_path):
    folder, gray = tmp_path / "images", noise()[..., 0]
    saved(folder / "bitmap.bmp", gray)
    saved(folder / "bitmap_inside.png", gray, format="BMP")
    saved(folder / "floats.tif", gray / np.float32(255))
    np.save(folder / "array.npy", gray)
    saved(folder / "print.jpg", Image.fromarray(noise(channels=3)).convert("CMYK"))
    saved(folder / "good.png", gray)
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    assert ours.status == 3
    for path, says in UNREAD.items():
        row = ours.rows[path]
        assert row["error"].startswith(f"{folder / path}: {says}") and row["score"] == ""
    assert ours.rows["good.png"]["error"] == ""


def test_one_good_image_ends_with_zero(program, model, images, tmp_path):
    ours = by_cpp(program, model, images / "gray.png", tmp_path / "ours")
    assert ours.status == 0 and list(ours.rows) == ["gray.png"]
    assert (tmp_path / "ours/overlays/gray.png.png").is_file()


# What is wrong -> flags other than the usual ones ("-" takes one away), a part of the sentence.
WRONG = {
    "no model": ({"model": "gone.onnx"}, "there is no file gone.onnx"),
    "no tail": ({"model": "lonely.onnx"}, "there is no file lonely.tail.onnx"),
    "no ONNX": ({"model": "text.onnx"}, "text.onnx is no model that OpenVINO can open"),
    "another program's": ({"model": "plain.onnx"}, "was not written by python -m recon_ad.export"),
    "tail as core": ({"model": "swapped.onnx"}, "was not written by python -m recon_ad.export"),
    "two exports": ({"model": "mixed.onnx"}, "mixed.onnx and its .tail.onnx are of two exports"),
    "no folder": ({"input": "gone"}, "there is no file or folder gone."),
    "no images": ({"input": "empty"}, "empty holds no images"),
    "a link that leads back": ({"input": "round"}, "is a link to a folder that holds it"),
    "no region": ({"roi": "gone.png"}, "there is no such region of interest"),
    "regions of others": ({"roi": "empty"}, "for none of the images"),
    "output in a file": ({"output": "text.onnx/out"}, "check the path"),
    "output is a file": ({"output": "text.onnx"}, "check the path"),
    "flag left out": ({"model": "-"}, "--model is missing"),
    "unknown flag": ({"threshold": "1"}, "'--threshold' is not a flag"),
}


@pytest.fixture(scope="module")
def wrong(exported, images, tmp_path_factory):
    """A folder with everything that `WRONG` names."""
    folder = tmp_path_factory.mktemp("wrong")
    model, other = exported("gray"), exported("bytes")
    tail = model.with_suffix(".tail.onnx")
    copies = {
        "M.onnx": model, "M.tail.onnx": tail, "lonely.onnx": model, "mixed.onnx": model,
        "mixed.tail.onnx": other.with_suffix(".tail.onnx"), "swapped.onnx": tail,
        "swapped.tail.onnx": model, "plain.tail.onnx": tail, "text.tail.onnx": tail,
    }  # fmt: skip
    for name, file in copies.items():
        shutil.copy(file, folder / name)
    (folder / "text.onnx").write_text("no model")
    onnx = pytest.importorskip("onnx")
    plain = onnx.load(model)
    del plain.metadata_props[:]
    onnx.save(plain, folder / "plain.onnx")
    for name in ("empty", "images", "round"):
        (folder / name).mkdir()
    shutil.copy(images / "gray.png", folder / "images")
    (folder / "round/again").symlink_to(folder / "round")
    return folder


@pytest.mark.parametrize("what", WRONG)
def test_what_is_to_be_mended_ends_with_two_and_one_sentence(what, program, wrong):
    changed, says = WRONG[what]
    flags = {"model": "M.onnx", "input": "images", "output": "out", **changed}
    given = [word for k, v in flags.items() if v != "-" for word in (f"--{k}", v)]
    done = called(program, *given, cwd=wrong)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert not (wrong / "out").exists()

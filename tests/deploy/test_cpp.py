"""The C++ program, which must judge as `python -m recon_ad.predict --onnx` does."""

import csv
import functools
import io
import json
import os
import resource
import shutil
import struct
import subprocess
import time
import zlib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.classifiers import with_classifier
from helpers.commands import run_command
from helpers.detectors import make_detector
from helpers.jpegs import cut, renumbered, taller, without_interval, without_scans
from helpers.layouts import saved
from helpers.paths import ROOT
from helpers.png_files import PALETTE, RGB, chunk, odd_transparency, png, with_clear_colour
from PIL import Image

from recon_ad.data.decode import decode_image
from recon_ad.detector import onnx_export
from recon_ad.detector.inference import Thresholds
from recon_ad.runtime.files import plain_cell

pytestmark = pytest.mark.slow

SOURCE = ROOT / "deploy" / "cpp"
RESIZED = {"data.resize": (48, 80)}
SHORTER = {"data.resize": (40, 0)}  # the aspect ratio is kept
ONE_TILE = {"data.resize": (32, 32), "inference.border": 3}
CLEANED = {"inference.opening": 1, "inference.min_area": 8, "inference.border": 9}
UNIFORM = {"inference.tile_weights": "uniform", "inference.stride": 11}
RANGED = {"data.input_range": (0.0, 4095.0)}

# Channels, config fields and export options, by the name of the model.
MODELS = {
    "gray": (1, {}, {"dtype": "float32"}),
    "bytes": (1, UNIFORM, {"dtype": "uint8"}),
    "words": (1, RANGED, {"dtype": "uint16"}),
    "colour": (3, CLEANED, {"dtype": "float32", "layout": "nchw", "batch": 3}),
    "resized": (3, RESIZED, {"dtype": "float32"}),
    "shorter": (1, SHORTER, {"dtype": "float32"}),
    "one_tile": (1, ONE_TILE, {"dtype": "float32"}),
}
CATEGORY = "größe=1;2,%/"
BROKEN = ("truncated.png", "truncated.jpg", "text.png", "empty.png", "folder.png", "animated.png")


def called(*command, cwd=None, memory=resource.RLIM_INFINITY):
    """Run a command with so many bytes of address space."""
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Return the path of the built program."""
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
    """Return noise with spots, whose maps have regions of many sizes."""
    random = np.random.default_rng(seed)
    values = cv2.GaussianBlur(random.random((height, width, channels), np.float32), (0, 0), 1.5)
    values = values.reshape(height, width, channels) + random.random((height, width, channels)) / 20
    values = (values - values.min()) / max(np.ptp(values), 1e-6)
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Write a folder with files of every kind that the program reads, and `BROKEN`."""
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


@pytest.fixture(scope="module")
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


def ended(done, output: Path) -> SimpleNamespace:
    """Return the output of a finished command, and the rows that it wrote."""
    text = (output / "predictions.csv").read_text() if output.is_dir() else ""
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(text))}
    return SimpleNamespace(status=done.returncode, out=done.stdout, error=done.stderr, rows=rows)


def by_cpp(program, model, given, output, *more, **limits):
    flags = ("--model", model, "--input", given, f"--output={output}")
    return ended(called(program, *flags, *more, **limits), output)


def by_python(model, given, output, *more):
    flags = ["--onnx", model, "--runtime", "openvino", "--input", given, "--output", output]
    return ended(run_command("predict", *flags, *more), output)


def same_rows(ours, theirs):
    assert list(ours.rows) == list(theirs.rows)
    for path, expected in theirs.rows.items():
        row = ours.rows[path]
        assert bool(row["error"]) == bool(expected["error"]), row
        # The runtime is the same; only resizing may round in another order.
        near = {"score": {"rel": 1e-5}, "defect_probability": {"abs": 1e-6}}
        near["normalised_score"] = {"rel": 1e-5, "abs": 1e-5}
        for field in row.keys() - {"error"}:
            if field in near and row[field] and expected[field]:
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
    assert all(row["normalised_score"] for row in judged)
    # An accepted image has none, and with a classifier more images are accepted.
    assert max(int(row["regions"]) for row in judged) > (name == "gray" and not features)
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
    assert said == expected and len(said) == 2  # the counts, and the number of further broken files
    broken = len(ours.rows) - len(judged)
    assert f", {broken} not judged; " in said[0]
    lines = (tmp_path / "ours/predictions.jsonl").read_text().splitlines()
    for line, row in zip(map(json.loads, lines), ours.rows.values(), strict=True):
        assert line["path"] == row["path"] and line["error"] == (row["error"] or None)
        for field in ("score", "normalised_score"):
            assert line[field] == (float(row[field]) if row[field] else None)


# Sorted by code points. Python orders a byte that is not valid UTF-8 before U+E123.
NAMES = (
    "a b.png", 'q"u,ote.png', "Ä.png", "_x.PNG", "\U0001d518.png", "\ue123.png", "tab\t.png",
    "sub/b.png", "a.b/z.png", "=1+1.png", os.fsdecode(b"\xff.png"), os.fsdecode(b"\xe2\x82.png"),
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
    assert kept == expected  # without half-written files


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
    # Both write to one folder; files already there are not judged.
    theirs = by_python(model, data / given, data / "out", *more)
    ours = by_cpp(program, model, data / given, data / "out", *more)
    assert ours.status == theirs.status, ours.error
    assert ours.out == theirs.out
    same_rows(ours, theirs)


@pytest.mark.parametrize("category", ["a part", CATEGORY])
def test_the_thresholds_are_those_of_the_category(program, model, tmp_path, category):
    for i in range(3):
        saved(tmp_path / f"images/{i}.png", noise(seed=i)[..., 0])
    more = ("--category", category)
    theirs = by_python(model, tmp_path / "images", tmp_path / "theirs", *more)
    ours = by_cpp(program, model, tmp_path / "images", tmp_path / "ours", *more)
    same_rows(ours, theirs)
    general = by_cpp(program, model, tmp_path / "images", tmp_path / "general")
    share = 0.5 if category == "a part" else 1.5
    for name, row in ours.rows.items():
        threshold = float(general.rows[name]["threshold"])
        assert float(row["threshold"]) == pytest.approx(share * threshold)
        assert (row["anomalous"] == "true") is (float(row["score"]) > share * threshold)
        assert general.rows[name]["normalised_score"]
        assert bool(row["normalised_score"]) is (category == "a part")
    refused = by_cpp(program, model, tmp_path / "images", tmp_path / "no", "--category=another")
    assert refused.status == 2 and 'a category "another": choose one of' in refused.error


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


def test_png_files_that_python_refuses_are_refused_by_the_same_sentence(program, model, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, (content, _) in odd_transparency().items():
        (folder / f"{name}.png").write_bytes(content)
    wide = 1_000_001
    (folder / "wide.png").write_bytes(png(wide, 1, 16, RGB, bytes(6 * wide + 1)))
    (folder / "high.png").write_bytes(png(1, wide, 16, RGB, bytes(7 * wide)))
    colours = chunk(b"PLTE", bytes(6))
    (folder / "palette.png").write_bytes(png(2, 1, 8, PALETTE, b"\0\1\7", before=colours))
    (folder / "kernel.png").symlink_to("/proc/kmsg")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    theirs = by_python(model, folder, tmp_path / "theirs")
    assert len(ours.rows) == len(odd_transparency()) + 5
    for name, row in theirs.rows.items():
        assert row["error"] and ours.rows[name]["error"] == row["error"]


def test_jpegs_that_end_early_are_refused_by_the_same_sentence(program, model, tmp_path):
    folder, count = tmp_path / "images", 0
    colour = noise(61, 83, 3)
    for options in ({}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}):
        for image in (colour, colour[..., 0]):
            content = saved(folder / f"{count}_good.jpg", image, **options).read_bytes()
            damaged = [cut(content, kept=kept) for kept in (0, 0.5, 0.9)]
            damaged += [content[: -2 - n] + content[-2:] for n in (20, 40)]
            damaged += [taller(content), content[:-2]]
            if "progressive" in options:
                damaged += [without_scans(content, left=left) for left in (1, 3)]
            if "restart_marker_rows" in options:
                damaged += [without_interval(content), renumbered(content)]
            for i, made in enumerate(damaged):
                (folder / f"{count}_{i}.jpg").write_bytes(made)
            count += 1
    arithmetic = (folder / "0_good.jpg").read_bytes().replace(b"\xff\xc0", b"\xff\xc9")
    (folder / "arithmetic.jpg").write_bytes(arithmetic)
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    theirs = by_python(model, folder, tmp_path / "theirs")
    for name, row in theirs.rows.items():
        assert ours.rows[name]["error"] == row["error"]
        assert bool(row["error"]) is not name.endswith("_good.jpg")


def test_cells_are_no_formulas_as_in_python(program, model, tmp_path):
    folder = tmp_path / "images"
    names = ["=1.png", "x;=1+1.png", "\uff1d1.png", "a|@b.png", "a-b.png", "x; -1.png", "\t=1.png"]
    for name in names:
        saved(folder / name, noise()[..., 0])
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    theirs = by_python(model, folder, tmp_path / "theirs")
    assert sorted(ours.rows) == sorted(theirs.rows) == sorted(map(plain_cell, names))


ENOUGH = 6 << 30  # bytes of address space, most of them OpenVINO's, which it never uses


def test_small_files_that_take_long_are_the_rows_that_python_gives(program, model, tmp_path):
    folder, gray = tmp_path / "images", noise()[..., 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    mark, header = b"Exif\0\0", exif.tobytes().removeprefix(b"Exif\0\0")
    png = saved(folder / "a.png", gray).read_bytes()
    jpegs = [saved(folder / "b.jpg", gray).read_bytes()]
    jpegs.append(saved(folder / "dpi.jpg", gray, dpi=(72, 72)).read_bytes())
    for marks in (0, 1, 2, 50000):
        content = mark * marks + header
        (folder / f"{marks}.png").write_bytes(png[:33] + chunk(b"eXIf", content) + png[33:])
        parts = [content[i : i + 60000] for i in range(0, len(content), 60000)]
        segments = [b"\xff\xe1" + struct.pack(">H", len(p) + 8) + mark + p for p in parts]
        for i, jpeg in enumerate(jpegs):
            # After the JFIF header, which must be the first segment.
            (folder / f"{marks}_{i}.jpg").write_bytes(jpeg[:20] + b"".join(segments) + jpeg[20:])
    jpeg = saved(folder / "c.jpg", gray, progressive=True).read_bytes()
    first = jpeg.index(b"\xff\xda")
    second = jpeg.index(b"\xff\xc4", first)  # the tables of the second scan
    for scans in (50, 150):
        repeated = jpeg[first:second] * scans
        (folder / f"{scans}_scans.jpg").write_bytes(jpeg[:first] + repeated + jpeg[second:])
    ours = by_cpp(program, model, folder, tmp_path / "ours", memory=ENOUGH)
    theirs = by_python(model, folder, tmp_path / "theirs")
    assert ours.status == theirs.status == 3
    same_rows(ours, theirs)
    errors = {path: row["error"] for path, row in ours.rows.items() if row["error"]}
    assert list(errors) == ["150_scans.jpg", "2.png", "2_1.jpg", "50000.png", "50000_1.jpg"]
    assert errors["150_scans.jpg"] == theirs.rows["150_scans.jpg"]["error"]


def test_a_header_that_promises_too_much_is_a_row_and_takes_no_memory(program, model, tmp_path):
    folder = tmp_path / "images"
    jpeg = saved(folder / "good.jpg", noise()[..., 0]).read_bytes()
    frame = jpeg.index(b"\xff\xc0") + 5
    (folder / "bomb.jpg").write_bytes(jpeg[:frame] + b"\x7f\xff" * 2 + jpeg[frame + 4 :])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 15, 1 << 15, 16, 6, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "bomb.png").write_bytes(bomb)
    # Data that deflate shrinks most and a JPEG of one gray level have the smallest possible files.
    saved(folder / "black.png", np.zeros((1500, 1500), np.uint8))
    saved(folder / "black.jpg", np.zeros((1500, 1500), np.uint8), progressive=True, optimize=True)
    ours = by_cpp(program, model, folder, tmp_path / "ours", memory=ENOUGH)
    assert ours.status == 3, ours.error
    errors = {path: row["error"] for path, row in ours.rows.items() if row["error"]}
    assert list(errors) == ["bomb.jpg", "bomb.png"]
    assert all("(image file is truncated)" in error for error in errors.values())


FACTS = {
    "format": "2", "pair": "p", "dtype": "uint8", "layout": "NHWC", "channels": "1",
    "tile": "32,32", "stride": "32,32", "tile_weights": "hann", "resize": "0,0", "batch_size": "2",
    "border": "0", "border_weight": "1.0", "opening": "0", "min_area": "0",
    "input_range": "0.0,0.0", "image_threshold": "200.0", "pixel_threshold": "200.0",
    "regions_of_interest": "False", "part_sha256": "",
}  # fmt: skip
CORE = """<ir_version: 9, opset_import: ["": 18]>
core (uint8[2, 32, 32, 1] images) => (float[2, 32, 32] residual_map) {
  axis = Constant <value = int64[1] {3}> ()
  gray = Squeeze (images, axis)
  residual_map = Cast <to = 1> (gray)
}"""
TAIL = """<ir_version: 9, opset_import: ["": 18]>
tail (float[h, w] residual_map, bool[h, w] valid, float image_threshold, float pixel_threshold)
  => (float score, bool label, float[h, w] anomaly_map, bool[p, q] mask) {
  score = ReduceMax <keepdims = 0> (residual_map)
  label = Greater (score, image_threshold)
  anomaly_map = Neg (residual_map)
  above = Greater (residual_map, pixel_threshold)
  mask = And (above, valid)
}"""


def tiny_model(folder: Path, *, core=CORE, tail=TAIL, note="", **facts) -> Path:
    """Write a model whose residual is the image itself."""
    onnx = pytest.importorskip("onnx")
    for kind, text in (("core", core), ("tail", tail)):
        graph = onnx.parser.parse_model(text)
        graph.doc_string = note
        onnx.helper.set_model_props(
            graph, {f"recon_ad_{k}": v for k, v in {**FACTS, "kind": kind, **facts}.items()}
        )
        onnx.save(graph, folder / ("M.onnx" if kind == "core" else "M.tail.onnx"))
    return folder / "M.onnx"


# A part of the rejecting sentence, by what is done to the tiny model.
REFUSED = {
    "half a resize": ({"resize": "0,5"}, "(resize is 0,5)"),
    "threshold": ({"image_threshold": "nan"}, "(image_threshold is nan)"),
    "infinite": ({"pixel_threshold": "inf"}, "(pixel_threshold is inf)"),
    "range": ({"input_range": "5,5"}, "(input_range is 5,5)"),
    "tile": ({"tile": "32,65537"}, "(tile is 32,65537)"),
    "median": ({"median_score": "nan"}, "(median_score is nan)"),
    "median of a word": ({"median_score": "1x"}, "(median_score is 1x)"),
    "large median": ({"category_medians": "a=1;b=1e39"}, "(category_medians is a=1;b=1e39)"),
    "median of nothing": ({"category_medians": "=1"}, "(category_medians is =1)"),
    "separators": ({"median_score": "1_0"}, "(median_score is 1_0)"),
    "spaces": ({"pixel_threshold": " 1 "}, "(pixel_threshold is"),
    "nearly nothing": ({"border_weight": "1e-400"}, "(border_weight is 1e-400)"),
    "medians of nothing": ({"category_medians": ";"}, "(category_medians is ;)"),
    "half a list": ({"category_medians": "a=1;"}, "(category_medians is a=1;)"),
    "no category": ({"categories": "=1,2"}, "(categories is =1,2)"),
    "a category twice": ({"categories": "a=1,2;a=3,4"}, "(categories is a=1,2;a=3,4)"),
    "a name as it is": ({"categories": "a b=1,2"}, "(categories is a b=1,2)"),
    "another name": ({"category_medians": "%61=1"}, "(category_medians is %61=1)"),
    "no name": ({"category_medians": "%FF=1"}, "(category_medians is %FF=1)"),
    "digits": ({"opening": "٣"}, "(opening is ٣)"),
    "three sides": ({"stride": "8,8,"}, "(stride is 8,8,)"),
    "endless": ({"note": '"\x04Loop'}, "holds a loop, and no export of a detector does"),
    "output": ({"tail": TAIL.replace("label", "other")}, "M.tail.onnx has no output label"),
    "input": ({"channels": "3"}, "M.onnx: the model does not run ("),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_whose_numbers_or_nodes_cannot_be_meant_is_refused(what, program, tmp_path):
    changed, says = REFUSED[what]
    saved(tmp_path / "images/a.png", noise()[..., 0])
    model = tiny_model(tmp_path, **changed)
    ours = by_cpp(program, model, tmp_path / "images", tmp_path / "out")
    assert ours.status == 2 and says in ours.error and ours.error.count("\n") == 1
    assert not (tmp_path / "out").exists()


MASK = "mask = And (above, valid)"
SCORE = "score = ReduceMax <keepdims = 0> (residual_map)"
NAN = f"{SCORE.replace('score', 'top')} zero = Sub (top, top) score = Div (zero, zero)"
# The replacement in one of the graphs, and a part of each row's sentence, by the model's output.
ODD = {
    "what a detector gives": ("tail", MASK, MASK, ""),
    "too small a mask": (
        "tail", MASK, "mask = Greater (score, pixel_threshold)",
        "M.onnx: its mask is bool [] and not bool [64, 128]: export the detector anew.",
    ),
    "mask of floats": ("tail", MASK, "mask = Neg (residual_map)", "its mask is float32 [64, 128]"),
    "many scores": ("tail", SCORE, "score = Neg (residual_map)", "its score is float32 [64, 128]"),
    "whole residuals": ("core", "to = 1", "to = 6", "and not float32 [2, 32, 32]: export"),
    "nothing": ("tail", "[h, w]", "[32, 32]", "M.onnx: the model does not run ("),
    "no number": ("tail", SCORE, NAN, "the score is nan: the detector or the image is damaged."),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_what_a_model_gives_that_no_detector_does_is_each_images_row(what, program, tmp_path):
    which, old, new, says = ODD[what]
    for name in "ab":
        saved(tmp_path / f"images/{name}.png", noise()[..., 0])
    model = tiny_model(tmp_path, **{which: {"core": CORE, "tail": TAIL}[which].replace(old, new)})
    ours = by_cpp(program, model, tmp_path / "images", tmp_path / "ours")
    theirs = by_python(model, tmp_path / "images", tmp_path / "theirs")
    assert ours.status == theirs.status == (3 if says else 0), ours.error + theirs.error
    same_rows(ours, theirs)
    for row in ours.rows.values():
        assert says in row["error"]
    if says.endswith("."):
        tables = [(tmp_path / who / "predictions.jsonl").read_text() for who in ("ours", "theirs")]
        assert tables[0] == tables[1]


def test_a_killed_program_leaves_a_row_of_each_image_that_it_judged(program, tmp_path):
    first = saved(tmp_path / "images/0.png", noise(400, 400)[..., 0])
    for i in range(1, 500):
        os.link(first, tmp_path / f"images/{i}.png")
    model, table = tiny_model(tmp_path), tmp_path / "out/predictions.csv"
    flags = (f"--model={model}", f"--input={tmp_path / 'images'}", f"--output={tmp_path / 'out'}")
    with subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL) as running:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if table.is_file() and table.read_text().count("\n") > 3:
                break
            time.sleep(0.01)
        running.kill()
    lines = table.read_text().splitlines()
    assert 3 < len(lines) < 501
    objects = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in objects][:3] == ["0.png", "1.png", "10.png"]


def test_one_good_image_ends_with_zero(program, model, images, tmp_path):
    ours = by_cpp(program, model, images / "gray.png", tmp_path / "ours")
    assert ours.status == 0 and list(ours.rows) == ["gray.png"]
    assert (tmp_path / "ours/overlays/gray.png.png").is_file()


# Other flags ("-" removes one) and a part of the sentence, by the mistake.
WRONG = {
    "no model": ({"model": "gone.onnx"}, "gone.onnx not found"),
    "no tail": ({"model": "lonely.onnx"}, "lonely.tail.onnx not found"),
    "no ONNX": ({"model": "text.onnx"}, "text.onnx is not a model that OpenVINO can open"),
    "another program's": ({"model": "plain.onnx"}, "was not written by python -m recon_ad.export"),
    "tail as core": ({"model": "swapped.onnx"}, "was not written by python -m recon_ad.export"),
    "two exports": ({"model": "mixed.onnx"}, "mixed.onnx and its .tail.onnx are of two exports"),
    "no folder": ({"input": "gone"}, "there is no file or folder gone."),
    "no images": ({"input": "empty"}, "empty holds no images"),
    "a link that leads back": ({"input": "round"}, "is a link to a folder that holds it"),
    "no region": ({"roi": "gone.png"}, "region of interest not found"),
    "regions of others": ({"roi": "empty"}, "for none of the images"),
    "output in a file": ({"output": "text.onnx/out"}, "check the path"),
    "output is a file": ({"output": "text.onnx"}, "check the path"),
    "flag left out": ({"model": "-"}, "--model is missing"),
    "unknown flag": ({"threshold": "1"}, "'--threshold' is not a flag"),
}


@pytest.fixture(scope="module")
def wrong(exported, images, tmp_path_factory):
    """Write a folder with everything that `WRONG` names."""
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

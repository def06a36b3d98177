"""A detector that aligns its images, whose verdict is independent of the part's pose."""

import json
import re

import cv2
import numpy as np
import pytest
from helpers.parts import SHAPE, body, moved, moved_mask, save, spot
from helpers.small_runs import small_config
from scipy import ndimage

import recon_ad
from recon_ad.alignment import background
from recon_ad.alignment import build_part as finding
from recon_ad.alignment import part as parts
from recon_ad.alignment.coarse_search import Search
from recon_ad.alignment.part import FILE, NotRegistered, Part
from recon_ad.alignment.registration import make_template
from recon_ad.data import Record, Source, folder_source
from recon_ad.data.decode import decode_image, decode_mask
from recon_ad.data.source import digest
from recon_ad.detector import image_files, onnx_export
from recon_ad.detector.inference import Thresholds
from recon_ad.errors import UserError
from recon_ad.evaluation import panels
from recon_ad.evaluation import run as evaluation
from recon_ad.line.store import Key, Store
from recon_ad.predict import summary
from recon_ad.report import Scale
from recon_ad.runtime import tensors
from recon_ad.tables import moved as moved_set
from recon_ad.training import data as training_data
from recon_ad.training import run as training

WIDE = Search(angle=15, scale=0.1, overlap=0.4, confidence=0.8)
SEARCH = Search(angle=10, scale=0.05, overlap=0.5, confidence=0.8)
POSES = (
    {"angle": 0, "scale": 1, "shift": (0, 0)},
    {"angle": 4, "scale": 1.02, "shift": (4, -3)},
    {"angle": -4, "scale": 0.99, "shift": (-5, 2)},
)
NOTHING = np.full((*SHAPE, 1), 99, np.uint8)  # an image without the part


def record(name, image, *, truth=None, roi=None):
    return Record(
        name,
        lambda: image,
        "good" if truth is None else "spot",
        None if truth is None else (lambda: truth),
        load_roi=None if roi is None else (lambda: roi),
    )


def good(*seeds):
    """Return records of good images in the template's pose."""
    return [record(f"good{seed}.png", body(seed)) for seed in seeds]


def source():
    """Return good images in several poses, with test images; one of each kind has no part."""
    train_ = [record(f"good/{i}.png", moved(body(i), **POSES[i % 3])[0]) for i in range(6)]
    lost = record("good/lost.png", NOTHING)
    damaged, truth = spot(body(21), (40, 60))
    image, _, matrix = moved(damaged, **POSES[2])
    test = (
        record("good/0.png", moved(body(20), **POSES[1])[0]),
        record("spot/0.png", image, truth=moved_mask(truth, matrix)),
        lost,
    )
    return Source((*train_, lost), test)


def config(**part):
    made = small_config("configs/folder.py:method=cae,smoke", **{"holdout.few": 4})
    made.part.update(SEARCH._asdict() | {"align": True, "background": "auto"} | part)
    return made


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("part")


@pytest.fixture(scope="module")
def detector(workdir):
    """Return a detector trained once for the module, in a run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "CANDIDATES", 3)
        return training.train(config(), workdir, source=source())


@pytest.fixture(scope="module")
def whole():
    """Build a part that uses all of its template and has no background."""
    return Part(SEARCH, make_template(body()), np.ones(SHAPE, bool))


def part_of(pictures):
    return background.part_of(pictures, [np.ones(p.shape, bool) for p in pictures])


def test_the_part_is_distinguished_from_a_plain_ground():
    pictures = [make_template(body(i)).gray for i in range(3)]
    found = part_of(pictures)
    expected = np.zeros(SHAPE, bool)
    expected[18:-18, 24:-24] = True
    assert found[ndimage.binary_erosion(expected, iterations=2)].all()  # the blur rounds corners
    # The mask also has a margin of one pixel and what the blur adds.
    assert (found & ~ndimage.binary_dilation(expected, iterations=3)).sum() == 0
    # A hole in the part belongs to the part, and a speck in the background does not.
    holed = [p.copy() for p in pictures]
    for p in holed:
        p[40:50, 60:70] = 0.08
        p[2:6, 2:6] = 0.6
    assert np.array_equal(part_of(holed), found)
    # Pixels outside the image have no influence.
    half = [pictures[0], np.where(expected, pictures[1], np.float32(1))]
    seen = [np.ones(SHAPE, bool), expected]
    assert (background.part_of(half, seen) ^ part_of(pictures[:1])).mean() < 0.01
    # The same with a dark part on a bright background.
    assert np.array_equal(part_of([1 - p for p in pictures]), found)


def test_a_part_that_does_not_stand_out_is_refused():
    noise = np.random.default_rng(0).uniform(size=(40, 60)).astype(np.float32)
    for pictures in ([ndimage.gaussian_filter(noise, 3)], [np.full((40, 60), 0.5, np.float32)]):
        with pytest.raises(UserError, match=r"stand out.*give a mask"):
            part_of(pictures)


def test_the_verdict_does_not_depend_on_the_pose(detector):
    damaged, truth = spot(body(30), (44, 70))
    scores = []
    for pose in POSES:
        image, _, matrix = moved(damaged, **pose)
        found = detector(image)
        scores.append(float(found.score))
        assert found.anomaly_map.shape == found.mask.shape == SHAPE
        assert found.reconstruction.shape == image.shape
        # The map's peak is on the defect, in the image's own frame.
        peak = np.unravel_index(found.anomaly_map.argmax(), SHAPE)
        assert ndimage.binary_dilation(moved_mask(truth, matrix, least=0.3), iterations=2)[peak]
        assert found.registration.confidence > 0.9
    assert np.ptp(scores) < 0.1 * np.mean(scores)


def test_ground_and_what_the_picture_does_not_show_never_score(detector):
    clean = detector(body(31))
    dirty = body(31)
    dirty[:8, :30] = 255  # far from the part
    found = detector(dirty)
    assert float(found.score) == pytest.approx(float(clean.score), rel=0.02)
    assert found.anomaly_map[2, 2] == found.anomaly_map.min() and not found.mask[:10].any()
    # Pixels outside the region of interest have no influence either, in the image's own frame.
    damaged, truth = spot(body(31), (44, 70))
    assert detector(damaged).score > 1.5 * clean.score
    roi = ~ndimage.binary_dilation(truth, np.ones((17, 17)))
    assert detector.predict(damaged, roi=roi).score < 1.2 * clean.score
    # A region that covers too little of the part to recognise it.
    assert detector.predict(damaged, roi=truth).registration.registered


def test_a_part_that_is_not_there_has_no_score(detector, tmp_path):
    words = "not registered: the best match of the part has a"
    with pytest.raises(NotRegistered, match=words) as e:
        detector(NOTHING)
    assert not e.value.registration.registered
    save(tmp_path / "lost.png", NOTHING)
    judged = image_files.judge_file(
        detector, "lost.png", tmp_path / "lost.png", regions=image_files.Regions(tmp_path)
    )
    assert judged.outcome == image_files.NOT_REGISTERED and judged.row["score"] is None
    assert judged.row["error"].startswith(words[:14]) and judged.confidence < 0.8
    assert "1 not judged (1 not registered)" in summary([judged], tmp_path)
    # The next image with that name is different.
    store = Store(tmp_path / "line.sqlite")
    row = {"latency": 0.1, "waiting": 0, "error": judged.row["error"]}
    store.commit(Key("cam.png", 1, 1), row | {"outcome": judged.outcome})
    store.commit(Key("cam.png", 1, 2), row | {"outcome": "good", "error": None})
    assert [row["outcome"] for row in store.rows()] == ["not registered", "good"]
    store.close()


@pytest.mark.parametrize("pose", POSES[1:])
def test_masks_at_other_thresholds_lie_within_each_other(detector, pose):
    image = moved(spot(body(33), (44, 70))[0], **pose)[0]
    values = detector(image).anomaly_map
    at = [float(np.quantile(values, q)) for q in (0.98, 0.989, 0.9899, 0.99, 0.9901)]
    detector = detector.with_thresholds(Thresholds(0.1, at[3]), detector.record)
    shown = panels.panel(detector, record("a.png", image), scale=Scale(tuple(at), 3))
    assert shown.marks.pixels == tuple(sorted(shown.marks.pixels, reverse=True))
    assert shown.marks.pixels[3] > 0


def test_evaluation_names_images_that_are_not_registered_and_leaves_them_out(detector):
    metrics, report = evaluation.evaluate(detector, source(), name="plates")
    assert metrics["protocol"]["not_registered"] == ["good/lost.png"]
    assert [s.name for s in report.scores] == ["good/0.png", "spot/0.png"]
    assert metrics["image_auroc"] == 1.0 and metrics["pixel_auroc"] > 0.95
    assert any("part was not found" in note for note in metrics["protocol"]["notes"])
    assert "aligned to a template" in metrics["protocol"]["part"]
    only = source()._replace(test=source().test[2:])
    with pytest.raises(UserError, match="in none of the 1 test images"):
        evaluation.evaluate(detector, only, name="plates")


def test_it_is_exported_with_the_detector(detector, tmp_path):
    image = moved(spot(body(32), (50, 50))[0], **POSES[1])[0]
    expected = detector(image)
    with pytest.raises(UserError, match="found in none of the images to compare"):
        onnx_export.comparison_images(source().test[2:], part=detector.part)
    images = onnx_export.comparison_images(source().test, part=detector.part)
    assert len(images) == 2
    assert onnx_export.export(detector, tmp_path / "M.onnx", images)["passed"]
    exported = recon_ad.load(tmp_path / "M.onnx")
    found = exported(image)
    np.testing.assert_allclose(
        found.anomaly_map, expected.anomaly_map, atol=1e-4 * detector.thresholds.pixel
    )
    np.testing.assert_array_equal(found.mask, expected.mask)
    with pytest.raises(NotRegistered):
        exported(NOTHING)
    file = tmp_path / "M.part.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + b"abcd")
    with pytest.raises(UserError, match="of two exports"):
        recon_ad.load(tmp_path / "M.onnx")
    file.unlink()
    with pytest.raises(UserError, match=r"M\.part\.safetensors not found"):
        recon_ad.load(tmp_path / "M.onnx")
    with pytest.raises(UserError, match="damaged"):
        file.write_bytes(content[:50])
        parts.read(file)


def test_a_detector_is_saved_with_its_part_and_refused_without(detector, workdir, tmp_path):
    stored = json.loads((workdir / "detector" / "detector.json").read_text())
    assert stored["has_part"] and stored["config"]["part"]["align"]
    assert not stored["record"]["calibration"]["regions_of_interest"]
    opened, image = recon_ad.load(workdir / "detector"), moved(body(32), **POSES[1])[0]
    assert opened(image).score == detector(image).score
    np.testing.assert_array_equal(opened.part.foreground, detector.part.foreground)
    detector.save(tmp_path / "d")
    (tmp_path / "d" / FILE).unlink()
    with pytest.raises(UserError, match=r"part\.safetensors.*missing"):
        recon_ad.load(tmp_path / "d")


def test_good_images_without_the_part_are_left_out_or_refused(whole, detector):
    lost = [record(f"lost{i}.png", np.full_like(NOTHING, 9 + i)) for i in range(3)]
    kept, (note,) = whole.aligned([*good(0, 1), lost[0]])
    assert [r.name for r in kept] == ["good0.png", "good1.png"]
    assert note.startswith("Left out: lost0.png is not registered")
    with pytest.raises(UserError, match="found in only 2 of 5 good images: give another"):
        whole.aligned([*good(0, 1), *lost])
    # These images are not ones that the detector was trained on.
    known = detector.record["learnt_from"]
    assert known and set(known) < {digest(one.load()) for one in source().train}
    assert digest(NOTHING) not in known


def test_training_images_are_moved_to_the_template(whole):
    (kept,), _ = whole.aligned([record("a.png", moved(body(3), **POSES[1])[0])])
    roi = kept.load_roi()
    assert 0.7 < roi.mean() < 1
    assert np.abs(kept.load().astype(float) - body(3))[roi].mean() < 4  # interpolated noise
    # The template is the image to which the others are aligned best: neither the odd image nor
    # one that shows too little, such as a uniform one or one with almost nothing of the part.
    speck = np.zeros(SHAPE, bool)
    speck[40:43, 70:73] = True
    little = [record("gray.png", NOTHING), record("speck.png", body(6), roi=speck)]
    for others in (little, [record("0.png", 255 - body(1))]):
        found, _ = finding._typical([*others, *good(1, 2)], SEARCH)
        assert any(np.array_equal(found, body(seed)) for seed in (1, 2))


def test_a_given_mask_is_of_the_templates_size(tmp_path):
    mask, template, gone = (str(tmp_path / f"{n}.png") for n in ("mask", "template", "gone"))
    save(tmp_path / "mask.png", np.full((*SHAPE, 1), 255, np.uint8))
    save(tmp_path / "template.png", body())
    part = finding.find_part(config(template=template, background=mask), good(1))
    assert part.foreground.all()
    np.testing.assert_allclose(part.template.gray, body()[..., 0] / np.float32(255), rtol=1e-6)
    save(tmp_path / "mask.png", np.full((9, 9, 1), 255, np.uint8))
    two = [*good(1), good(2)[0]._replace(category="other")]
    for fields, records, words in (
        ({"background": mask}, good(1), r"mask\.png has 9x9 px, the template 144x96"),
        ({"background": gone}, good(1), r"^config\.part\.background: .*gone\.png: file not found"),
        ({"template": gone}, good(1), r"^config\.part\.template: .*gone\.png: file not found"),
        ({}, two, "describes one part"),
    ):
        with pytest.raises(UserError, match=words):
            finding.find_part(config(**{"template": template} | fields), records)


def test_a_ground_without_alignment_asks_for_the_same_size():
    part = finding.find_part(config(align=False), good(0, 1, 2))
    assert part.search is None and 0.2 < part.foreground.mean() < 0.7
    placed = part.align(body(9))
    assert placed.registration is None and np.array_equal(placed.valid, part.foreground)
    # Maps have their lowest valid value on the background, even if they are negative.
    values = np.random.default_rng(0).uniform(-3, -1, SHAPE).astype(np.float32)
    values[~part.foreground] = 0
    back = placed.map_back(values)
    assert back[~part.foreground].max() == values[part.foreground].min() == back.min()
    np.testing.assert_array_equal(back[part.foreground], values[part.foreground])
    with pytest.raises(UserError, match="has 20x10 px and the mask of the background 144x96"):
        part.align(np.zeros((10, 20, 1), np.uint8))


def test_a_set_is_moved_with_its_masks_and_what_was_not_in_a_picture_counts_nowhere(tmp_path):
    given, target = tmp_path / "set", tmp_path / "moved"
    for i in range(3):
        save(given / f"train/good/{i}.png", body(i))
    damaged, truth = spot(body(9), (44, 70))
    save(given / "test/spot/0.png", damaged)
    save(given / "ground_truth/spot/0_mask.png", truth[..., None] * np.uint8(255))
    outline = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    moved_set.write_moved(given, target, outline=outline)
    template = decode_image(target / moved_set.TEMPLATE)
    np.testing.assert_array_equal(template, body(1))  # the middle one, unmoved
    ground = decode_mask(target / moved_set.GROUND)
    assert ground[48, 72] and not ground[10, 10]
    assert ground.mean() == pytest.approx(0.25, abs=0.02)
    found = folder_source(target)
    assert not found.notes and len(found.train) == 3
    (record,) = found.test
    image, mask, roi = record.load(), record.load_mask(), record.load_roi()
    assert 0.3 < roi.mean() < 1
    assert not image[~ndimage.binary_dilation(roi, np.ones((3, 3)), iterations=4)].any()
    # The same part in another pose: after registration it and its defect are at the same place.
    part = Part(WIDE, make_template(damaged), np.ones(SHAPE, bool))
    placed = part.align(image, roi=roi)
    back = moved_mask(mask, cv2.invertAffineTransform(placed.registration.matrix))
    assert (back & truth).sum() > 0.8 * truth.sum()


@pytest.mark.parametrize(
    ("field", "value"),
    [("angle", 200.0), ("scale", 1.0), ("overlap", 0.0), ("confidence", 1.0)],
)
def test_a_search_that_is_none_is_refused(tmp_path, field, value):
    with pytest.raises(UserError, match=f"config.part.{field}"):
        training.train(config(**{field: value}), tmp_path / "w", source=source())


def test_a_run_goes_on_with_the_same_template_only(detector, workdir, tmp_path):
    before = json.loads((workdir / "data.json").read_text())
    kept = finding.aligned_source(source(), detector.part).train
    assert finding.identity(detector.part, config()).items() <= before.items()
    assert finding.found_in(detector.part, kept).items() <= before.items()
    assert finding.found_in(detector.part, kept[1:])["aligned"] != before["aligned"]
    save(tmp_path / "template.png", body(40))
    other = config(template=str(tmp_path / "template.png"))
    changed = finding.identity(finding.find_part(other, good(1)), other)
    assert changed["template"] != before["template"]


def test_a_complete_run_registers_nothing_again_and_is_still_of_its_images(
    detector, workdir, monkeypatch
):
    def refused(*_):
        raise AssertionError("good images are registered again")

    monkeypatch.setattr(training_data, "aligned_source", refused)
    monkeypatch.setattr(finding, "CANDIDATES", 3)
    assert training.train(config(), workdir, source=source()).part is not None
    monkeypatch.setattr(training_data, "find_part", lambda *_: detector.part)
    less = source()._replace(train=source().train[1:])
    with pytest.raises(UserError, match="another data"):
        training.train(config(), workdir, source=less)


AS_JSON = {"angle": 5.0, "scale": 0.1, "overlap": 0.5, "confidence": 0.1}


@pytest.mark.parametrize(
    "changed",
    [
        {"gray": np.zeros(5, np.float32)},
        {"gray": np.zeros((9, 9), np.int8)},
        {"gray": np.full((9, 9), np.nan, np.float32)},
        {"mask": np.ones((9, 9), np.float32)},
        {"mask": np.zeros((9, 9), bool)},
        {"foreground": np.ones((7, 9), bool)},
        {"foreground": np.zeros((0, 0), bool)},
        {"search": AS_JSON | {"angle": 1e9}},
        {"search": AS_JSON | {"scale": -0.1}},
        {"search": AS_JSON | {"confidence": 0.0}},
        {"search": AS_JSON | {"overlap": "x"}},
        {"search": AS_JSON | {"more": 1}},
        {"search": [1]},
    ],
)
def test_a_damaged_part_is_refused_when_it_is_read(tmp_path, changed):
    arrays = {
        "gray": np.zeros((9, 9), np.float32),
        "mask": np.ones((9, 9), bool),
        "foreground": np.ones((9, 9), bool),
    }
    path = tmp_path / parts.FILE

    def written(search=AS_JSON, **changed):
        path.write_bytes(tensors.to_bytes(arrays | changed, {"search": search}))

    written()
    assert parts.read(path).search.angle == 5
    written(**changed)
    with pytest.raises(UserError, match="is damaged") as caught:
        parts.read(path)
    assert not re.search("argument|__|instances", str(caught.value))  # Python's words

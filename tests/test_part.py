"""A detector that aligns its images: what it says does not depend on how the part lies."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from small_runs import small_config

import recon_ad
from recon_ad import evaluate, export, panels, predict, train
from recon_ad.data import Record, Source, folder_source
from recon_ad.data.decode import decode_image, decode_mask
from recon_ad.data.source import digest
from recon_ad.errors import UserError
from recon_ad.inference import Thresholds
from recon_ad.inspection import background, finding
from recon_ad.inspection.coarse import Search
from recon_ad.inspection.geometry import similarity
from recon_ad.inspection.part import FILE, NotRegistered, Part, unpacked
from recon_ad.inspection.registration import make_template
from recon_ad.inspection.store import Key, Store
from recon_ad.report import Scale
from recon_ad.tables import moved as moved_set

SHAPE = (96, 144)
WIDE = Search(angle=15, scale=0.1, overlap=0.4, confidence=0.8)
SEARCH = Search(angle=10, scale=0.05, overlap=0.5, confidence=0.8)
POSES = (
    {"angle": 0, "scale": 1, "shift": (0, 0)},
    {"angle": 4, "scale": 1.02, "shift": (4, -3)},
    {"angle": -4, "scale": 0.99, "shift": (-5, 2)},
)


def body(seed=0):
    """A plate with blobs on a dark ground, uint8 [h, w, 1]."""
    noise = np.random.default_rng(7).standard_normal(SHAPE)
    smooth = ndimage.gaussian_filter(noise, 4)
    picture = 150 + 60 * smooth / np.abs(smooth).max()
    inside = np.zeros(SHAPE, bool)
    inside[18:-18, 24:-24] = True
    picture[~inside] = 20
    picture += np.random.default_rng(seed).normal(0, 2, SHAPE)
    return np.clip(picture, 0, 255).astype(np.uint8)[..., None]


def part_of(pictures):
    return background.part_of(pictures, [np.ones(p.shape, bool) for p in pictures])


def moved(image, pose):
    matrix = similarity(**pose, shape=SHAPE)
    shape = SHAPE[::-1]
    return cv2.warpAffine(
        image[..., 0], matrix, shape, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )[..., None], matrix


def spot(image, where, value=255):
    """A defect, and its truth."""
    image, truth = image.copy(), np.zeros(SHAPE, bool)
    truth[where[0] : where[0] + 8, where[1] : where[1] + 8] = True
    image[truth] = value
    return image, truth


def record(name, image, *, truth=None, roi=None):
    return Record(
        name,
        lambda: image,
        "good" if truth is None else "spot",
        None if truth is None else (lambda: truth),
        load_roi=None if roi is None else (lambda: roi),
    )


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0]).save(path)


def source():
    """Good images in several poses; test images as good, defective, and without the part."""
    train_ = [moved(body(i), POSES[i % 3])[0] for i in range(12)]
    test = [record("good/0.png", moved(body(20), POSES[1])[0])]
    damaged, truth = spot(body(21), (40, 60))
    image, matrix = moved(damaged, POSES[2])
    warped = cv2.warpAffine(truth.astype(np.float32), matrix, SHAPE[::-1]) > 0.5
    test.append(record("spot/0.png", image, truth=warped))
    test.append(record("good/lost.png", np.full((*SHAPE, 1), 99, np.uint8)))
    return Source(
        tuple(record(f"good/{i}.png", image) for i, image in enumerate(train_)), tuple(test)
    )


def config(**fields):
    made = small_config("configs/folder.py:method=cae,smoke", **fields)
    made.part.align, made.part.background = True, "auto"
    made.part.angle, made.part.scale, made.part.confidence = 10.0, 0.05, 0.8
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("part")
    return train.train(config(), workdir, source=source()), workdir


def test_the_part_is_told_from_a_plain_ground():
    pictures = [make_template(body(i)).gray for i in range(3)]
    found = part_of(pictures)
    expected = np.zeros(SHAPE, bool)
    expected[18:-18, 24:-24] = True
    assert found[ndimage.binary_erosion(expected, iterations=2)].all()  # the blur rounds corners
    # And the margin of a pixel, with what the blur adds.
    assert (found & ~ndimage.binary_dilation(expected, iterations=3)).sum() == 0
    # A hole in the part is part of it, and a speck on the ground is not.
    holed = [p.copy() for p in pictures]
    for p in holed:
        p[40:50, 60:70] = 0.08
        p[2:6, 2:6] = 0.6
    assert np.array_equal(part_of(holed), found)
    # What a picture does not show says nothing of the ground.
    half = [pictures[0], np.where(expected, pictures[1], np.float32(1))]
    seen = [np.ones(SHAPE, bool), expected]
    assert (background.part_of(half, seen) ^ part_of(pictures[:1])).mean() < 0.01
    # The other way round: a dark part on a bright ground.
    assert np.array_equal(part_of([1 - p for p in pictures]), found)


def test_a_part_that_does_not_stand_out_is_refused():
    noise = np.random.default_rng(0).uniform(size=(40, 60)).astype(np.float32)
    for pictures in ([ndimage.gaussian_filter(noise, 3)], [np.full((40, 60), 0.5, np.float32)]):
        with pytest.raises(UserError, match=r"stand out.*give a mask"):
            part_of(pictures)


def test_what_a_detector_says_does_not_depend_on_the_pose(trained):
    detector, _ = trained
    damaged, truth = spot(body(30), (44, 70))
    scores = []
    for pose in POSES:
        image, matrix = moved(damaged, pose)
        said = detector(image)
        scores.append(float(said.score))
        assert said.anomaly_map.shape == said.mask.shape == SHAPE
        assert said.reconstruction.shape == image.shape
        # The map's peak lies on the defect, where the image has it.
        y, x = np.unravel_index(said.anomaly_map.argmax(), SHAPE)
        warped = cv2.warpAffine(truth.astype(np.float32), matrix, SHAPE[::-1]) > 0.3
        assert ndimage.binary_dilation(warped, iterations=2)[y, x]
        assert said.registration.confidence > 0.9
    assert np.ptp(scores) < 0.1 * np.mean(scores)


def test_ground_and_what_the_picture_does_not_show_never_score(trained):
    detector, _ = trained
    clean = detector(body(31))
    dirty = body(31)
    dirty[:8, :30] = 255  # far from the part
    said = detector(dirty)
    assert float(said.score) == pytest.approx(float(clean.score), rel=0.02)
    assert said.anomaly_map[2, 2] == said.anomaly_map.min() and not said.mask[:10].any()
    # Of a region of interest, too, in the image's own frame.
    damaged, _ = spot(body(31), (44, 70))
    roi = np.ones(SHAPE, bool)
    roi[36:60, 60:90] = False
    few = np.zeros(SHAPE, bool)
    few[44:52, 70:78] = True  # too little of the part to know it by
    assert detector.predict(damaged, roi=few).registration.registered
    assert detector(damaged).score > 1.5 * clean.score
    assert detector.predict(damaged, roi=roi).score < 1.2 * clean.score


def test_a_part_that_is_not_there_has_no_score(trained, tmp_path):
    detector, _ = trained
    nothing = np.full((*SHAPE, 1), 99, np.uint8)
    with pytest.raises(
        NotRegistered, match="not registered: the part, where it is found best, agrees with"
    ) as e:
        detector(nothing)
    assert not e.value.registration.registered
    Image.fromarray(nothing[..., 0]).save(tmp_path / "lost.png")
    judged = predict.judge(
        detector, "lost.png", tmp_path / "lost.png", regions=predict.Regions(tmp_path)
    )
    assert judged.outcome == predict.NOT_REGISTERED and judged.row["score"] is None
    assert judged.row["error"].startswith("not registered") and judged.confidence < 0.8
    told = predict.summary([judged], tmp_path).splitlines()
    assert told[0].startswith("1 images: 0 anomalous, 1 not judged (1 not registered); see ")
    assert told[1].startswith("  lost.png: not registered: the part, where it is found best")
    # The next image of that name is another one.
    store = Store(tmp_path / "line.sqlite")
    row = {"latency": 0.1, "waiting": 0, "error": judged.row["error"]}
    store.commit(Key("cam.png", 1, 1), row | {"outcome": judged.outcome})
    store.commit(Key("cam.png", 1, 2), row | {"outcome": "good", "error": None})
    assert [row["outcome"] for row in store.rows()] == ["not registered", "good"]
    store.close()


@pytest.mark.parametrize("pose", POSES[1:])
def test_masks_at_other_thresholds_lie_within_each_other(trained, pose):
    detector, _ = trained
    image, _ = moved(spot(body(33), (44, 70))[0], pose)
    values = detector(image).anomaly_map
    at = [float(np.quantile(values, q)) for q in (0.98, 0.989, 0.9899, 0.99, 0.9901)]
    detector = detector.with_thresholds(Thresholds(0.1, at[3]), detector.record)
    shown = panels.panel(detector, record("a.png", image), scale=Scale(tuple(at), 3))
    assert shown.marks.pixels == tuple(sorted(shown.marks.pixels, reverse=True))
    assert shown.marks.pixels[3] > 0


def test_evaluation_names_what_was_not_registered_and_leaves_it_out(trained):
    detector, _ = trained
    metrics, report = evaluate.evaluate(detector, source(), name="plates")
    assert metrics["protocol"]["not_registered"] == ["good/lost.png"]
    assert [s.name for s in report.scores] == ["good/0.png", "spot/0.png"]
    assert metrics["image_auroc"] == 1.0 and metrics["pixel_auroc"] > 0.95
    assert any("Not registered" in note for note in metrics["protocol"]["notes"])
    assert "aligned to a template" in metrics["protocol"]["part"]
    only = source()._replace(test=(source().test[2],))
    with pytest.raises(UserError, match="in none of the 1 test images"):
        evaluate.evaluate(detector, only, name="plates")


def test_it_is_saved_opened_and_exported_with_the_detector(trained, tmp_path):
    detector, workdir = trained
    image, _ = moved(spot(body(32), (50, 50))[0], POSES[1])
    expected = detector(image)
    opened = recon_ad.load(workdir / "detector")
    assert opened(image).score == expected.score
    np.testing.assert_array_equal(opened.part.foreground, detector.part.foreground)
    with pytest.raises(UserError, match="found in none of the images to compare"):
        export.some_images(source().test[2:], part=detector.part)
    assert len(export.some_images(source().test, part=detector.part)) == 2
    images = export.some_images(source().train[:3], part=detector.part)
    assert export.export(detector, tmp_path / "M.onnx", images)["passed"]
    exported = recon_ad.load(tmp_path / "M.onnx")
    said = exported(image)
    np.testing.assert_allclose(
        said.anomaly_map, expected.anomaly_map, atol=1e-4 * detector.thresholds.pixel
    )
    np.testing.assert_array_equal(said.mask, expected.mask)
    with pytest.raises(NotRegistered):
        exported(np.full((*SHAPE, 1), 99, np.uint8))
    file = tmp_path / "M.part.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + b"abcd")
    with pytest.raises(UserError, match="of two exports"):
        recon_ad.load(tmp_path / "M.onnx")
    file.unlink()
    with pytest.raises(UserError, match=r"no file .*M\.part\.safetensors"):
        recon_ad.load(tmp_path / "M.onnx")
    with pytest.raises(UserError, match="damaged"):
        unpacked(content[:50], name="it")


def test_a_detector_without_its_part_is_refused(trained, tmp_path):
    detector, _ = trained
    detector.save(tmp_path / "d")
    (tmp_path / "d" / FILE).unlink()
    with pytest.raises(UserError, match=r"part\.safetensors.*missing"):
        recon_ad.load(tmp_path / "d")


def test_good_images_without_the_part_are_left_out_or_refused():
    part = Part(SEARCH, make_template(body()), np.ones(SHAPE, bool))
    lost = [record(f"lost{i}.png", np.full((*SHAPE, 1), 9 + i, np.uint8)) for i in range(3)]
    good = [record(f"good{i}.png", body(i)) for i in range(2)]
    kept, notes = part.aligned([*good, lost[0]])
    assert [r.name for r in kept] == ["good0.png", "good1.png"]
    (note,) = notes
    assert note.startswith("Left out: lost0.png is not registered")
    with pytest.raises(UserError, match="found in 2 of 5 good images: give another"):
        part.aligned([*good, *lost])


def test_images_that_are_left_out_are_none_that_were_learnt_from(tmp_path):
    given = source()
    lost = record("good/lost.png", np.full((*SHAPE, 1), 9, np.uint8))
    made = config(**{"train.steps": 2})
    detector = train.train(
        made, tmp_path / "run", source=given._replace(train=(*given.train, lost))
    )
    known = detector.record["learnt_from"]
    assert known and set(known) < {digest(one.load()) for one in given.train}
    assert digest(lost.load()) not in known


def test_training_images_are_moved_to_the_template():
    part = Part(SEARCH, make_template(body()), np.ones(SHAPE, bool))
    image, _ = moved(body(3), POSES[1])
    (kept,), _ = part.aligned([record("a.png", image)])
    roi = kept.load_roi()
    assert 0.7 < roi.mean() < 1
    assert np.abs(kept.load().astype(float) - body(3))[roi].mean() < 4  # noise, interpolated
    # One that shows too little is no template: one gray, or next to nothing of the part.
    speck = np.zeros(SHAPE, bool)
    speck[40:43, 70:73] = True
    shown = [
        record("gray.png", np.full((*SHAPE, 1), 9, np.uint8)),
        record("speck.png", body(6), roi=speck),
        *(record(f"{i}.png", body(i)) for i in range(1, 3)),
    ]
    found, _ = finding._typical(shown, SEARCH)
    assert any(np.array_equal(found, one.load()) for one in shown[2:])
    # The template is the image to which the others are aligned best: not the one that is odd.
    odd = [record("0.png", 255 - body(1)), *(record(f"{i}.png", body(i)) for i in range(1, 5))]
    found, _ = finding._typical(odd, SEARCH)
    assert not np.array_equal(found, odd[0].load())


def test_a_given_mask_is_of_the_templates_size(tmp_path):
    c = config()
    Image.fromarray(np.full(SHAPE, 255, np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(body()[..., 0]).save(tmp_path / "template.png")
    c.part.template, c.part.background = str(tmp_path / "template.png"), str(tmp_path / "mask.png")
    part = finding.find_part(c, source().train)
    assert part.foreground.all()
    np.testing.assert_allclose(part.template.gray, body()[..., 0] / np.float32(255), rtol=1e-6)
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"mask\.png has 9x9 px, the template 144x96"):
        finding.find_part(c, source().train)
    c.part.background = str(tmp_path / "gone.png")
    with pytest.raises(
        UserError, match=r"^config\.part\.background: .*gone\.png: there is no such"
    ):
        finding.find_part(c, source().train)
    c.part.background, c.part.template = "auto", str(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"^config\.part\.template: .*gone\.png: there is no such"):
        finding.find_part(c, source().train)
    two = [r._replace(category=str(i % 2)) for i, r in enumerate(source().train)]
    with pytest.raises(UserError, match="of one part, but"):
        finding.find_part(c, two)


def test_a_ground_without_alignment_asks_for_the_same_size():
    c = config()
    c.part.align = False
    part = finding.find_part(c, [record(f"{i}.png", body(i)) for i in range(3)])
    assert part.search is None and 0.2 < part.foreground.mean() < 0.7
    placed = part.place(body(9))
    assert placed.registration is None and np.array_equal(placed.valid, part.foreground)
    # Maps have their least valid value on the ground, also where they are negative.
    values = np.random.default_rng(0).uniform(-3, -1, SHAPE).astype(np.float32)
    values[~part.foreground] = 0
    back = placed.map_back(values)
    assert back[~part.foreground].max() == values[part.foreground].min() == back.min()
    np.testing.assert_array_equal(back[part.foreground], values[part.foreground])
    with pytest.raises(UserError, match="has 20x10 px and the mask of the background 144x96"):
        part.place(np.zeros((10, 20, 1), np.uint8))


def test_a_set_is_moved_with_its_masks_and_what_was_not_in_a_picture_counts_nowhere(tmp_path):
    for i in range(3):
        save(tmp_path / "set" / "train" / "good" / f"{i}.png", body(i))
    damaged, truth = spot(body(9), (44, 70))
    save(tmp_path / "set" / "test" / "spot" / "0.png", damaged)
    save(
        tmp_path / "set" / "ground_truth" / "spot" / "0_mask.png", truth[..., None] * np.uint8(255)
    )
    outline = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    target = tmp_path / "moved"
    moved_set.write_moved(tmp_path / "set", target, outline=outline)
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
    # The same part in another pose: registered, it is where it was, and so is its defect.
    part = Part(WIDE, make_template(damaged), np.ones(SHAPE, bool))
    placed = part.place(image, roi=roi)
    pose, flags = placed.registration.matrix, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    back = cv2.warpAffine(mask.astype(np.float32), pose, SHAPE[::-1], flags=flags)
    overlap = (back > 0.5) & truth
    assert overlap.sum() > 0.8 * truth.sum()


def test_the_config_says_what_is_wrong(tmp_path):
    for field, value in {"angle": 200.0, "scale": 1.0, "overlap": 0.0, "confidence": 1.0}.items():
        c = config()
        c.part[field] = value
        with pytest.raises(UserError, match=f"config.part.{field}"):
            train.train(c, tmp_path / "w", source=source())


def test_the_run_says_how_it_was(trained):
    _, workdir = trained
    told = json.loads((workdir / "detector" / "detector.json").read_text())
    assert told["has_part"] and told["config"]["part"]["align"]
    assert not told["record"]["calibration"]["regions_of_interest"]


def test_a_run_goes_on_with_the_same_template_only(trained, tmp_path):
    _, workdir = trained
    other = body(40)
    Image.fromarray(other[..., 0]).save(tmp_path / "template.png")
    made = finding.find_part(config(), source().train)
    kept = finding.aligned_source(source(), made).train
    before = json.loads((workdir / "data.json").read_text())
    assert finding.identity(made, config()).items() <= before.items()
    assert finding.found_in(made, kept).items() <= before.items()
    c = config()
    c.part.template = str(tmp_path / "template.png")
    changed = finding.identity(finding.find_part(c, source().train), c)
    assert changed["template"] != before["template"]
    assert finding.found_in(made, kept[1:])["aligned"] != before["aligned"]


def test_a_complete_run_registers_nothing_again_and_is_still_of_its_images(trained, monkeypatch):
    _, workdir = trained

    def refused(*_):
        raise AssertionError("good images are registered again")

    monkeypatch.setattr(train, "aligned_source", refused)
    assert train.train(config(), workdir, source=source()).part is not None
    less = source()._replace(train=source().train[1:])
    with pytest.raises(UserError, match="another data"):
        train.train(config(), workdir, source=less)

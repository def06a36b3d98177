"""A certificate from images to page: a detector of known behaviour, interruptions, bad input."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from helpers.commands import refusal, run_command
from helpers.detectors import plain_detector
from helpers.report_pages import Page
from PIL import Image

from recon_ad.certification import cases, disturbed_trials, run
from recon_ad.certification import detection as statistics
from recon_ad.certification.disturb import DISTURBANCES
from recon_ad.certification.page import page
from recon_ad.certification.real import Defective, real_defects
from recon_ad.certification.run import certify, false_rejects
from recon_ad.data.decode import decode_image
from recon_ad.data.source import digest
from recon_ad.detector.certificate import link_certificate, link_report, section_of
from recon_ad.detector.directory import load
from recon_ad.detector.inference import UNCALIBRATED, Inference, Prediction, Thresholds
from recon_ad.detector.onnx_export import export, folder_images
from recon_ad.detector.open import identity
from recon_ad.errors import UserError

IMAGES, SIDE = 12, 192


class Unlike(Inference):
    """Stops what differs from middle gray in as many pixels as a disc of 12 px has.

    It does not see the first and last rows, which give the images a range of gray levels.
    """

    plan = SimpleNamespace(channels=1, input_range=(0.0, 0.0))
    thresholds = Thresholds(113.0, 0.05)
    calibrated_on_regions = False
    part = None
    run_core = run_tail = None
    known, promised, count = frozenset(), None, 0
    seen = property(lambda self: self.known)
    promise = property(lambda self: self.promised)

    def __init__(self, **fields):
        vars(self).update(fields)

    def predict(self, image, *, roi=None, reconstruct=True):
        self.count += 1
        mask = np.abs(image[..., 0] / 255 - 0.5) > 0.05
        mask[:3] = mask[-3:] = False
        mask &= True if roi is None else roi
        score = np.float32(mask.sum())
        return Prediction(score, score > 113, mask * score, mask, None)


@pytest.fixture(autouse=True, scope="module")
def few_trials():
    """Use half of the inserted defects, a third of the disturbances, and few simulated outcomes."""
    levels = {name: DISTURBANCES[name] for name in ("brighter", "darker", "less_contrast")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "TRIALS", 32)
        patch.setattr(statistics, "SIMULATED", 100)
        patch.setattr(disturbed_trials, "DISTURBANCES", levels)
        yield


@pytest.fixture
def fewest_trials(monkeypatch):
    """Use so few trials that a network can judge them."""
    monkeypatch.setattr(cases, "TRIALS", 8)
    monkeypatch.setattr(run, "PARTS", 3)
    monkeypatch.setattr(disturbed_trials, "DEFECTS", 4)
    levels = {name: DISTURBANCES[name] for name in ("darker", "brighter")}
    monkeypatch.setattr(disturbed_trials, "DISTURBANCES", levels)


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    """Good images of fine noise around middle gray, the first rows white and the last black."""
    folder = tmp_path_factory.mktemp("normals")
    for i in range(IMAGES):
        pixels = np.random.default_rng(i).integers(124, 132, (SIDE, SIDE), np.uint8)
        pixels[:3], pixels[-3:] = 255, 0
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def certificate(normals, tmp_path_factory):
    output = tmp_path_factory.mktemp("certificate")
    return certify(Unlike(), normals, output, identity="x", mm_per_px=0.5), output


def test_a_detector_that_counts_pixels_is_certified_at_the_size_that_it_counts(certificate):
    found = {(e["kind"], e["contrast"]): e for e in certificate[0].figures["detection"]}
    assert len(found) == 16
    for contrast in (0.2, 0.8):
        spots = found["spot", contrast]
        assert spots["trials"] == cases.TRIALS == len(spots["sizes_px"])
        image = spots["image"]
        assert image["a90"]["where"] == image["a90_95"]["where"] == "within"
        assert image["a50"]["px"] < image["a90"]["px"] < image["a90_95"]["px"] < 30
        assert image["a90"]["mm"] == image["a90"]["px"] * 0.5
        sizes, hit = np.array(spots["sizes_px"]), np.array(spots["found"])
        assert hit[sizes > 13].all() and not hit[sizes < 2.5].any()
        assert not (np.array(spots["located"]) & ~hit).any()


def of_envelope(figures):
    """Return the number of trials of the operating envelope."""
    found = figures["envelope"]
    levels = 1 + sum(len(one["tested"]) for one in found["disturbances"].values())
    return levels * (found["good_images"] + found["defects"])


def test_the_envelope_ends_where_the_detector_sees_the_change(certificate):
    found = certificate[0].figures["envelope"]
    assert (found["good_images"], found["defects"]) == (IMAGES, 24)
    changes = found["disturbances"]
    # It sees gray levels more than 5 % of the range from the middle.
    for name in ("brighter", "darker"):
        assert (changes[name]["holds_to"], changes[name]["leaves_at"]) == (0.05, 0.1)
        assert "rejects" in changes[name]["because"]
    assert changes["less_contrast"]["leaves_at"] is None or (
        changes["less_contrast"]["because"] == ["detection"]
    )
    low, high = found["warning_limits"]["brightness"]
    assert low < found["usual"]["brightness"] < high


def test_false_rejects_are_counted_against_the_promise():
    rows = {str(i): {"stopped": i < 6, "registered": True} for i in range(30)}
    lost = {"lost": {"stopped": False, "registered": False}}
    found = false_rejects(Unlike(promised=(0.02, 100.0)), rows | lost)
    assert (found["count"], found["total"], found["rate"]) == (6, 30, 0.2)
    assert found["stopped"] == [str(i) for i in range(6)]
    assert found["promise_broken"] and found["p_value"] < 0.01
    assert list(found["images_needed"]) == ["0.05", "0.02", "0.01"]
    assert not false_rejects(Unlike(promised=(0.2, 100.0)), rows)["promise_broken"]
    assert false_rejects(Unlike(), rows)["promised"] is None
    with pytest.raises(UserError, match="finds its part in none"):
        false_rejects(Unlike(), lost)


def test_the_page_answers_first_and_is_in_order(certificate):
    made = Page(page(certificate[0]))
    text = made.text
    places = [
        text.index(f"{a}:") for a in ("Smallest defect", "Good parts stopped", "Same verdict again")
    ]
    assert places == sorted(places)
    assert "0 of 12 good images" in text and "no more than 22" in text
    assert {"rejects", "detection", "smallest", "largest", "glossary", "data"} <= set(made.ids)
    smallest, largest = certificate[0].smallest, certificate[0].largest
    assert [e.row["stopped"] for e in smallest] == [True] * len(smallest)
    assert [e.row["stopped"] for e in largest] == [False] * len(largest)
    sizes = [e.case.size for e in largest]
    assert sizes == sorted(sizes, reverse=True) and len(largest) > 1
    assert all(e.marks.any() for e in smallest)
    assert not any(link.startswith("http") for link in made.links)


def test_an_interrupted_certificate_goes_on_and_ends_the_same(normals, certificate, tmp_path):
    class Interrupted(Unlike):
        def predict(self, image, **options):
            if self.count == 100:
                raise KeyboardInterrupt
            return super().predict(image, **options)

    with pytest.raises(KeyboardInterrupt):
        certify(Interrupted(), normals, tmp_path, identity="x", mm_per_px=0.5)
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"trial": "defect/spot')  # killed while it wrote
    second = Unlike()
    found = certify(second, normals, tmp_path, identity="x", mm_per_px=0.5)
    assert found.figures == certificate[0].figures
    shown = len(found.smallest) + len(found.largest)
    repeated = found.figures["repeatability"]
    assert (repeated["good_parts"], repeated["defective_parts"]) == (IMAGES, 20)
    made = IMAGES + 16 * cases.TRIALS + repeated["pictures"] + of_envelope(found.figures)
    assert second.count == made - 100 + shown
    # Another seed gives other defects, and another study, which does not replace the first.
    kept = (tmp_path / "trials.jsonl").read_text()
    again = Unlike()
    with pytest.raises(UserError, match=r"trials\.jsonl holds the trials of another study"):
        certify(again, normals, tmp_path, identity="x", seed=1)
    assert again.count == 0 and (tmp_path / "trials.jsonl").read_text() == kept
    other = certify(again, normals, tmp_path / "other", identity="x", seed=1)
    assert again.count >= made
    sizes = [c.figures["detection"][0]["sizes_px"] for c in (certificate[0], other)]
    assert sizes[0] != sizes[1]


def test_a_part_with_several_pictures_counts_once_among_the_good_ones(normals, tmp_path):
    for i, file in enumerate(sorted(normals.iterdir())):
        (tmp_path / f"part{i % 6}-{i // 6}.png").write_bytes(file.read_bytes())
    pattern = r"part(\d+)-"
    found = certify(Unlike(), tmp_path, tmp_path / "o", identity="x", repeats=pattern).figures
    assert found["false_rejects"]["total"] == 6 and found["images"]["count"] == IMAGES
    repeated = found["repeatability"]
    assert (repeated["good_parts"], repeated["pictures"]) == (6, 12)
    assert repeated["kappa"] is None and repeated["alike"]["count"] == 6


def test_real_defects_that_inserted_ones_do_not_stand_for_are_said_first(normals, tmp_path):
    good = np.asarray(Image.open(normals / "00.png"))
    truth = np.zeros_like(good)
    truth[60:80, 60:80] = 255
    for i in range(20):  # of a size at which most inserted ones are found, and not to be seen
        for folder, pixels in (("test", good), ("ground_truth", truth)):
            (tmp_path / folder / "dull").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"dull/{i}.png")
    found = certify(Unlike(), normals, tmp_path / "o", identity="x", defects=tmp_path / "test")
    real = found.figures["real_defects"]
    assert real["differs"] and real["escapes"]["count"] == 20
    text = Page(page(found)).text
    first = text.index("Defects drawn by the computer do not stand for the real ones")
    assert first < text.index("Good parts that are stopped")
    assert "Of 20 images with real defects 20 are missed" in text
    assert "found less often (of 16 to 32 px 0 of 20 real ones" in text
    assert "Smallest defect: it finds 0 of 20 images with real defects (0 %) and misses" in text
    assert "These sizes do not hold for the real ones." in text


def test_real_defects_that_are_stopped_for_something_else_are_named(certificate):
    names = [str(i) for i in range(6)]
    images = [Defective(name, "dull", Path(name), []) for name in names]
    rows = {n: {"stopped": True, "located": n == "0", "size": 20.0, "digest": ""} for n in names}
    real = real_defects(images, rows, [])
    assert real["located"] == {"count": 1, "total": 6}
    made, _ = certificate
    text = Page(page(made._replace(figures=made.figures | {"real_defects": real}))).text
    assert "6 of 6 images with real defects (100 %) and misses 0; in 1 it marks the right" in text
    assert "In 5 of 6 images with real defects that are found, the detector marks another" in text


def test_images_that_prove_nothing_are_refused(normals, tmp_path):
    def sentence(folder=normals, roi=None, **fields):
        with pytest.raises(UserError) as error:
            certify(Unlike(**fields), folder, tmp_path / "o", identity="x", roi=roi)
        return str(error.value)

    seen = digest(decode_image(normals / "03.png", channels=1))
    assert "1 of the 12 good images (03.png)" in sentence(known=frozenset([seen]))
    few = tmp_path / "few"
    few.mkdir()
    for i in range(11):  # copies of nine
        (few / f"{i}.png").write_bytes((normals / f"{i % 9:02d}.png").read_bytes())
    assert "9 different good images" in sentence(few)
    assert "no such folder" in sentence(tmp_path / "none")
    roi = np.zeros((SIDE, SIDE), np.uint8)
    roi[60:66] = 255
    Image.fromarray(roi).save(tmp_path / "roi.png")
    assert "no room for a defect of 8 px" in sentence(roi=tmp_path / "roi.png")
    Image.fromarray(roi[:50]).save(tmp_path / "roi.png")
    assert "draw the region of interest on the image" in sentence(roi=tmp_path / "roi.png")


def test_a_detector_that_stops_good_images_cannot_be_certified(normals, tmp_path):
    class Strict(Unlike):
        def predict(self, image, **options):
            return super().predict(image, **options)._replace(label=np.True_)

    with pytest.raises(UserError, match="only 0 of the 12 good images pass"):
        certify(Strict(), normals, tmp_path, identity="x")


@pytest.fixture(scope="module")
def detector(normals, tmp_path_factory):
    """Return a detector directory with a record, and thresholds above the good images."""
    folder = tmp_path_factory.mktemp("detector") / "detector"
    made = plain_detector()
    every = [made.predict(decode_image(f, channels=1)) for f in sorted(normals.iterdir())]
    score = 1.001 * float(max(p.score for p in every))
    calibration = {
        "heldout": "", "message": "", "images": 99, "regions_per_image": 1,
        "fpr_supported": 0.01, "digests": ["0" * 64],
    }  # fmt: skip
    made.with_thresholds(Thresholds(score, score), {"calibration": calibration}).save(folder)
    return folder


def test_the_command_writes_page_and_figures_of_a_detector_directory(
    detector, normals, tmp_path, fewest_trials
):
    detector = shutil.copytree(detector, tmp_path / "detector")  # its model card changes
    given = ("--detector", detector, "--normals", normals, "--output", tmp_path / "o")
    done = run_command("certify", *given, "--mm_per_px=.1")
    assert done.returncode == 0, done.stderr
    assert "o/certificate.html" in (detector / "MODEL_CARD.md").read_text()
    figures = json.loads((tmp_path / "o/certificate.json").read_text())
    assert figures["false_rejects"]["promised"] == 0.01 and figures["detector"]["seen_known"]
    assert figures["images"]["count"] == IMAGES
    assert "Certificate of a detector" in (tmp_path / "o/certificate.html").read_text()
    lines = (tmp_path / "o/trials.jsonl").read_text().splitlines()
    made = IMAGES + 16 * 8 + figures["repeatability"]["pictures"]
    assert len(lines) == 1 + made + of_envelope(figures)


@pytest.mark.slow
def test_an_exported_model_has_the_same_certificate(detector, normals, tmp_path, fewest_trials):
    detector = shutil.copytree(detector, tmp_path / "detector")  # its model card changes
    opened = load(detector)
    assert export(opened, tmp_path / "m.onnx", folder_images(normals, opened))["passed"]
    found = []
    for runtime in ("jax", "onnxruntime", "openvino"):
        given = ("--onnx", tmp_path / "m.onnx", "--runtime", runtime)
        given = ("--detector", detector) if runtime == "jax" else given
        output = tmp_path / runtime
        done = run_command("certify", *given, "--normals", normals, "--output", output)
        assert done.returncode == 0, done.stderr
        figures = json.loads((output / "certificate.json").read_text())
        assert figures["detector"]["seen_known"]
        found.append(figures)
    for part in ("detection", "false_rejects"):
        assert found[0][part] == found[1][part] == found[2][part]
    alike = [figures["repeatability"]["alike"] for figures in found]
    envelopes = [figures["envelope"]["disturbances"] for figures in found]
    assert alike == alike[:1] * 3 and envelopes == envelopes[:1] * 3
    assert found[0]["false_rejects"]["promised"] == 0.01
    hits = [hit for entry in found[0]["detection"] for hit in entry["found"]]
    assert 0 < sum(hits) < len(hits)


def test_mistakes_of_the_command_end_in_one_sentence(detector, normals, tmp_path):
    given = ("--normals", normals, "--output", tmp_path / "o")
    (tmp_path / "file").write_text("")
    file = ("--normals", normals, "--output", tmp_path / "file")
    assert "is a file: give a folder" in refusal("certify", *file, "--detector", detector)
    assert "--mm_per_px -1" in refusal("certify", *given, "--detector", detector, "--mm_per_px=-1")
    bare = tmp_path / "detector"
    plain_detector().with_thresholds(UNCALIBRATED, {}).save(bare)
    assert "has no thresholds" in refusal("certify", *given, "--detector", bare)


def test_model_card_and_report_link_the_latest_certificate_and_keep_the_detector(
    detector, tmp_path
):
    run = tmp_path / "my run"
    shutil.copytree(detector, run / "detector")
    card, report = run / "detector/MODEL_CARD.md", run / "report.html"
    report.write_text("<p>a</p>\n<main>\n<h2>b</h2>\n</main>")
    before, plain = identity(run / "detector"), card.read_text()
    for name in ("first", "a (2nd)"):
        page = tmp_path / name / "certificate.html"
        page.parent.mkdir()
        page.write_text("")
        assert link_certificate(run / "detector", page) == [card, report]
        (to,) = re.findall(r"certificate\.html\]\(([^)]+)\)", card.read_text())
        assert (card.parent / unquote(to)).samefile(page)
        (link,) = (link for link in Page(report.read_text()).links if "certificate" in link)
        assert (run / unquote(link)).samefile(page)
    assert card.read_text().startswith(plain.rstrip()) and card.read_text().count("## ") == 1 + (
        plain.count("## ")
    )
    assert identity(run / "detector") == before
    # An evaluation writes both anew.
    report.write_text("<main>\n</main>")
    card.write_text(plain + section_of(card))
    assert link_report(run / "detector") == [report] and "Certificate" in report.read_text()
    card.write_text(plain)
    assert link_report(run / "detector") == []

"""Entries of exported models on their calibration: promises, digests, earlier models, damage."""

import json

import pytest
from helpers.detectors import make_detector, pictures

from recon_ad.detector import onnx_export
from recon_ad.detector.history import history_facts, read_promise, read_seen
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.onnx_detector import load, tail_path
from recon_ad.errors import UserError

DIGESTS = [f"{i:064x}" for i in range(3)]


@pytest.fixture(scope="module")
def detector():
    """Return a detector of two categories, one of which has no promise."""
    calibration = {
        "heldout": "", "message": "", "images": 99, "regions_per_image": 1, "fpr_supported": 0.01,
        "independent_units": 45.5, "by_category": {"a b": (0.02, 30.0), "c": (None, 20.0)},
        "digests": DIGESTS[:1],
    }  # fmt: skip
    record = {"learnt_from": DIGESTS[1:], "calibration": calibration}
    names = {name: Thresholds(1.0, 2.0) for name in ("a b", "c")}
    return make_detector("cae").with_thresholds(Thresholds(1.0, 2.0), record, categories=names)


def test_an_exported_model_promises_what_its_detector_does_and_knows_the_same_images(
    detector, tmp_path
):
    made = onnx_export.export(detector, tmp_path / "m.onnx", pictures())
    assert made["passed"]
    model = load(tmp_path / "m.onnx")
    assert model.seen == detector.seen == set(DIGESTS)
    assert model.promise == detector.promise == (0.01, 45.5)
    assert model.of_category("a b").promise == detector.of_category("a b").promise == (0.02, 30.0)
    assert model.of_category("c").promise is None
    # Once is enough, as there may be many.
    assert DIGESTS[2].encode() not in tail_path(tmp_path / "m.onnx").read_bytes()
    assert (
        json.loads((tmp_path / "m.parity.json").read_text())["metadata"]["promise"] == "0.01,45.5"
    )


def test_models_of_before_know_neither(detector):
    assert read_promise({}, "", model="m") is read_promise({}, "a", model="m") is None
    assert read_seen({}, model="m") == frozenset()
    facts = history_facts(detector)
    assert read_promise(facts, "", model="m") == (0.01, 45.5)


@pytest.mark.parametrize("word", ["0.01", "0.01,x", "2,30", "0,30", "0.01,0", "nan,3", "0.01,1e13"])
def test_a_damaged_promise_is_rejected(word):
    with pytest.raises(UserError, match=r"m\.onnx: its metadata are damaged \(promise is"):
        read_promise({"promise": word}, "", model="m.onnx")


@pytest.mark.parametrize("word", [DIGESTS[0][1:], f"{DIGESTS[0]},", f"{DIGESTS[0]} ", "é" * 64])
def test_damaged_digests_are_rejected(word):
    with pytest.raises(UserError, match=r"\(seen is"):
        read_seen({"seen": word}, model="m.onnx")

"""Exported models decide as their detectors do, or are refused."""

import json
import subprocess
import sys

import jax
import numpy as np
import onnx
import pytest
from PIL import Image
from small_runs import small_config

import recon_ad
from recon_ad import deployed, export, exporting, parity
from recon_ad.detector import Detector
from recon_ad.errors import UserError
from recon_ad.inference import UNCALIBRATED, Thresholds
from recon_ad.methods import METHODS, ON_FEATURES, build_method
from recon_ad.ops.scores import SCORES

SIDE = 32  # of the tiles


def make_detector(method="cae", *, channels=1, quantile=0.9, **fields):
    """Random weights, with thresholds that some of the images are above of."""
    spec = f"configs/folder.py:method={method},smoke"
    config = small_config(
        spec,
        **({"inference.stride": 16, "data.channels": channels, "train.batch_size": 4} | fields),
    )
    built = build_method(config, channels=channels)
    size = config.data.patch_size
    example = np.random.default_rng(1).random((4, size, size, channels), np.float32)
    frozen, _ = built.pretrained()
    batch = jax.jit(built.prepare)(frozen, example)
    state = jax.jit(built.init)(jax.random.key(0), batch)
    if method == "knn":  # its memory is filled by training
        for i in range(config.train.steps):
            state, _ = jax.jit(built.train_step)(state, batch, jax.random.key(i))
    variables = built.finish(frozen, state, [example])
    raw = Detector(config, channels=channels, variables=variables)
    predictions = [raw.predict(image) for image in pictures(channels=channels)]
    pixels = np.concatenate([p.anomaly_map.ravel() for p in predictions])
    thresholds = Thresholds(
        float(np.median([p.score for p in predictions])), float(np.quantile(pixels, quantile))
    )
    return raw.with_thresholds(thresholds, {})


def pictures(channels=1, dtype=np.uint8, sizes=((50, 70), (32, 32), (40, 33), (9, 10))):
    random = np.random.default_rng(0)
    made = [random.random((*size, channels), np.float32) for size in sizes]
    if dtype == np.float32:
        return made
    return [(image * np.iinfo(dtype).max).astype(dtype) for image in made]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A detector and its model."""
    path = tmp_path_factory.mktemp("exported") / "M.onnx"
    detector = make_detector("ssim_ae")
    assert export.export(detector, path, pictures())["passed"]
    return detector, path


def same(ours, theirs, *, decided=True):
    # Rounding of float32 in another order of operations, on maps of about 0.1 to 1.
    np.testing.assert_allclose(theirs.score, ours.score, rtol=1e-5)
    np.testing.assert_allclose(theirs.anomaly_map, ours.anomaly_map, rtol=2e-6, atol=1e-5)
    if ours.reconstruction is not None:
        np.testing.assert_allclose(theirs.reconstruction, ours.reconstruction, atol=1e-5)
    assert theirs.mask.dtype == bool
    if decided:  # features of noise are all as anomalous: there parity alone tells what is too near
        assert theirs.label == ours.label
        assert np.count_nonzero(theirs.mask != ours.mask) <= 1e-3 * ours.mask.size


@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes_in_both_runtimes(method, tmp_path):
    detector = make_detector(method)
    result = export.export(detector, tmp_path / "M.onnx", pictures())
    assert result["passed"], export.worst(result)
    assert list(result["groups"]) == [
        "1 tile at once", "2 tiles at once", "7 tiles at once", "images",
    ]  # fmt: skip
    written = json.loads((tmp_path / "M.parity.json").read_text())
    label = written["groups"]["images"]["label"]
    assert (label["compared"], label["differ"], label["passed"]) == (4, 0, True)
    if method not in ON_FEATURES:  # to which noise is all the same
        assert label["too_near_to_tell"] == 0
    for runtime in deployed.RUNTIMES:
        model = recon_ad.load(tmp_path / "M.onnx", runtime=runtime)
        for image in pictures():
            same(detector.predict(image), model.predict(image), decided=method not in ON_FEATURES)
        assert model.predict(pictures()[0]).mask.any()


def test_outputs_stand_in_a_fixed_order_and_metadata_say_what_is_needed(exported):
    detector, path = exported
    core, tail = onnx.load(path), onnx.load(deployed.tail_path(path))
    assert [o.name for o in core.graph.output] == ["residual_map", "reconstruction"]
    assert [o.name for o in tail.graph.output] == ["score", "label", "anomaly_map", "mask"]
    facts = {p.key: p.value for p in core.metadata_props}
    assert facts["recon_ad_method"] == "ssim_ae"
    assert float(facts["recon_ad_pixel_threshold"]) == np.float32(detector.thresholds.pixel)
    assert facts["recon_ad_channel_order"] == "gray" and facts["recon_ad_licence"]
    # Once: map and reconstruction share the network (its encoder has 8 convolutions, and so on).
    convolutions = sum(node.op_type in ("Conv", "ConvTranspose") for node in core.graph.node)
    assert convolutions == 16
    assert "Loop" not in {node.op_type for m in (core, tail) for node in m.graph.node}


@pytest.mark.parametrize("score, sigma", [*((name, 1.5) for name in SCORES), ("max", 0.0)])
def test_every_score_passes(score, sigma, tmp_path):
    fields = {"inference.score": score, "inference.sigma": sigma}
    detector = make_detector("l2_ae", **fields)
    result = export.export(detector, tmp_path / "M.onnx", pictures())
    assert result["passed"], export.worst(result)


@pytest.mark.parametrize(
    "options, taken",
    [
        ({"batch": 3}, [3, SIDE, SIDE, 3]),
        ({"layout": "nchw"}, ["b", 3, SIDE, SIDE]),
        ({"dtype": "uint16"}, ["b", SIDE, SIDE, 3]),
        ({"dtype": "float32", "opset": 23}, ["b", SIDE, SIDE, 3]),
    ],
)
def test_options_change_the_input_and_not_the_result(options, taken, tmp_path):
    detector = make_detector(channels=3)
    kind = np.dtype(options.get("dtype", "uint8"))
    images = pictures(3, kind)
    assert export.export(detector, tmp_path / "M.onnx", images, **options)["passed"]
    (entry,) = onnx.load(tmp_path / "M.onnx").graph.input
    shape = [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim]
    assert shape == taken
    assert entry.type.tensor_type.elem_type == onnx.helper.np_dtype_to_tensor_dtype(kind)
    for runtime in deployed.RUNTIMES:
        model = deployed.load(tmp_path / "M.onnx", runtime=runtime)
        for image in images:
            same(detector.predict(image), model.predict(image))


def test_a_graph_for_one_tile_may_have_a_fixed_batch(tmp_path):
    detector = make_detector("ssim_l1", **{"data.resize": (SIDE, SIDE)})
    images = pictures(dtype=np.float32)
    assert export.export(detector, tmp_path / "M.onnx", images, batch=3)["passed"]
    same(detector.predict(images[0]), deployed.load(tmp_path / "M.onnx").predict(images[0]))


def test_where_an_image_is_one_tile_one_graph_does_everything(tmp_path):
    fields = {"data.resize": (SIDE, SIDE), "inference.border": 3, "inference.sigma": 1.0}
    detector = make_detector("ssim_l1", **fields)
    images = pictures(dtype=np.float32)
    assert export.export(detector, tmp_path / "M.onnx", images)["passed"]
    same(detector.predict(images[0]), deployed.load(tmp_path / "M.onnx").predict(images[0]))
    graph = deployed.OnnxRuntimeGraph(tmp_path / "M.onnx")
    assert tuple(graph.outputs) == deployed.OUTPUTS["whole"]
    at_size = pictures(dtype=np.float32, sizes=[(SIDE, SIDE)] * 3)
    outputs = graph.run(graph.outputs, {"images": np.stack(at_size)})
    by_name = dict(zip(graph.outputs, outputs, strict=True))
    for i, image in enumerate(at_size):
        ours = detector.predict(image)
        np.testing.assert_allclose(by_name["score"][i], ours.score, rtol=1e-5)
        np.testing.assert_allclose(by_name["anomaly_map"][i], ours.anomaly_map, atol=1e-5)
        np.testing.assert_allclose(by_name["reconstruction"][i], ours.reconstruction, atol=1e-5)
        assert by_name["label"][i] == ours.label
        above = ours.anomaly_map > np.float32(detector.thresholds.pixel)
        assert np.count_nonzero(by_name["mask"][i] != above) <= 1


def test_a_region_of_interest_counts_as_with_jax(exported):
    detector, path = exported
    image = pictures()[0]
    roi = np.zeros(image.shape[:2], bool)
    roi[5:30, 8:60] = True
    ours, theirs = detector.predict(image, roi=roi), deployed.load(path).predict(image, roi=roi)
    same(ours, theirs)
    assert not theirs.mask[~roi].any()


@pytest.mark.parametrize("part", ["core", "tail"])
def test_a_model_that_decides_otherwise_is_refused(part, monkeypatch, tmp_path):
    detector = make_detector()
    output = tmp_path / "M.onnx"
    assert export.export(detector, output, pictures())["passed"]
    right = getattr(exporting, part)

    def spoiled(*args, **kwargs):  # by a tenth of a per cent
        first, *rest = right(*args, **kwargs)
        return first * 1.001, *rest

    monkeypatch.setattr(exporting, part, spoiled)
    result = export.export(detector, output, pictures())
    assert not result["passed"]
    assert ("residual_map" if part == "core" else "score") in export.worst(result)
    assert [file.name for file in tmp_path.iterdir()] == ["M.parity.json"]  # no earlier one either
    assert json.loads((tmp_path / "M.parity.json").read_text())["passed"] is False


def test_the_command_ends_with_1_where_it_refuses(tmp_path):
    make_detector().save(tmp_path / "detector")
    for i, image in enumerate(pictures()):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / f"images/{i}.png")
    spoil = (
        "import runpy, recon_ad.exporting as e; right = e.core; "
        "e.core = lambda *a, **k: [r * 1.01 for r in right(*a, **k)]; "
    )
    arguments = [
        "", "--detector", tmp_path / "detector", "--output", tmp_path / "M.onnx",
        "--data", tmp_path / "images",
    ]  # fmt: skip
    code = (
        "import sys; sys.path.insert(0, '.'); {}"
        "runpy.run_module('recon_ad.export', run_name='__main__')"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", code.format(first), *map(str, arguments[1:])],
            capture_output=True, text=True, check=False,
        )
        for first in ("import runpy; ", spoil)
    ]  # fmt: skip
    assert [run.returncode for run in done] == [0, 1], done[0].stderr
    assert "does not decide as the detector does: residual_map" in done[1].stdout
    assert not (tmp_path / "M.onnx").exists()


def test_difference_and_agreement_are_counted():
    found = parity.Differences(1.0, 1e-4)
    found.add(np.zeros(4), np.array([0, 0, 0.00005, -0.0001]))
    assert found.described() == {
        "max": 1e-4, "mean": pytest.approx(3.75e-5), "max_share_of_scale": 1e-4, "passed": True,
    }  # fmt: skip
    found.add(np.array([1000.0]), np.array([1000.09]))  # a larger value is its own scale
    assert found.described()["passed"]
    found.add(np.array([1.0]), np.array([1.0002]))
    assert not found.described()["passed"]
    found.add(np.zeros(1), np.array([np.nan]))
    assert not found.described()["passed"] and found.described()["max"] is None
    agreement = parity.Agreement(1.0, 1e-4)
    agreement.add(np.array([0.5, 0.99995, 1.5]), np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert agreement.described() == {
        "compared": 3, "differ": 1, "too_near_to_tell": 1, "passed": False,
    }  # fmt: skip


@pytest.mark.parametrize("runtime", deployed.RUNTIMES)
def test_wrong_files_end_in_a_sentence(exported, tmp_path, runtime):
    _, path = exported
    there = tmp_path / "M.onnx"
    with pytest.raises(UserError, match=r"no file .*M\.onnx"):
        deployed.load(there, runtime=runtime)
    there.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"no file .*M\.tail\.onnx"):
        deployed.load(there, runtime=runtime)
    tail = deployed.tail_path(there)
    tail.write_bytes(b"nothing that any runtime knows")
    with pytest.raises(UserError, match=r"M\.tail\.onnx is no model that"):
        deployed.load(there, runtime=runtime)
    tail.write_bytes(path.read_bytes())  # twice the core
    with pytest.raises(UserError, match="the tail was not written by"):
        deployed.load(there, runtime=runtime)
    other = make_detector("ssim_ae", **{"inference.sigma": 3.0})
    assert export.export(other, tmp_path / "other.onnx", pictures())["passed"]
    tail.write_bytes(deployed.tail_path(tmp_path / "other.onnx").read_bytes())
    with pytest.raises(UserError, match="of two exports"):
        deployed.load(there, runtime=runtime)


def test_metadata_with_holes_end_in_a_sentence(exported, tmp_path):
    _, path = exported
    tail = deployed.tail_path(tmp_path / "M.onnx")
    tail.write_bytes(deployed.tail_path(path).read_bytes())
    for change in ({"layout": None}, {"stride": "sixteen,16"}, {"image_threshold": "x"}):
        model = onnx.load(path)
        facts = {p.key: p.value for p in model.metadata_props}
        facts |= {f"{deployed.PREFIX}{name}": value for name, value in change.items()}
        onnx.helper.set_model_props(model, {k: v for k, v in facts.items() if v is not None})
        onnx.save(model, tmp_path / "M.onnx")
        with pytest.raises(UserError, match=r"M\.onnx: its metadata are damaged"):
            deployed.load(tmp_path / "M.onnx")
    with pytest.raises(UserError, match=r"give M\.onnx"):
        deployed.load(tail)


def test_wrong_images_end_in_a_sentence(exported):
    model = deployed.load(exported[1])
    with pytest.raises(UserError, match=r"takes \[height, width, 1\]"):
        model(np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(UserError, match="of type uint16, but this model takes uint8"):
        model(np.zeros((40, 40), np.uint16))


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"opset": 7}, "--opset 7: choose one from 18 to 23"),
        ({"output": "M.bin"}, r"give a name that ends in \.onnx"),
        ({"thresholds": UNCALIBRATED}, "no thresholds"),
    ],
)
def test_what_cannot_be_exported_is_told(change, sentence, tmp_path):
    detector = make_detector()
    if "thresholds" in change:
        detector = detector.with_thresholds(change.pop("thresholds"), {})
    output = tmp_path / change.pop("output", "M.onnx")
    with pytest.raises(UserError, match=sentence):
        export.export(detector, output, pictures(), **change)


def test_an_exported_model_judges_files_without_jax(exported, tmp_path):
    _, path = exported
    (tmp_path / "in").mkdir()
    for i, image in enumerate(pictures()):
        Image.fromarray(image[..., 0]).save(tmp_path / f"in/{i}.png")
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG and nothing else")
    block = (
        "import sys, runpy; sys.path.insert(0, '.'); "
        "sys.modules.update(dict.fromkeys(('jax', 'flax', 'orbax', 'grain', 'ml_collections', "
        "'optax', 'tensorflow_datasets'))); "
        "runpy.run_module('recon_ad.predict', run_name='__main__')"
    )
    given = ["--onnx", path, "--input", tmp_path / "in", "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", block, *map(str, given)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr  # for the broken file
    rows = (tmp_path / "out/predictions.csv").read_text().splitlines()
    assert len(rows) == 6 and "broken.png" in rows[-1]
    assert len(list((tmp_path / "out/overlays").iterdir())) == 4


SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
from recon_ad import deployed

detectors = [deployed.load(Path(sys.argv[1]), runtime=sys.argv[2]) for _ in range(2)]
while detectors:
    detectors.pop(0)
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("runtime", deployed.RUNTIMES)
def test_signals_are_heard_when_models_were_let_go_of(exported, runtime):
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, exported[1], runtime], capture_output=True, check=False
    )
    assert done.returncode == 75, done.stderr

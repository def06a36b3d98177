"""Exported models decide as their detectors do, or are rejected."""

import functools
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import onnx
import pytest
from helpers.commands import run_command
from helpers.detectors import SIDE, make_detector, pictures, plain_detector
from helpers.layouts import saved
from helpers.ssim_reference import definition

import recon_ad
from recon_ad.detector import onnx_detector, onnx_export, onnx_graphs, parity, runtimes
from recon_ad.detector.inference import UNCALIBRATED
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, ON_FEATURES
from recon_ad.ops.scores import SCORES
from recon_ad.ops.ssim import ssim_map
from recon_ad.runtime.waiting import disk_is_full


@pytest.fixture(scope="module")
def of_method(tmp_path_factory):
    """Return a function that builds a method's detector with random weights, model and parity."""
    folder = tmp_path_factory.mktemp("methods")

    @functools.cache
    def made(method):
        detector, path = make_detector(method), folder / f"{method}.onnx"
        return detector, path, onnx_export.export(detector, path, pictures())

    return made


@pytest.fixture
def image_files(tmp_path):
    """Write a folder with `pictures`."""
    for i, image in enumerate(pictures()):
        saved(tmp_path / f"images/{i}.png", image[..., 0])
    return tmp_path / "images"


def same(ours, theirs, *, decided=True):
    # float32 rounding in another order of operations, on maps of about 0.1 to 1.
    np.testing.assert_allclose(theirs.score, ours.score, rtol=1e-5)
    np.testing.assert_allclose(theirs.anomaly_map, ours.anomaly_map, rtol=2e-6, atol=1e-5)
    if ours.reconstruction is not None:
        np.testing.assert_allclose(theirs.reconstruction, ours.reconstruction, atol=1e-5)
    assert theirs.mask.dtype == bool
    if decided:  # features of noise are equally anomalous: parity alone shows which are too near
        assert theirs.label == ours.label
        assert np.count_nonzero(theirs.mask != ours.mask) <= 1e-3 * ours.mask.size


def same_in_both_runtimes(detector, path, images, *, decided=True):
    roi = np.zeros(images[0].shape[:2], bool)
    roi[5:30, 8:60] = True
    given = [(image, None) for image in images] + [(images[0], roi)]
    ours = [detector.predict(image, roi=roi) for image, roi in given]
    for runtime in runtimes.RUNTIMES:
        model = recon_ad.load(path, runtime=runtime)
        theirs = [model.predict(image, roi=roi) for image, roi in given]
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other, decided=decided)
        assert theirs[0].mask.any() and not theirs[-1].mask[~roi].any()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes_in_both_runtimes(method, of_method):
    detector, path, result = of_method(method)
    assert result["passed"], onnx_export.worst(result)
    tiles = ["1 tile at once", "2 tiles at once", "3 tiles at once"]
    assert list(result["groups"]) == [*tiles, "images"]
    assert json.loads(path.with_suffix(".parity.json").read_text()) == result
    label = result["groups"]["images"]["label"]
    assert (label["compared"], label["differ"], label["passed"]) == (4, 0, True)
    decided = method not in ON_FEATURES  # for which all noise is equal
    assert label["too_near_to_tell"] == 0 or not decided
    same_in_both_runtimes(detector, path, pictures(), decided=decided)


LAYERS = ("Conv", "ConvTranspose", "Gemm")


@pytest.mark.parametrize("method", METHODS)
def test_no_layer_is_computed_twice(method, of_method):
    _, path, _ = of_method(method)
    weights = [n.input[1] for n in onnx.load(path).graph.node if n.op_type in LAYERS]
    assert weights and len(set(weights)) == len(weights)


def test_a_detector_in_bfloat16_is_exported_in_float32(tmp_path):
    detector = make_detector("knn", **{"encoder.dtype": "bfloat16"})
    path = tmp_path / "M.onnx"
    result = onnx_export.export(detector, path, pictures())
    assert result["passed"] and result["share_of_scale"] == parity.SHARE_OF_BFLOAT16
    image, exact = pictures()[0], detector.in_float32()
    ours, wanted = detector.predict(image).score, exact.predict(image).score
    exported = recon_ad.load(path, runtime="onnxruntime").predict(image).score
    assert abs(exported - wanted) < 0.1 * abs(ours - wanted)
    assert exact.config.encoder.dtype == "bfloat16"  # as it was calibrated
    plain = make_detector("knn")
    assert plain.in_float32() is plain and parity.share_of(plain) == parity.SHARE_OF_FEATURES


def test_outputs_stand_in_a_fixed_order_and_metadata_name_what_is_needed(of_method):
    detector, path, _ = of_method("ssim_ae")
    core, tail = onnx.load(path), onnx.load(onnx_detector.tail_path(path))
    assert [o.name for o in core.graph.output] == ["residual_map", "reconstruction"]
    assert [o.name for o in tail.graph.output] == ["score", "label", "anomaly_map", "mask"]
    facts = {p.key.removeprefix("recon_ad_"): p.value for p in core.metadata_props}
    assert (facts["method"], facts["channel_order"]) == ("ssim_ae", "gray") and facts["licence"]
    assert float(facts["pixel_threshold"]) == np.float32(detector.thresholds.pixel)
    # Only once: map and reconstruction share the network (its encoder has 8 convolutions, …).
    convolutions = sum(node.op_type in ("Conv", "ConvTranspose") for node in core.graph.node)
    assert convolutions == 16
    assert "Loop" not in {node.op_type for m in (core, tail) for node in m.graph.node}
    # Otherwise OpenVINO would spend half of its time moving the inputs of convolutions.
    moved = {o for n in core.graph.node if n.op_type == "Transpose" for o in n.output}
    taken = [n.input[0] for n in core.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    assert len(moved.intersection(taken)) <= 2  # of 16, at the beginnings of encoder and decoder
    assert {opset.domain for m in (core, tail) for opset in m.opset_import} == {""}


def test_structural_similarity_beside_edges_is_that_of_the_definition():
    size = (30, 42)  # not a multiple of the groups of windows
    random = np.random.default_rng(0)
    images = np.float32(0.03) * random.random((2, 3, *size, 1), np.float32)
    images[..., 20:, :] += 0.9
    exact = definition(*images, border="reflect")

    def compared(x, y):
        options = {"data_range": 1.0, "window": 11, "kind": "gaussian", "border": "reflect"}
        return (ssim_map(x, y, **options),)

    shape = jax.ShapeDtypeStruct(onnx_graphs._shape("b", *size, 1), np.float32)
    model = onnx_graphs._traced(
        compared,
        [shape, shape],
        inputs=["x", "y"],
        outputs=["map"],
        options=onnx_graphs.Options(np.dtype(np.float32), None, onnx_export.OPSET, False),
    )
    for runtime in runtimes.RUNTIMES.values():
        feeds = dict(zip("xy", images, strict=True))
        (found,) = runtime(model.SerializeToString()).run(["map"], feeds)
        # As in tests/ops; second moments about the mean of an image would differ by 3e-5.
        np.testing.assert_allclose(found, exact, atol=2e-6)


def test_a_full_disk_of_temporary_files_is_told_as_one(of_method, monkeypatch):
    detector, _, _ = of_method("cae")

    def full(*args, **kwargs):
        raise RuntimeError("Protobuf serialization failed.")

    options = onnx_graphs.Options(np.dtype(np.uint8), None, 18, False)
    monkeypatch.setattr(runtimes.onnx_runtime(), "InferenceSession", full)
    with pytest.raises(RuntimeError, match="Protobuf"):
        onnx_graphs.core_model(detector, options)
    usage = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(onnx_graphs.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError) as caught:
        onnx_graphs.core_model(detector, options)
    assert disk_is_full(caught.value)


def test_an_export_switches_events_off_before_its_first_session(monkeypatch):
    package, asked = runtimes.onnx_runtime(), []
    monkeypatch.setattr(package, "disable_telemetry_events", lambda: asked.append("off"))
    monkeypatch.setattr(package, "InferenceSession", lambda *_, **__: asked.append("session"))
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    with pytest.raises(FileNotFoundError):  # the session writes no file
        onnx_graphs._simplified(model)
    assert asked == ["off", "session"]


# Score, sigma, channels, export options, shape of the input.
OPTIONS = (
    ("max", 0.0, 1, {}, ["b", SIDE, SIDE, 1]),
    ("max", 1.5, 3, {"batch": 3}, [3, SIDE, SIDE, 3]),
    ("mean", 1.5, 3, {"layout": "nchw"}, ["b", 3, SIDE, SIDE]),
    ("sum", 1.5, 3, {"dtype": "uint16"}, ["b", SIDE, SIDE, 3]),
    ("max+mean/2", 1.5, 1, {}, ["b", SIDE, SIDE, 1]),
    ("top_1%", 1.5, 3, {"dtype": "float32", "opset": 23}, ["b", SIDE, SIDE, 3]),
)
assert {score for score, *_ in OPTIONS} == set(SCORES)


@pytest.mark.parametrize("score, sigma, channels, options, taken", OPTIONS)
def test_options_change_the_input_and_not_the_result(
    score, sigma, channels, options, taken, tmp_path
):
    fields = {"inference.score": score, "inference.sigma": sigma}
    detector = make_detector("dae", channels=channels, **fields)
    kind = np.dtype(options.get("dtype", "uint8"))
    images = pictures(channels, kind)
    result = onnx_export.export(detector, tmp_path / "M.onnx", images, **options)
    assert result["passed"], onnx_export.worst(result)
    (entry,) = onnx.load(tmp_path / "M.onnx").graph.input
    shape = [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim]
    assert shape == taken
    assert entry.type.tensor_type.elem_type == onnx.helper.np_dtype_to_tensor_dtype(kind)
    same_in_both_runtimes(detector, tmp_path / "M.onnx", images)


@functools.cache
def of_one_tile():
    fields = {"data.resize": (SIDE, SIDE), "inference.border": 3, "inference.sigma": 1.0}
    return make_detector("dae", **fields)


@pytest.mark.parametrize("batch", [None, 3])
def test_where_an_image_is_one_tile_one_graph_does_everything(batch, tmp_path):
    detector, images = of_one_tile(), pictures(dtype=np.float32)
    assert onnx_export.export(detector, tmp_path / "M.onnx", images, batch=batch)["passed"]
    same(detector.predict(images[0]), onnx_detector.load(tmp_path / "M.onnx").predict(images[0]))
    graph = runtimes.OnnxRuntimeGraph(tmp_path / "M.onnx")
    assert tuple(graph.outputs) == onnx_detector.OUTPUTS["whole"]
    at_size = pictures(dtype=np.float32, sizes=[(SIDE, SIDE)] * 3)
    outputs = graph.run(graph.outputs, {"images": np.stack(at_size)})
    for image, *made in zip(at_size, *outputs, strict=True):
        ours = detector.predict(image)
        above = ours.anomaly_map > np.float32(detector.thresholds.pixel)  # without postprocessing
        theirs = SimpleNamespace(**dict(zip(graph.outputs, made, strict=True)))
        same(ours._replace(mask=above), theirs)
        np.testing.assert_allclose(theirs.anomaly_map, ours.anomaly_map, atol=1e-5)


@pytest.mark.parametrize("part", ["core", "tail"])
def test_a_model_that_decides_otherwise_is_refused(part, monkeypatch, tmp_path):
    right = getattr(onnx_graphs, part)

    def spoiled(*args, **kwargs):  # by 0.1 %
        first, *rest = right(*args, **kwargs)
        return first * 1.001, *rest

    monkeypatch.setattr(onnx_graphs, part, spoiled)
    output = tmp_path / "M.onnx"
    for path in (output, onnx_detector.tail_path(output), onnx_detector.part_path(output)):
        path.write_bytes(b"of an earlier export")
    result = onnx_export.export(plain_detector(), output, pictures())
    assert ("residual_map" if part == "core" else "score") in onnx_export.worst(result)
    assert [file.name for file in tmp_path.iterdir()] == ["M.parity.json"]  # no earlier one either
    found = json.loads((tmp_path / "M.parity.json").read_text())
    assert found["passed"] is result["passed"] is False


def test_the_command_ends_with_1_where_it_refuses(finished_run, image_files, monkeypatch, tmp_path):
    output, right = tmp_path / "M.onnx", onnx_graphs.core
    flags = ("--detector", finished_run() / "detector", "--data", image_files, "--output", output)
    done = run_command("export", *flags)
    assert done.returncode == 0, done.stderr
    assert f"{output}: matches the detector on 4 images" in done.stdout and output.is_file()
    monkeypatch.setattr(onnx_graphs, "core", lambda *a, **k: [r * 1.01 for r in right(*a, **k)])
    done = run_command("export", *flags)
    assert done.returncode == 1
    assert "does not match the detector: residual_map" in done.stdout
    assert not output.exists()


def test_difference_and_agreement_are_counted():
    found = parity.Differences(1.0, 1e-4)
    found.add(np.zeros(4), np.array([0, 0, 0.00005, -0.0001]))
    described = {"max": 1e-4, "mean": pytest.approx(3.75e-5), "max_share_of_scale": 1e-4}
    assert found.described() == described | {"passed": True}
    for ours, theirs, passed in (
        (1000, 1000.09, True),  # a larger value is its own scale
        (1, 1.0002, False),
        (0, np.nan, False),
    ):
        found.add(np.float64([ours]), np.float64([theirs]))
        assert found.described()["passed"] is passed
    assert found.described()["max"] is None
    agreement = parity.Agreement(1.0, 1e-4)
    agreement.add(np.array([0.5, 0.99995, 1.5]), np.array([0, 0, 1]), np.array([0, 1, 0]))
    counted = {"compared": 3, "differ": 1, "too_near_to_tell": 1, "passed": False}
    assert agreement.described() == counted


@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
def test_wrong_files_end_in_a_sentence(of_method, tmp_path, runtime):
    there, other = tmp_path / "M.onnx", of_method("ssim_ae")[1]
    tail = onnx_detector.tail_path(there)
    for change, sentence in (
        (lambda: None, r"M\.onnx not found"),
        (lambda: shutil.copy(of_method("cae")[1], there), r"M\.tail\.onnx not found"),
        (lambda: tail.write_bytes(b"no runtime knows it"), r"M\.tail\.onnx is not a model that"),
        (lambda: shutil.copy(there, tail), "the tail was not written by"),
        (lambda: shutil.copy(onnx_detector.tail_path(other), tail), "of two exports"),
    ):
        change()
        with pytest.raises(UserError, match=sentence):
            onnx_detector.load(there, runtime=runtime)


def test_metadata_with_holes_end_in_a_sentence(of_method, tmp_path):
    path = of_method("cae")[1]
    tail = onnx_detector.tail_path(tmp_path / "M.onnx")
    shutil.copy(onnx_detector.tail_path(path), tail)
    for change in (
        {"layout": None}, {"stride": "sixteen,16"}, {"image_threshold": "x"}, {"tile": "0,0"},
        {"pixel_threshold": "nan"}, {"resize": "0,5"}, {"stride": "99,99"}, {"channels": "9" * 30},
    ):  # fmt: skip
        model = onnx.load(path)
        facts = {p.key: p.value for p in model.metadata_props}
        facts |= {f"{runtimes.PREFIX}{name}": value for name, value in change.items()}
        onnx.helper.set_model_props(model, {k: v for k, v in facts.items() if v is not None})
        onnx.save(model, tmp_path / "M.onnx")
        with pytest.raises(UserError, match=r"M\.onnx: its metadata are damaged"):
            onnx_detector.load(tmp_path / "M.onnx")
    with pytest.raises(UserError, match=r"give M\.onnx"):
        onnx_detector.load(tail)


def test_what_cannot_be_exported_or_judged_is_refused(of_method, tmp_path):
    detector, model = plain_detector(), onnx_detector.load(of_method("cae")[1])
    uncalibrated = detector.with_thresholds(UNCALIBRATED, {})
    for given, output, opset, says in (
        (detector, "M.onnx", 7, "--opset 7: choose one from 18 to 23"),
        (detector, "M.bin", 18, r"give a name that ends in \.onnx"),
        (uncalibrated, "M.onnx", 18, "no thresholds"),
    ):
        with pytest.raises(UserError, match=says):
            onnx_export.export(given, tmp_path / output, pictures(), opset=opset)
    with pytest.raises(UserError, match=r"takes \[height, width, 1\]"):
        model(np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(UserError, match="of type uint16, but this model takes uint8"):
        model(np.zeros((40, 40), np.uint16))


def test_an_exported_model_judges_files_without_jax(of_method, image_files, tmp_path):
    (image_files / "broken.png").write_bytes(b"\x89PNG and nothing else")
    block = (
        "import sys, runpy; sys.path.insert(0, '.'); "
        "sys.modules.update(dict.fromkeys(('jax', 'flax', 'orbax', 'grain', 'ml_collections', "
        "'optax', 'tensorflow_datasets'))); "
        "runpy.run_module('recon_ad.predict', run_name='__main__')"
    )
    given = ["--onnx", of_method("cae")[1], "--input", image_files, "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", block, *map(str, given)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr  # because of the broken file
    rows = (tmp_path / "out/predictions.csv").read_text().splitlines()
    assert len(rows) == 6 and "broken.png" in rows[-1]
    assert len(list((tmp_path / "out/overlays").iterdir())) == 4


SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
from recon_ad.detector import onnx_detector, runtimes

names = [*runtimes.RUNTIMES, *runtimes.RUNTIMES]
detectors = [onnx_detector.load(Path(sys.argv[1]), runtime=name) for name in names]
while detectors:
    detectors.pop(0)
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signals_are_heard_when_models_were_let_go_of(of_method):
    command = [sys.executable, "-c", SIGNALLED, of_method("cae")[1]]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 75, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cae", "ssim_ae"])
def test_networks_of_the_papers_width_pass(method, tmp_path):
    detector = make_detector(method, **{"method.width": 1.0, "method.n_z": 100})
    result = onnx_export.export(detector, tmp_path / "M.onnx", pictures())
    assert result["passed"], onnx_export.worst(result)

"""Exported models of others, with outputs and metadata that no detector has."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from onnx import helper

from recon_ad.detector import onnx_detector
from recon_ad.detector.onnx_detector import OnnxDetector
from recon_ad.detector.runtimes import RUNTIMES, Graph, opened
from recon_ad.errors import UserError

FACTS = {
    "format": "2", "kind": "core", "pair": "p", "layout": "NHWC", "regions_of_interest": "False",
    "channels": "1", "tile": "8,8", "stride": "8,8", "tile_weights": "hann", "resize": "0,0",
    "batch_size": "2", "opening": "0", "min_area": "0", "border": "0", "border_weight": "1.0",
    "input_range": "0.0,0.0", "image_threshold": "0.5", "pixel_threshold": "0.5",
    "dtype": "uint8", "part_sha256": "",
}  # fmt: skip
IMAGE = np.zeros((16, 16, 1), np.uint8)


class Made(Graph):
    """A graph with given values for some outputs and sensible ones for the others."""

    def __init__(self, kind, outputs, told, **facts):
        self.facts = {**FACTS, "kind": kind, **facts}
        self.outputs, self.told = [name for name in outputs if told.get(name) is not ...], told

        self.any_batch, self.batches = True, []

    def run(self, wanted, feeds):
        (first, *_) = feeds.values()
        self.batches.append(len(first))
        right = {
            "residual_map": np.zeros(first.shape[:3], np.float32),
            "score": np.float32(0), "label": np.False_,
            "anomaly_map": np.zeros(first.shape, np.float32), "mask": np.zeros(first.shape, bool),
        }  # fmt: skip
        if isinstance(self.told.get("run"), Exception):
            raise self.told["run"]
        return [np.asarray(self.told.get(name, right[name])) for name in wanted]


def made(told=None, **facts):
    told = told or {}
    core = Made("core", ["residual_map"], told, **facts)
    tail = Made("tail", onnx_detector.OUTPUTS["tail"], told, **facts)
    return OnnxDetector(core, tail, name="m.onnx")


def in_process(code, home):
    """Run code in a process of its own outside CI, where runtimes would send events."""
    env = {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=env)


@pytest.mark.skipif(find_spec("openvino") is None, reason="an extra")
def test_openvino_leaves_a_commands_log_as_it_is(tmp_path):
    # OpenVINO changes the log when it is first imported.
    code = (
        "import logging; from absl import logging as absl_logging\n"
        "absl_logging.use_absl_handler()\n"
        "from recon_ad.detector import runtimes\n"
        "logging.getLogger('recon_ad').setLevel(logging.INFO)\n"
        "absl_logging.get_absl_handler().setFormatter(logging.Formatter('%(message)s'))\n"
        "runtimes._openvino()\n"
        "logging.getLogger('recon_ad').info('watching a folder')"
    )
    assert in_process(code, tmp_path).stderr.splitlines()[-1:] == ["watching a folder"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_prints_nothing_of_a_damaged_model(runtime, tmp_path, capfd):
    if find_spec(runtime) is None:
        pytest.skip("an extra")
    x, y = (helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "graph", [x], [y])
    content = helper.make_model(graph, ir_version=8).SerializeToString()
    file = tmp_path / "m.onnx"
    file.write_bytes(content.replace(b"Abs", b"\xffbs"))  # no UTF-8, also in the error's text
    capfd.readouterr()
    with pytest.raises(UserError, match="is not a model that"):
        opened(file, runtime=runtime)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_runtime_sends_its_maker_who_uses_it(runtime, tmp_path):
    if find_spec(runtime) is None:
        pytest.skip("an extra")
    code = f"""
from onnx import helper
x, y = (helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "graph", [x], [y])
model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
from recon_ad.detector.runtimes import RUNTIMES
RUNTIMES[{runtime!r}](model.SerializeToString())
"""
    in_process(code, tmp_path)
    # Both would keep an identifier in the home directory.
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize(("any_batch", "batches"), [(True, [2, 2, 2, 2, 1]), (False, [2] * 5)])
def test_a_graph_computes_no_tile_for_nothing_unless_its_batch_is_fixed(any_batch, batches):
    core, tail = Made("core", ["residual_map"], {}), Made("tail", onnx_detector.OUTPUTS["tail"], {})
    core.any_batch = any_batch
    OnnxDetector(core, tail, name="m.onnx")(np.zeros((24, 24, 1), np.uint8))
    assert core.batches == batches


def test_a_right_pair_decides():
    prediction = made()(IMAGE)
    assert prediction.score == 0 and prediction.mask.shape == (16, 16)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"residual_map": np.zeros((1, 1, 1), np.float32)}, "its residual_map is float32"),
        ({"residual_map": np.zeros((2, 8, 8))}, "its residual_map is float64"),
        ({"score": np.zeros(0, np.float32)}, r"its score is float32 \[0\]"),
        ({"score": np.int64(3)}, "its score is int64"),
        ({"label": np.float32(1)}, "its label is float32"),
        ({"mask": np.zeros((1, 1), bool)}, "its mask is bool"),
        ({"anomaly_map": np.zeros((64, 65), np.float32)}, "its anomaly_map is float32"),
        ({"run": RuntimeError("no\nmemory")}, r"does not run \(no memory\)"),
    ],
)
def test_outputs_that_are_none_of_a_detectors_are_named(told, says):
    with pytest.raises(UserError, match=f"m.onnx: .*{says}"):
        made(told)(IMAGE)


# Numbers and names that Python's own functions accept, and the C++ program does not.
ODD_WORDS = (
    {"median_score": "1_0"}, {"median_score": " 1 "}, {"median_score": "+1"},
    {"median_score": "٣"}, {"median_score": "1e-400"}, {"image_threshold": "1_0"},
    {"pixel_threshold": "1 "}, {"channels": "1_0"}, {"channels": " 1"}, {"channels": "+1"},
    {"opening": "٣"}, {"tile": "64, 64"}, {"stride": "6_4,64"}, {"min_area": "0x1"},
    {"border_weight": "1_0"}, {"input_range": "0, 255"}, {"category_medians": ";"},
    {"category_medians": "a=1;"}, {"category_medians": ";a=1"}, {"category_medians": "a= 1"},
    {"category_medians": "a=1;a=2"}, {"category_medians": "a b=1"},
    {"category_medians": "%61=1"}, {"category_medians": "%ff=1"}, {"categories": ";"},
    {"categories": "=1,2"}, {"categories": "a=1,2;"}, {"categories": "a=1,2,3"},
    {"categories": "a=1_0,2"}, {"categories": "a=1,2;a=3,4"}, {"categories": "a"},
)  # fmt: skip


@pytest.mark.parametrize(
    "facts",
    [
        {"tile": "0,0"}, {"stride": "9,9"}, {"batch_size": "-1"},
        {"batch_size": "1.5"}, {"image_threshold": "nan"}, {"pixel_threshold": "1e999"},
        {"regions_of_interest": "Fa"},
        {"tile_weights": "x"}, {"dtype": "object"}, {"layout": "XXXX"}, {"input_range": "9,1"},
        {"channels": "9" * 5000}, {"resize": "0,5"}, {"border_weight": "inf"},
        {"median_score": "nan"}, {"median_score": "1e39"}, {"median_score": ""},
        {"category_medians": "a=inf"}, {"category_medians": "a"}, {"category_medians": "=1"},
        *ODD_WORDS,
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_are_none_of_a_detectors_are_refused(facts):
    with pytest.raises(UserError, match="its metadata are damaged") as caught:
        made(**facts)
    assert next(iter(facts)).split("_")[0] in str(caught.value) and len(str(caught.value)) < 200


def test_metadata_that_are_missing_are_named():
    for name in ("tile", "dtype", "regions_of_interest", "border_weight", "image_threshold"):
        core = Made("core", ["residual_map"], {})
        tail = Made("tail", onnx_detector.OUTPUTS["tail"], {})
        del core.facts[name]
        with pytest.raises(UserError, match=f"damaged .{name} is missing"):
            OnnxDetector(core, tail, name="m.onnx")


@pytest.mark.parametrize("name", ["residual_map", "mask"])
def test_a_graph_without_an_output_is_refused(name):
    with pytest.raises(UserError, match=f"no output {name}"):
        made({name: ...})


def test_a_model_with_a_loop_is_not_even_opened(tmp_path):
    for name in ("m.onnx", "m.tail.onnx"):
        (tmp_path / name).write_bytes(b"\x0a\x01x\x22\x04Loop")
    with pytest.raises(UserError, match="holds a loop"):
        onnx_detector.load(tmp_path / "m.onnx")

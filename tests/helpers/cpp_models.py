"""A tiny model for the C++ program, whose parts tests replace by what no detector has."""

from pathlib import Path

import pytest

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

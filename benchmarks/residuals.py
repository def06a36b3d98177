"""Compare the time of the SSIM residual with its network's, in ONNX Runtime and in OpenVINO.

    python -m benchmarks.residuals

The core of `ssim_ae` is exported twice: with today's form of SSIM (products, `ops.windows`), and
with the earlier form (sums of shifted images), which XLA still computes on accelerators. The
network alone, each residual alone (from tiles and reconstructions to the map) and each whole core
are timed on one and on nine 8-bit tiles of 128x128. Weights are random. Both forms are first
checked to give the same map. All take turns in one process. On a busy machine the shortest times
are more reliable than the medians, which then depend on other processes. The result is written to
results/residuals.json.
"""

import contextlib
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import jax
import numpy as np
from onnx import ModelProto
from onnx.utils import Extractor

from benchmarks.harness import record
from benchmarks.harness.subjects import SCALES, Scale, jittered, subject
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.onnx_export import OPSET
from recon_ad.detector.onnx_graphs import Options, core_model
from recon_ad.detector.runtimes import RUNTIMES, Graph
from recon_ad.ops import ssim

METHOD = "ssim_ae"
TURNS = {1: 200, 9: 50}  # turns by the number of tiles per call
PAUSE = 0.01  # s, until the threads of the previous contender are asleep
CLOSE = 1e-5  # largest difference of maps that count as equal
IMAGES, RECONSTRUCTION, MAP = "images", "reconstruction", "residual_map"
Figures = dict[str, float]  # median and best
PACKAGES = ("onnx", "onnxruntime", "openvino", "jax2onnx")


@contextlib.contextmanager
def shifts() -> Iterator[None]:
    """Make exports write SSIM as sums of shifted images."""
    with mock.patch.object(ssim, "_by_products", ssim._by_shifts):
        yield


# Today's form of the export, and the one that it is compared with.
FORMS = {"products": contextlib.nullcontext, "shifts": shifts}


def build_detector(scale: Scale) -> Detector:
    """Build a detector with random weights."""
    made = subject(METHOD, scale)
    variables = made.method.finish({}, made.state._replace(params=jittered(made.state.params)), [])
    detector = Detector(made.config, channels=1, variables=jax.device_get(variables))
    return detector.with_thresholds(Thresholds(1.0, 1.0), {"training": {}})


def graphs(detector: Detector) -> dict[str, tuple[ModelProto, str]]:
    """Return the graphs to time, each with the output to compute."""
    options = Options(np.dtype(np.uint8), None, OPSET, nchw=False)
    found = {}
    for form, around in FORMS.items():
        with around():
            core = core_model(detector, options)
        cut = Extractor(core).extract_model
        found[f"core, {form}"] = core, MAP
        found[f"residual, {form}"] = cut([IMAGES, RECONSTRUCTION], [MAP]), MAP
        found["network"] = cut([IMAGES], [RECONSTRUCTION]), RECONSTRUCTION
    return found


def in_turns(runs: Mapping[str, Callable[[], object]], *, turns: int) -> dict[str, Figures]:
    """Return milliseconds per call: the second of two calls in a row, so that caches are warm."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            time.sleep(PAUSE)
            run()
            begin = time.perf_counter()
            run()
            taken[name].append(1e3 * (time.perf_counter() - begin))
    return {name: {"median": statistics.median(ms), "best": min(ms)} for name, ms in taken.items()}


def row(models: Mapping[str, tuple[Graph, str]], given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Time all models on the given images.

    Raises:
      AssertionError: If the maps differ by more than `CLOSE`.
    """
    count = len(given[IMAGES])

    def run(graph: Graph, wanted: str) -> np.ndarray:
        alone = wanted == MAP and RECONSTRUCTION not in graph.outputs
        (found,) = graph.run([wanted], given if alone else {IMAGES: given[IMAGES]})
        return found

    maps = [run(graph, wanted) for graph, wanted in models.values() if wanted == MAP]
    apart = max(float(np.abs(maps[0] - other).max()) for other in maps[1:])
    assert apart < CLOSE, apart
    runs = {name: functools.partial(run, *model) for name, model in models.items()}
    per_tile = {
        name: {key: ms / count for key, ms in found.items()}
        for name, found in in_turns(runs, turns=TURNS[count]).items()
    }
    network = per_tile["network"]
    share = {
        form: {key: per_tile[f"residual, {form}"][key] / ms for key, ms in network.items()}
        for form in FORMS
    }
    return {
        "tiles": count,
        "turns": TURNS[count],
        "ms_per_tile": per_tile,
        "residual_of_network": share,
        "largest_difference_of_maps": apart,
    }


def measure(scale: Scale) -> list[dict[str, Any]]:
    """Return a row for each runtime and number of tiles."""
    detector = build_detector(scale)
    models = graphs(detector)
    random, size = np.random.default_rng(0), detector.plan.geometry.tile
    images = random.integers(0, 256, (max(TURNS), *size, 1), dtype=np.uint8)
    rows = []
    for runtime, opened in RUNTIMES.items():
        ready = {name: (opened(m.SerializeToString()), out) for name, (m, out) in models.items()}
        (reconstruction,) = ready["network"][0].run([RECONSTRUCTION], {IMAGES: images})
        for count in TURNS:
            given = {IMAGES: images[:count], RECONSTRUCTION: reconstruction[:count]}
            rows.append({"method": METHOD, "runtime": runtime, **row(ready, given)})
            print(runtime, count, rows[-1]["ms_per_tile"], flush=True)
    return rows


def main() -> None:
    """Measure and write the result."""
    load_before = os.getloadavg()[0]
    content = {
        "command": "python -m benchmarks.residuals",
        "unit": "ms per tile: median, best; of the network: that share",
        "rows": measure(SCALES["cpu"]),
        "load_before": load_before,
    }
    record.write("residuals", content, *PACKAGES)


if __name__ == "__main__":
    main()

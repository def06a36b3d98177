"""The benchmarks' own machinery: turns, tables, failures, profiles, imports."""

import itertools
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import ROOT

from benchmarks import all as benchmarks
from benchmarks import phases, residuals, step_profile, summary
from benchmarks.harness import record, turns
from benchmarks.harness.book import OURS, Book
from benchmarks.harness.log_times import log_times
from benchmarks.harness.subjects import SCALES
from benchmarks.harness.turns import Timing
from recon_ad.detector.runtimes import OnnxRuntimeGraph
from recon_ad.errors import UserError

BENCH = ROOT / ".venv-bench" / "bin" / "python"
# A borrowed machine with a GPU may lack any of these.
OFTEN_ABSENT = (
    *("grain", "tensorflow_datasets", "tensorflow", "dm_pix", "orbax", "tensorboardX", "tqdm"),
    *("cv2", "PIL", "scipy", "matplotlib", "kornia", "torchmetrics", "pytorch_msssim"),
    *("jax2onnx", "onnxruntime", "timm"),
)
# Runs a module as on a machine without these packages.
WITHOUT = """
import importlib.util, runpy, sys
absent, name = set(sys.argv[1].split(",")), sys.argv[2]
find = importlib.util.find_spec
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
importlib.util.find_spec = lambda name, *_: None if name in absent else find(name)
sys.argv = sys.argv[2:]
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


# PyTorch's network differs from ours: its hard mining is wrong.
WRONG = """
import sys
from pathlib import Path
from benchmarks.peers import torch_decoder
from benchmarks.frameworks import training
from benchmarks.harness.book import Book
from benchmarks.harness.subjects import SCALES
training.MODES = {"PyTorch eager": None}
made = training.pair("vit_recon", SCALES["small"])
for factor in (torch_decoder.FACTOR, 0.5):
    torch_decoder.FACTOR = factor
    book = Book(Path(sys.argv[1]), {}, seconds=1e9)
    training.compared(book, "vit_recon", made)
    print(len(book.failed))
"""


def run_code(code, *words, python=sys.executable, path=ROOT):
    """Run code in a separate process."""
    command = [str(python), "-c", code, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def without(packages, module, *words, **settings):
    """Run a module without those packages."""
    return run_code(WITHOUT, ",".join(packages), module, *words, **settings)


LOGGED = """
import os, sys
lines = "detector: here", "exporting model.onnx", "detector: again", "written to there"
print(*lines, os.environ["JAX_COMPILATION_CACHE_DIR"], sep="\\n", file=sys.stderr)
sys.exit(len(sys.argv) > 1)
"""


def test_phases_end_with_the_first_line_of_their_kind_in_the_log(monkeypatch, tmp_path):
    def timing(timed, *given, **lines):
        """Call with a clock that goes on by a second each time it is looked at."""
        clock = SimpleNamespace(perf_counter=itertools.count().__next__)
        monkeypatch.setattr("benchmarks.harness.log_times.time", clock)
        return timed(*given, tmp_path / "cache", **lines)

    (tmp_path / "logged.py").write_text(LOGGED)
    monkeypatch.chdir(tmp_path)
    parts = {"training and calibration": 1, "judging and report": 1, "export": 1}
    assert timing(phases.timed, ["logged"]) == {**parts, "all": 4}
    lines = {"cache": f"{tmp_path}/cache", "absent": "ring", "detector": "detector: "}
    assert timing(log_times, ["logged"], lines=lines) == ({"detector": 1, "cache": 2}, 3)
    with pytest.raises(RuntimeError, match=f"detector: again\nwritten to there\n{tmp_path}"):
        timing(log_times, ["logged", "--fail"], lines={})


@pytest.fixture
def bench_python():
    if not BENCH.is_file():
        pytest.skip(f"no PyTorch beside JAX: {BENCH} is made by make bench")
    return BENCH


class Clock:
    """A clock that advances only when a contender works, by its given cost."""

    def __init__(self, monkeypatch, **costs):
        self.now, self.calls, self.costs = 0.0, [], costs
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def runner(self, name):
        def run(steps):
            self.calls.append((name, steps))
            self.now += steps * self.costs[name]

        return run


def test_contenders_take_turns_and_short_steps_are_made_in_bursts(monkeypatch):
    clock = Clock(monkeypatch, fast=0.01, slow=0.5)
    runners = {name: clock.runner(name) for name in ("fast", "slow")}
    timings = turns.in_turns(runners, seconds=6.0, burst=0.1)
    assert timings["fast"].median == pytest.approx(0.01)
    assert timings["slow"].median == pytest.approx(0.5)
    assert (timings["fast"].steps, timings["slow"].steps) == (10, 1)
    # A turn of both takes 0.6 s; the last one begins before 6 s are over.
    assert timings["fast"].turns == timings["slow"].turns in (10, 11)
    # Before the turns, each is called three times.
    order = [name for name, _ in clock.calls[6:]]
    assert order[:4] == ["slow", "fast", "fast", "slow"]


def test_a_slow_machine_still_gets_the_fewest_turns(monkeypatch):
    clock = Clock(monkeypatch, one=100.0)
    assert turns.in_turns({"one": clock.runner("one")}, seconds=1.0)["one"].turns == turns.LEAST


def test_the_book_names_the_fastest_other_what_failed_and_what_had_no_time(tmp_path):
    book = Book(tmp_path / "out.json", {"command": "it"}, seconds=1e9)
    times = {
        name: Timing(seconds, 0.9 * seconds, 1.2 * seconds, 7, 3)
        for name, seconds in ((OURS, 0.1), ("slow", 0.4), ("fast", 0.2))
    }
    book.add("training", times, precision="float32", per_step=10, apart={"fast": 1e-6})
    with book.attempt("something"):
        raise ValueError("no\nmore")
    book._seconds = -1
    assert not book.in_time("inference")
    book.write()

    content = json.loads((tmp_path / "out.json").read_text())
    (row,) = content["rows"]
    assert row["fastest_other"] == "fast"
    assert row["times_as_fast"] == pytest.approx(2)
    # For patches per second the quartiles change places.
    figure = row["figures"][OURS]
    found = [figure[key] for key in ("low", "median", "high")]
    assert found == pytest.approx([10 / 0.12, 10 / 0.1, 10 / 0.09])
    assert content["failed"] == {"something": "ValueError: no"}
    assert "no time left" in content["left_out"]["inference"]
    assert content["hardware"] and content["measured"] and content["versions"]["jax"]
    assert list(record.installed("numpy", "no-such-package")) == ["numpy"]
    for told in ("| training |", "2.00", "left out: inference", "FAILED: something: ValueError"):
        assert told in book.table()


@pytest.fixture
def run_some(tmp_path, monkeypatch, capfd):
    """Return a function that runs made-up modules: one fails, one hangs, one needs images."""
    folder = tmp_path / "fake"
    folder.mkdir()
    for name, text in {
        "works": "import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('done')\n",
        "breaks": "raise SystemExit(3)",
        "hangs": "import time\ntime.sleep(600)",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    made = {
        "first": benchmarks.Benchmark(1, [["breaks"], ["works", f"{tmp_path}/never"]]),
        "second": benchmarks.Benchmark(1, [["works", f"{tmp_path}/second"]]),
        "third": benchmarks.Benchmark(0.01, [["hangs"]]),
        "fourth": benchmarks.Benchmark(1, [["works", "{grid}/fourth"]]),
    }
    monkeypatch.setattr(benchmarks, "BENCHMARKS", made)
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")

    def run_them(*names, data=None):
        monkeypatch.setattr(benchmarks, "_DATA", SimpleNamespace(value=data), raising=False)
        return benchmarks.main(list(names)), capfd.readouterr().out

    return run_them


def test_one_that_fails_stops_no_other_and_is_named(tmp_path, run_some):
    status, out = run_some()
    assert status == 1
    assert "FAILED: first: breaks ended with exit status 3" in out
    assert "FAILED: third: stopped after" in out
    assert "left out: fourth needs grid in --data" in out
    assert (tmp_path / "second").read_text() == "done" and not (tmp_path / "never").exists()


def test_named_ones_run_alone_with_the_data_that_they_need(tmp_path, run_some):
    grid = tmp_path / "sets" / "grid"
    (grid / "train" / "good").mkdir(parents=True)
    status, out = run_some("fourth", data=f"{tmp_path}/sets")
    assert status == 0 and "first" not in out
    assert (grid / "fourth").read_text() == "done"
    with pytest.raises(UserError, match="no benchmark 'fifth'"):
        run_some("fifth")


def test_every_benchmark_is_a_module_and_every_result_has_rows():
    for benchmark in benchmarks.BENCHMARKS.values():
        assert benchmark.minutes > 0
        for module, *_ in benchmark.commands:
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    results = ROOT / "results"
    present = [name for name in summary.TABLES if (results / f"{name}.json").is_file()]
    for name in present:
        content = json.loads((results / f"{name}.json").read_text())
        assert list(summary.TABLES[name](content)), name
    assert {"frameworks_cpu", "inference"} <= set(present)


def test_the_table_has_ours_others_and_their_ratio(tmp_path):
    rows = [{"maps": "81 maps", "seconds": 2.0, "seconds_anomalib": 3.0, "times_as_fast": 1.5}]
    content = {"rows": rows, "hardware": "two cores", "measured": "2026-01-02"}
    (tmp_path / "aupro.json").write_text(json.dumps(content))
    line = summary.table(tmp_path).splitlines()[-1]
    for told in ("2.00 s", "anomalib 3.00", "| 1.50 |", "two cores", "2026-01-02"):
        assert told in line


@pytest.mark.parametrize(
    "op_name, expected",
    [
        ("jit(step)/jvp(CAE)/decoder/deconv4/while/body/conv", "decoder/deconv4, forward"),
        ("jit(step)/transpose(jvp(CAE))/CAE.encode/encoder/conv1/mul", "encoder/conv1, gradient"),
        ("jit(step)/jvp(D)/block11/attn/qkv/dot_general", "block*/attn/qkv, forward"),
        ("jit(step)/transpose(jvp())/mul", "loss, gradient"),
        ("jit(step)/sqrt", "optimiser"),
        ("", "other"),
    ],
)
def test_operations_are_named_by_layer_and_direction(op_name, expected):
    known = {"decoder", "deconv4", "encoder", "conv1", "block11", "attn", "qkv"}
    assert step_profile.part_of(op_name, known) == expected


def test_compiled_pytorch_counts_among_others():
    times = {"jax": 11.0, "openvino": 12.0, "pytorch": 9.0, "pytorch_compiled": 8.0}
    rows = [
        {"method": "cae", "images": 1, "contender": name, "ms_per_image": ms}
        for name, ms in times.items()
    ]
    (row,) = summary.TABLES["inference"]({"rows": rows})
    assert row.ours == "jax 11.0, openvino 12.0 ms" and row.ratio == 8 / 11
    assert row.others == "PyTorch eager 9.0, PyTorch compiled 8.0"


def test_instructions_are_those_of_the_compiled_program():
    def looped(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(y @ x), x)

    found = step_profile.instructions(jax.jit(looped).lower(jnp.ones((8, 8))).compile().as_text())
    codes = {code for code, _ in found.values()}
    assert "while" in codes and "parameter" in codes
    assert any("dot_general" in op_name for _, op_name in found.values())


def test_a_training_steps_costs_add_up_and_name_its_layers():
    found = step_profile.costs("cae", SCALES["small"], steps=2)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert [cost["what"] for cost in found["largest"]] == list(found["shares"])[:3]
    assert found["ms_of_operations_per_step"] > 0
    told = " ".join(found["shares"])
    for part in ("encoder/lin1, gradient", "decoder/deconv1, forward", "optimiser"):
        assert part in told


def test_network_and_residual_are_timed_apart_with_ssim_in_both_forms(monkeypatch):
    monkeypatch.setattr(residuals, "TURNS", {2: 1})
    models = residuals.graphs(residuals.build_detector(SCALES["small"]))
    nodes = {name: len(model.graph.node) for name, (model, _) in models.items()}
    assert nodes["residual, shifts"] > 3 * nodes["residual, products"]
    # The residual begins with the reconstruction and has no part of the network.
    kinds = {n: {node.op_type for node in model.graph.node} for n, (model, _) in models.items()}
    assert "Conv" in kinds["network"] and not {"Conv"} & kinds["residual, products"]
    parts = nodes["network"] + nodes["residual, products"]
    assert nodes["network"] < nodes["core, products"] <= parts
    ready = {n: (OnnxRuntimeGraph(m.SerializeToString()), out) for n, (m, out) in models.items()}
    given = {"images": np.zeros((2, 32, 32, 1), np.uint8)}
    (given["reconstruction"],) = ready["network"][0].run(["reconstruction"], given)
    row = residuals.row(ready, given)
    assert set(row["ms_per_tile"]) == set(models) and row["tiles"] == 2
    for form, share in row["residual_of_network"].items():
        ms, network = (row["ms_per_tile"][n]["best"] for n in (f"residual, {form}", "network"))
        assert share["best"] == pytest.approx(ms / network)
    given["reconstruction"] = given["reconstruction"] + np.float32(0.1)
    with pytest.raises(AssertionError):  # the whole core contains the network's own
        residuals.row(ready, given)


def test_networks_and_losses_import_without_what_a_gpu_machine_may_lack(tmp_path):
    modules = ("config", "methods", "models.vit", "ops.ssim", "pretrained", "runtime.provenance")
    imports = "".join(f"import recon_ad.{name}\n" for name in modules)
    (tmp_path / "imports.py").write_text(imports)
    done = without(OFTEN_ABSENT, "imports", path=f"{tmp_path}:{ROOT}")
    assert done.returncode == 0, done.stderr


def test_frameworks_says_what_it_needs():
    done = without(["torch", "ml_collections"], "benchmarks.frameworks")
    (told,) = done.stderr.splitlines()
    assert done.returncode == 2 and told.startswith("error: not installed: ml_collections, torch;")


@pytest.mark.slow
def test_frameworks_on_a_machine_with_little_more_than_jax_and_pytorch(bench_python, tmp_path):
    output = tmp_path / "out.json"
    words = ["--scale=small", "--minutes=60", f"--output={output}"]
    done = without(OFTEN_ABSENT, "benchmarks.frameworks", *words, python=bench_python)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads(output.read_text())
    assert not content["failed"]
    measured = {row["what"]: row for row in content["rows"]}
    for name in ("cae", "ssim_ae", "vit_recon"):
        row = measured[f"training of `{name}`"]
        assert set(row["figures"]) == {OURS, "PyTorch eager", "PyTorch compiled"}
        assert set(row["apart"]) == {"PyTorch eager", "PyTorch compiled"}
        assert f"inference of `{name}`" in measured
    assert measured["SSIM gradient of 2x32x32x1"]["times_floor"] > 0
    assert any(name.startswith("share of the SSIM") for name in content)
    assert max(content["rounding in float32"].values()) < 1e-5
    assert content["left_out"].keys() >= {
        "SSIM by kornia", "inference by ONNX Runtime", "inference of vit_recon by PyTorch"
    }  # fmt: skip


@pytest.mark.slow
def test_a_peer_that_trains_otherwise_is_refused(bench_python, tmp_path):
    done = run_code(WRONG, tmp_path / "out.json", python=bench_python)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["0", "1"]
    (failure,) = json.loads((tmp_path / "out.json").read_text())["failed"].values()
    assert failure.startswith("AssertionError")

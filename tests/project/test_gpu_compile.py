"""The figures that `benchmarks.gpu_compile` reads in a compiled program, and its results."""

import json

import pytest
from helpers.paths import ROOT

from benchmarks import gpu_compile
from recon_ad.errors import UserError
from recon_ad.methods import METHODS
from recon_ad.runtime import targets

PROGRAM = """
  %cudnn-conv.1 = (f32[128,32,32,64]{3,2,1,0}, u8[0]{0}) custom-call(%a, %b), window={size=3x3 \
stride=2x2}, dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convForward"
  %cudnn-conv-bw.1 = (f32[3,3,64,32]{3,2,1,0}, u8[0]{0}) custom-call(%a, %c), window={size=63x63 \
rhs_reversal=1x1}, dim_labels=f01b_i01o->01bf, custom_call_target="__cudnn$convForward"
  %convolution.4 = f32[2,8,8,4]{3,2,1,0} convolution(%d, %e), dim_labels=b01f_01io->b01f
  %gemm.2 = (f32[8,8]{1,0}, s8[4]{0}) custom-call(%f, %g), custom_call_target="__cublas$gemm"
  %all-reduce-start = f32[25]{0} all-reduce-start(%wrapped), channel_id=1, to_apply=%add
  %all-reduce-done = f32[25]{0} all-reduce-done(%all-reduce-start)
  %all-gather.1 = f32[32,4]{1,0} all-gather(%h), channel_id=2, dimensions={0}
"""


def test_windows_and_collectives_are_counted():
    assert gpu_compile.windows(PROGRAM) == {(3, 3): 1, (63, 63): 1, (1, 1): 1}
    assert gpu_compile.collectives(PROGRAM) == {"all-reduce": 1, "all-gather": 1}


def row(window, **more):
    about = {"method": "cae", "program": "step", "devices": 8, "compiles": True}
    return about | {"largest_window": window} | more


@pytest.mark.parametrize(
    ("rows", "seen", "says"),
    [
        ([row((3, 3)), row(None), row((11, 11))], row((63, 63)), ""),
        ([row((3, 3)), row((32, 3))], row((63, 63)), "window of 32×3, above 11"),
        ([row(None, compiles=False, error="no such thing")], row((63, 63)), "no such thing"),
        ([row((3, 3))], row((3, 3)), "detects nothing"),
    ],
)
def test_a_large_window_and_what_does_not_compile_are_named(rows, seen, says):
    said = gpu_compile.verdict(rows, seen)
    assert says in said if says else said == ""


def test_the_results_are_of_all_methods_on_all_numbers_of_devices():
    content = json.loads((ROOT / "results" / "gpu_compile.json").read_text())
    found = [(r["method"], r["program"], r["devices"]) for r in content["rows"]]
    programs = [(name, p) for name in METHODS if "." not in name for p in ("step", "core")]
    assert sorted(found) == sorted((*p, n) for p in programs for n in gpu_compile.DEVICES)
    assert gpu_compile.verdict(content["rows"], content["seen"]) == content["wrong"] == ""
    assert content["seen"]["largest_window"] == [63, 63]


def test_without_the_plugin_a_sentence_says_how_to_install_it(monkeypatch):
    def absent(*args, **kwargs):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(targets.topologies, "get_topology_desc", absent)
    with pytest.raises(UserError, match=r"pip install -e '.\[aot\]'"):
        gpu_compile.main()

"""Programs of every method, lowered for GPUs on a machine without any."""

import functools
import re

import jax
import pytest
from helpers.small_runs import small_config
from jax import export

from recon_ad.methods import METHODS
from recon_ad.ops import conv
from recon_ad.runtime import mesh as meshes
from recon_ad.training.programs import core_program, step_program

LARGEST = 4  # side in px of the methods' own kernels
CONVOLUTION = re.compile(
    r"stablehlo\.convolution.*?\[(?P<sides>[^]]*)\]x.*?window = \{(?P<window>.*?)\}.*?"
    r": \(tensor<[^>]*>, tensor<(?P<kernel>[^>]*)>\) -> tensor<(?P<out>[^>]*)>"
)


def too_large(program):
    """Find convolutions of a lowered program whose window would be large on a GPU.

    The window of a kernel's gradient is itself an image. Libraries have a separate call for it if
    the result is a kernel and nothing but that image is dilated.
    """
    found = []
    for one in CONVOLUTION.finditer(program):
        of_kernel = one["sides"].startswith("f")
        dims = (one["out"] if of_kernel else one["kernel"]).split("x")[:2]
        dilated = of_kernel and "lhs_dilate" in one["window"]
        if dilated or max(map(int, dims)) > LARGEST:
            found.append(one[0])
    return found


def lowered(function, *arguments):
    return str(export.export(function, platforms=["cuda"])(*arguments).mlir_module())


@pytest.mark.parametrize("name", METHODS)
def test_no_program_for_gpus_has_a_large_window(name, monkeypatch):
    monkeypatch.setattr(conv, "CHUNK", 1)  # of the form for CPUs, which then has loops
    config = small_config(f"configs/folder.py:method={name},smoke")
    for make in (step_program, core_program):
        program = make(config, meshes.data_mesh(), channels=1)
        text = lowered(program.function, *program.arguments)
        count = text.count("stablehlo.convolution")
        assert len(CONVOLUTION.findall(text)) == count  # each one is found
        assert not too_large(text)
        assert name not in ("cae", "dae", "l2_ae") or (count and "stablehlo.while" not in text)


def test_the_gradient_of_laxs_transposed_convolution_would_be_seen():
    def loss(x, kernel):
        return conv._transposed(x, kernel).sum()

    shapes = (2, 8, 8, 4), (3, 3, 4, 4)
    given = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    assert len(too_large(lowered(jax.jit(jax.grad(loss, 1)), *given))) == 1
    forward = jax.jit(functools.partial(conv._transposed))
    assert not too_large(lowered(forward, *given))

"""The encoder against PyTorch's outputs and NumPy; its files, intact and damaged."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from helpers import vit_reference
from helpers.vit_reference import SMALL

from recon_ad.errors import UserError
from recon_ad.models.spec import Spec
from recon_ad.models.vit import ViT, fitted
from recon_ad.pretrained import PRESETS, names, preset, read_encoder
from recon_ad.pretrained.weights import check_given, read_file

DEIT = "deit_tiny_patch16_224"
DINOV2 = Spec(patch=14, width=384, depth=4, heads=6, grid=37, layer_scale=True)


def run(read, spec, images, blocks, dtype="float32"):
    size = (images.shape[1] // spec.patch, images.shape[2] // spec.patch)
    params = fitted(read.params, size, blocks=blocks, antialias=read.antialias)
    apply = jax.jit(ViT(spec, blocks, size, dtype).apply)
    return apply({"params": params}, images)


def written(folder, tensors):
    path = folder / "model.safetensors"
    safetensors.numpy.save_file(tensors, path)
    return path


def apart(found, expected):
    """Return the largest difference as a fraction of the largest value."""
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def golden(folder):
    """Return PyTorch's outputs, stored beside the weights that produced them."""
    with np.load(folder / "golden_chelsea.npz") as outputs:
        return {name: outputs[name] for name in outputs.files}


def test_deit_is_pytorchs_and_near_in_bfloat16(real_weights):
    folder = real_weights / DEIT
    outputs, spec = golden(folder), preset(DEIT).spec
    read = read_encoder(DEIT, str(folder))
    images = np.moveaxis(outputs["input_nchw"], 1, -1)
    found = run(read, spec, images, (5, 7, 11))
    for ours, theirs in (("block5", "block5"), ("block7", "block7"), ("norm", "final_norm_tokens")):
        assert apart(found[ours], outputs[theirs]) < 1e-4
    near = run(read, spec, images, (5,), "bfloat16")["block5"]
    assert near.dtype == np.float32
    # Eight bits of mantissa: 0.4 % per product, of which a residual stream adds up many.
    assert 1e-4 < apart(near, outputs["block5"]) < 0.05


def test_dinov2_is_pytorchs_also_at_an_interpolated_size(real_weights):
    folder = real_weights / "dinov2_vits14"
    outputs, read = golden(folder), read_file(folder / "model.safetensors", DINOV2)
    small = run(read, DINOV2, np.moveaxis(outputs["input224_nchw"], 1, -1), (2, 3))
    # Hidden state 0 is the input of the first block.
    assert apart(small["block2"], outputs["hidden3_224"]) < 1e-4
    assert apart(small["norm"], outputs["last_hidden_224"]) < 1e-4
    large = run(read, DINOV2, np.moveaxis(outputs["input392_nchw"], 1, -1), (3,))
    assert apart(large["norm"][:, 0], outputs["cls_392"]) < 1e-4


SPECS = {
    "plain": (SMALL, None),
    "distilled": (SMALL._replace(distilled=True), None),
    "layer scale": (SMALL._replace(layer_scale=True), None),
    "registers, as timm": (SMALL._replace(layer_scale=True, registers=4), 0),
    "registers, as Hugging Face": (SMALL._replace(layer_scale=True, registers=4), 1),
}


@pytest.mark.parametrize("name", SPECS)
def test_encoders_are_numpys_under_either_librarys_names(tmp_path, name):
    spec, positions = SPECS[name]
    tensors = vit_reference.make_tensors(spec, positions=positions)
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    both = [vit_reference.hugging_face(tensors, dinov2=d) for d in (False, True)]
    renamed = [*both, *({f"vit.{key}": value for key, value in names.items()} for names in both)]
    heads = {"head.weight": np.ones((2, 12)), "pooler.dense.bias": np.ones(12)}
    reads = [read_file(written(tmp_path, t | heads), spec) for t in (tensors, *renamed)]
    assert reads[0].antialias
    for read in reads[1:]:
        assert read.antialias == bool(spec.registers)
        jax.tree.map(np.testing.assert_array_equal, read.params, reads[0].params)
    found = run(reads[0], spec, images, (0, 2))
    blocks, norm = vit_reference.forward(tensors, images, spec)
    for key, expected in (("block0", blocks[0]), ("block2", blocks[2]), ("norm", norm)):
        np.testing.assert_allclose(found[key], expected, atol=2e-5)
    # Blocks after the last requested one are left out.
    params = fitted(reads[0].params, (6, 2), blocks=(0, 1), antialias=True)
    assert {key for key in params if key.startswith("block")} == {"block0", "block1"}
    assert params["positions"].shape == (6, 2, 12)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("blocks.1.mlp.fc1.bias", None, r"missing: blocks\.1\.mlp\.fc1\.bias"),
        ("blocks.3.norm1.bias", np.ones(12), r"surplus: blocks\.3\.norm1\.bias"),
        ("norm.weight", np.ones((12, 1)), r"norm\.weight is \[12, 1\], not \[12\]"),
        ("norm.bias", np.append(np.ones(11), np.nan), r"norm\.bias has values that are NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, name, value, says):
    tensors = vit_reference.make_tensors() | {name: value}
    kept = {n: v.astype(np.float32) for n, v in tensors.items() if v is not None}
    with pytest.raises(UserError, match=says):
        read_file(written(tmp_path, kept), SMALL)


def test_files_that_are_damaged_cut_short_or_no_weights_get_a_sentence(tmp_path):
    path = written(tmp_path, vit_reference.make_tensors())
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:5], b"", b"\xff" * 100, whole[:8] + b"}" + whole[9:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged or truncated"):
            read_file(path, SMALL)
    path.write_bytes(whole)
    pickled = path.with_suffix(".pth")
    pickled.write_bytes(whole)
    for says, read in (
        ("has the SHA-256", lambda: read_file(path, SMALL, sha256="0" * 64)),
        ("not a safetensors file", lambda: read_file(pickled, SMALL)),
        ("no weights at", lambda: read_encoder(DEIT, str(tmp_path / "nowhere"))),
        ("unknown encoder", lambda: read_encoder("resnet50", str(path))),
    ):
        with pytest.raises(UserError, match=says):
            read()


def test_presets_have_the_published_numbers_of_parameters():
    # Without heads, as papers and libraries state them in millions.
    published = {
        "deit_tiny_patch16_224": 5.5,
        "deit_base_distilled_patch16_384": 86.1,
        "vit_small_patch14_dinov2": 22.1,
        "vit_base_patch14_reg4_dinov2": 86.6,
        "vit_large_patch16_224": 303.3,
        "vit_small_patch8_224_dino": 21.7,
    }
    for name, millions in published.items():
        spec = PRESETS[name].spec
        shapes = vit_reference.expected(spec, 0 if spec.registers else spec.prefix).values()
        count = sum(int(np.prod(shape)) for shape in shapes)
        assert count / 1e6 == pytest.approx(millions, abs=0.1), name


def test_weights_of_another_encoder_and_missing_ones_are_recognised(tmp_path):
    spec = PRESETS[DEIT].spec
    shapes = names.expected(spec, spec.prefix)
    path = written(tmp_path, {name: np.zeros(s, np.float32) for name, s in shapes.items()})
    with pytest.raises(UserError, match=rf"do not fit vit_small\w+; they look like {DEIT}"):
        read_encoder("vit_small_patch14_reg4_dinov2", str(path))
    check_given(str(path))
    with pytest.raises(UserError, match="no weights at"):
        check_given(str(tmp_path / "nowhere"))

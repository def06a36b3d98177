"""Models and arguments that are not what the C++ program needs: one sentence that says which."""

import shutil

import pytest
from helpers.cpp import by_cpp, by_python, called, noise, same_rows
from helpers.cpp_models import CORE, TAIL, tiny_model
from helpers.layouts import saved

pytestmark = pytest.mark.slow

# A part of the rejecting sentence, by what is done to the tiny model.
REFUSED = {
    "half a resize": ({"resize": "0,5"}, "(resize is 0,5)"),
    "threshold": ({"image_threshold": "nan"}, "(image_threshold is nan)"),
    "infinite": ({"pixel_threshold": "inf"}, "(pixel_threshold is inf)"),
    "range": ({"input_range": "5,5"}, "(input_range is 5,5)"),
    "tile": ({"tile": "32,65537"}, "(tile is 32,65537)"),
    "median": ({"median_score": "nan"}, "(median_score is nan)"),
    "median of a word": ({"median_score": "1x"}, "(median_score is 1x)"),
    "large median": ({"category_medians": "a=1;b=1e39"}, "(category_medians is a=1;b=1e39)"),
    "median of nothing": ({"category_medians": "=1"}, "(category_medians is =1)"),
    "separators": ({"median_score": "1_0"}, "(median_score is 1_0)"),
    "spaces": ({"pixel_threshold": " 1 "}, "(pixel_threshold is"),
    "nearly nothing": ({"border_weight": "1e-400"}, "(border_weight is 1e-400)"),
    "medians of nothing": ({"category_medians": ";"}, "(category_medians is ;)"),
    "half a list": ({"category_medians": "a=1;"}, "(category_medians is a=1;)"),
    "no category": ({"categories": "=1,2"}, "(categories is =1,2)"),
    "a category twice": ({"categories": "a=1,2;a=3,4"}, "(categories is a=1,2;a=3,4)"),
    "a name as it is": ({"categories": "a b=1,2"}, "(categories is a b=1,2)"),
    "another name": ({"category_medians": "%61=1"}, "(category_medians is %61=1)"),
    "no name": ({"category_medians": "%FF=1"}, "(category_medians is %FF=1)"),
    "digits": ({"opening": "٣"}, "(opening is ٣)"),
    "three sides": ({"stride": "8,8,"}, "(stride is 8,8,)"),
    "endless": ({"note": '"\x04Loop'}, "holds a loop, and no export of a detector does"),
    "output": ({"tail": TAIL.replace("label", "other")}, "M.tail.onnx has no output label"),
    "input": ({"channels": "3"}, "M.onnx: the model does not run ("),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_whose_numbers_or_nodes_cannot_be_meant_is_refused(what, program, tmp_path):
    changed, says = REFUSED[what]
    saved(tmp_path / "images/a.png", noise()[..., 0])
    model = tiny_model(tmp_path, **changed)
    ours = by_cpp(program, model, tmp_path / "images", tmp_path / "out")
    assert ours.status == 2 and says in ours.error and ours.error.count("\n") == 1
    assert not (tmp_path / "out").exists()


MASK = "mask = And (above, valid)"
SCORE = "score = ReduceMax <keepdims = 0> (residual_map)"
NAN = f"{SCORE.replace('score', 'top')} zero = Sub (top, top) score = Div (zero, zero)"
# The replacement in one of the graphs, and a part of each row's sentence, by the model's output.
ODD = {
    "what a detector gives": ("tail", MASK, MASK, ""),
    "too small a mask": (
        "tail", MASK, "mask = Greater (score, pixel_threshold)",
        "M.onnx: its mask is bool [] and not bool [64, 128]: export the detector anew.",
    ),
    "mask of floats": ("tail", MASK, "mask = Neg (residual_map)", "its mask is float32 [64, 128]"),
    "many scores": ("tail", SCORE, "score = Neg (residual_map)", "its score is float32 [64, 128]"),
    "whole residuals": ("core", "to = 1", "to = 6", "and not float32 [2, 32, 32]: export"),
    "nothing": ("tail", "[h, w]", "[32, 32]", "M.onnx: the model does not run ("),
    "no number": ("tail", SCORE, NAN, "the score is nan: the detector or the image is damaged."),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_what_a_model_gives_that_no_detector_does_is_each_images_row(what, program, tmp_path):
    which, old, new, says = ODD[what]
    for name in "ab":
        saved(tmp_path / f"images/{name}.png", noise()[..., 0])
    model = tiny_model(tmp_path, **{which: {"core": CORE, "tail": TAIL}[which].replace(old, new)})
    ours = by_cpp(program, model, tmp_path / "images", tmp_path / "ours")
    theirs = by_python(model, tmp_path / "images", tmp_path / "theirs")
    assert ours.status == theirs.status == (3 if says else 0), ours.error + theirs.error
    same_rows(ours, theirs)
    for row in ours.rows.values():
        assert says in row["error"]
    if says.endswith("."):
        tables = [(tmp_path / who / "predictions.jsonl").read_text() for who in ("ours", "theirs")]
        assert tables[0] == tables[1]


# Other flags ("-" removes one) and a part of the sentence, by the mistake.
WRONG = {
    "no model": ({"model": "gone.onnx"}, "gone.onnx not found"),
    "no tail": ({"model": "lonely.onnx"}, "lonely.tail.onnx not found"),
    "no ONNX": ({"model": "text.onnx"}, "text.onnx is not a model that OpenVINO can open"),
    "another program's": ({"model": "plain.onnx"}, "was not written by python -m recon_ad.export"),
    "tail as core": ({"model": "swapped.onnx"}, "was not written by python -m recon_ad.export"),
    "two exports": ({"model": "mixed.onnx"}, "mixed.onnx and its .tail.onnx are of two exports"),
    "no folder": ({"input": "gone"}, "there is no file or folder gone."),
    "no images": ({"input": "empty"}, "empty holds no images"),
    "a link that leads back": ({"input": "round"}, "is a link to a folder that holds it"),
    "no region": ({"roi": "gone.png"}, "region of interest not found"),
    "regions of others": ({"roi": "empty"}, "for none of the images"),
    "output in a file": ({"output": "text.onnx/out"}, "check the path"),
    "output is a file": ({"output": "text.onnx"}, "check the path"),
    "flag left out": ({"model": "-"}, "--model is missing"),
    "unknown flag": ({"threshold": "1"}, "'--threshold' is not a flag"),
}


@pytest.fixture(scope="module")
def wrong(exported, images, tmp_path_factory):
    """Write a folder with everything that `WRONG` names."""
    folder = tmp_path_factory.mktemp("wrong")
    model, other = exported("gray"), exported("bytes")
    tail = model.with_suffix(".tail.onnx")
    copies = {
        "M.onnx": model, "M.tail.onnx": tail, "lonely.onnx": model, "mixed.onnx": model,
        "mixed.tail.onnx": other.with_suffix(".tail.onnx"), "swapped.onnx": tail,
        "swapped.tail.onnx": model, "plain.tail.onnx": tail, "text.tail.onnx": tail,
    }  # fmt: skip
    for name, file in copies.items():
        shutil.copy(file, folder / name)
    (folder / "text.onnx").write_text("no model")
    onnx = pytest.importorskip("onnx")
    plain = onnx.load(model)
    del plain.metadata_props[:]
    onnx.save(plain, folder / "plain.onnx")
    for name in ("empty", "images", "round"):
        (folder / name).mkdir()
    shutil.copy(images / "gray.png", folder / "images")
    (folder / "round/again").symlink_to(folder / "round")
    return folder


@pytest.mark.parametrize("what", WRONG)
def test_what_is_to_be_mended_ends_with_two_and_one_sentence(what, program, wrong):
    changed, says = WRONG[what]
    flags = {"model": "M.onnx", "input": "images", "output": "out", **changed}
    given = [word for k, v in flags.items() if v != "-" for word in (f"--{k}", v)]
    done = called(program, *given, cwd=wrong)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert not (wrong / "out").exists()

"""Config arguments, the configs themselves, and the comparison of runs."""

import functools
import operator
import sys
from pathlib import Path

import pytest
from helpers.commands import refusal, run_command
from ml_collections import ConfigDict

from configs.default import default_config
from recon_ad import config as configs
from recon_ad.config import find_config, load_config, shipped
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, build_method
from recon_ad.training.run import train
from recon_ad.training.same_run import differences

# Configs of runs, without the shared defaults and that of classify.
CONFIGS = sorted(
    p for p in Path("configs").glob("*.py") if p.stem not in ("__init__", "default", "classifier")
)


def test_arguments_take_their_defaults_types():
    args = configs.parse_arg("steps=3,name=a b,smoke", steps=1, name="", smoke=False, rate=0.5)
    assert (args.steps, args.name, args.smoke, args.rate) == (3, "a b", True, 0.5)


@pytest.mark.parametrize(
    ("arg", "says"),
    [("step=3", "steps"), ("steps=x", "int"), ("steps", "needs a value"), ("smoke=1", "true")],
)
def test_wrong_arguments_and_missing_files_are_refused(arg, says):
    with pytest.raises(UserError, match=says):
        configs.parse_arg(arg, steps=1, smoke=False)
    with pytest.raises(UserError, match=r"nothing\.py"):
        load_config("configs/nothing.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_is_the_same_by_its_name_in_any_folder(path, tmp_path, monkeypatch):
    here = load_config(f"{path}:smoke").to_json()
    monkeypatch.chdir(tmp_path)
    for spec in (path.stem, f"configs/{path.name}", f"./configs/{path.name}"):
        assert load_config(f"{spec}:smoke").to_json() == here


FROM_FOLDER = "from configs import folder\ndef get_config(): return folder.get_config({arg})"
OWN = """
from configs import default
def get_config():
    config = default.default_config()
    config.seed = 6
    return config
"""


def test_the_callers_own_config_comes_first_and_may_build_on_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FROM_FOLDER.format(arg="'seed=5,smoke'"))
    assert load_config("mine.py").seed == 5  # based on the shipped one
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "folder.py").write_text(OWN)
    (tmp_path / "configs" / "mine.py").write_text(FROM_FOLDER.format(arg=""))
    assert load_config("configs/folder.py").seed == 6
    assert load_config("configs/mine.py").seed == 6  # based on the one beside it
    assert load_config("mine.py").seed == 5 and load_config("folder:seed=7").seed == 7


def test_what_the_caller_imports_as_configs_is_left_alone(tmp_path, monkeypatch):
    theirs = {"configs": object(), "configs.default": object()}
    for name, module in theirs.items():
        monkeypatch.setitem(sys.modules, name, module)
    before = list(sys.path)
    load_config("preste:smoke")
    assert {name: sys.modules[name] for name in theirs} == theirs and sys.path == before
    assert "configs.preste" not in sys.modules
    with pytest.raises(UserError, match="no argument"):
        load_config("preste:smok")
    assert {name: sys.modules[name] for name in theirs} == theirs


@pytest.mark.parametrize(
    "path", ["nothing", "nothing.py", "folder.py", "x/folder", "a/configs/vit.py"]
)
def test_a_config_that_is_not_there_is_told_with_those_that_are(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"no config file {path}; .* demo, folder, "):
        find_config(path)


def test_commands_find_configs_from_any_folder(tmp_path):
    given = ["--config=folder:smoke,seed=3", "--workdir=w", "--stop_after=train"]
    done = run_command("train", *given, "--config.train.steps=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "w" / "detector" / "detector.json").is_file()
    assert "step 2 of 2: train_loss" in done.stderr
    sentence = refusal("train", "--config=folders", "--workdir=w", cwd=tmp_path)
    assert "no config file folders; " in sentence
    (tmp_path / "none.py").write_text("")
    assert "none.py has no get_config" in refusal(
        "train", "--config=none.py", "--workdir=w", cwd=tmp_path
    )


def test_in_a_package_that_is_installed_configs_are_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "__file__", str(tmp_path / "recon_ad" / "config.py"))
    assert shipped() == tmp_path / "configs"
    (tmp_path / "recon_ad" / "configs").mkdir(parents=True)
    assert shipped() == tmp_path / "recon_ad" / "configs"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads_is_shrunk_by_smoke_and_takes_common_arguments(path):
    config = load_config(str(path))
    smoke = load_config(f"{path}:smoke,seed=7,method=cae")
    assert (smoke.seed, smoke.data.source) == (7, "synthetic")
    assert smoke.train.steps < 10 < config.train.steps


@pytest.mark.parametrize("name", ["folder", "covision", "bergmann2019", "preste", "public"])
def test_smoke_on_a_path_reads_its_images(name):
    whole, smoke = (load_config(f"configs/{name}.py:path=DIR{more}") for more in ("", ",smoke"))
    of = operator.attrgetter("data.source", "data.path", "data.channels", "part.align")
    assert of(smoke) == of(whole) and smoke.data.path == "DIR"
    assert smoke.train.steps < 10


def test_folder_takes_features_where_weights_can_be_had_else_pixels(monkeypatch, caplog):
    assert load_config("configs/folder.py:scale=cpu").method.name == "cae"
    assert "fetch them with python -m recon_ad.weights --fetch deit_tiny" in caplog.text
    named = load_config("configs/folder.py:weights=some/file,encoder=deit_tiny_patch16_224")
    assert (named.method.name, named.encoder.weights) == ("knn", "some/file")
    assert load_config("configs/folder.py:method=cae,weights=some/file").method.name == "cae"
    monkeypatch.setattr("recon_ad.pretrained.obtainable", lambda name: name.startswith("deit_tiny"))
    for path in ("configs/folder.py", "configs/public.py"):
        found = load_config(f"{path}:scale=cpu")
        assert (found.method.name, found.encoder.weights) == ("knn", "hub")
    assert load_config("configs/folder.py").method.name == "cae"  # which needs no weights


@pytest.mark.parametrize("path", ["configs/folder.py", "configs/public.py"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_works_from_both_configs_for_own_images(path, method):
    for scale in ("cpu", "paper"):
        config = load_config(f"{path}:method={method},scale={scale},weights=random")
        build_method(config, channels=1)
        assert config.method.name == method


def test_the_long_scale_changes_only_the_length_of_the_training_and_averages_the_papers_weights():
    for spec in ("folder.py:method=cae", "schneider2022.py:method=vae", "preste.py:dataset=grid"):
        cpu, longer = (load_config(f"configs/{spec},scale={scale}") for scale in ("cpu", "long"))
        assert longer.train.steps > 4 * cpu.train.steps
        longer.train.steps = cpu.train.steps
        assert (longer.optim.average > 0) == spec.startswith("schneider2022")
        longer.optim.average = cpu.optim.average
        assert longer == cpu
    with pytest.raises(UserError, match="choose one of: cpu, long, paper"):
        load_config("configs/folder.py:method=cae,scale=gpu")


def test_differences_name_fields_and_both_values():
    old = {"a": {"b": 1, "c": (1, 2)}, "d": 0}
    new = {"a": {"b": 2, "c": [1, 2]}, "e": 0}
    assert differences(old, new) == ["a.b: 1 → 2", "d: 0 → (absent)", "e: (absent) → 0"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1), ("data.source", "web"), ("data.resize", (0, 5)), ("data.on_error", "ignore"),
        ("data.side", 95), ("method.width", 0.0),
        ("holdout.fraction", 1.0), ("train.steps", -1), ("train.batch_size", -4),
        ("train.select", "test"), ("optim.schedule", "step"), ("optim.learning_rate", 0.0),
        ("inference.tile_weights", "gauss"), ("vit_recon.recipe", "paper"),
        ("calibration.fpr", 0.0), ("calibration.pixel_percentile", 101.0),
        ("evaluation.bootstrap", 0), ("ssim.window", 0), ("ssim.window", -1), ("ssim.window", 4),
    ],
)  # fmt: skip
def test_unusable_values_are_found_before_training(field, value, tmp_path):
    config = load_config("configs/demo.py:smoke")
    configs.check_config(config)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"config.{field} is "):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_rules_name_fields_and_scores_that_exist():
    assert configs.RULES.keys() <= configs.flatten(load_config("configs/demo.py").to_dict()).keys()


def test_the_types_are_those_of_the_defaults():
    kinds = {int: configs.WHOLE, float: configs.NUMBER, str: configs.TEXT, bool: configs.FLAG}
    lists = {int: configs.WHOLES, float: configs.NUMBERS, str: configs.TEXTS}

    def kind(value):
        if value is None:
            return configs.OPTIONAL
        # The only empty list contains names.
        return lists[type([*value, ""][0])] if isinstance(value, list) else kinds[type(value)]

    fields = configs.flatten(default_config().to_dict())
    assert {field: kind(value) for field, value in fields.items()} == configs.TYPES
    assert all(configs.TYPES[field][0](value) for field, value in fields.items())


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("1", "seed optim.learning_rate ssim.window calibration.thresholds.image dae.widths"),
        (True, "seed optim.learning_rate calibration.thresholds.pixel data.path data.input_range"),
        (1.5, "seed ssim.window knn.memory part.align method.name encoder.blocks"),
        (1, "part.align ssim.kind data.augment data.resize"),
        (["a"], "data.resize data.input_range encoder.blocks seed"),
        ([True], "data.augment encoder.blocks data.input_range"),
        (None, "seed optim.learning_rate ssim.kind part.align data.augment"),
    ],
)
def test_a_value_of_another_type_is_found(value, fields):
    for field in fields.split():
        section, _, name = field.rpartition(".")
        content = load_config("configs/demo.py:smoke").to_dict()
        functools.reduce(operator.getitem, filter(None, section.split(".")), content)[name] = value
        with pytest.raises(UserError, match=rf"config\.{field} is .*; it must be "):
            configs.check_config(ConfigDict(content))


def test_the_classifiers_config_follows_its_rules():
    config = load_config("configs/classifier.py:features=encoder,weights=FILE,seed=3")
    assert (config.features, config.encoder.weights, config.seed) == ("encoder", "FILE", 3)
    assert configs.CLASSIFIER_RULES.keys() <= configs.flatten(config.to_dict()).keys()
    configs.check_config(config, configs.CLASSIFIER_RULES)
    for field, value in (("features", "sift"), ("folds", 2), ("threshold", 1.0), ("hidden", 0)):
        wrong = load_config("configs/classifier.py")
        wrong.update_from_flattened_dict({field: value})
        with pytest.raises(UserError, match=f"config.{field} is "):
            configs.check_config(wrong, configs.CLASSIFIER_RULES)

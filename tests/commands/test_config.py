"""Config arguments, the configs themselves, comparing runs."""

from pathlib import Path

import pytest

from recon_ad import config as configs
from recon_ad.config import load_config
from recon_ad.errors import UserError
from recon_ad.training.run import train
from recon_ad.training.same_run import differences

# Of runs: not what all share, nor what is of classify.
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
def test_every_config_loads_is_shrunk_by_smoke_and_takes_common_arguments(path):
    config = load_config(str(path))
    smoke = load_config(f"{path}:smoke,seed=7,method=cae")
    assert (smoke.seed, smoke.data.source) == (7, "synthetic")
    assert smoke.train.steps < 10 < config.train.steps


def test_differences_name_fields_and_both_values():
    old = {"a": {"b": 1, "c": (1, 2)}, "d": 0}
    new = {"a": {"b": 2, "c": [1, 2]}, "e": 0}
    assert differences(old, new) == ["a.b: 1 → 2", "d: 0 → (absent)", "e: (absent) → 0"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1), ("data.source", "web"), ("data.resize", (0, 5)), ("data.on_error", "ignore"),
        ("data.side", 95), ("method.width", 0.0),
        ("holdout.fraction", 1.0), ("train.steps", 0), ("train.batch_size", -4),
        ("train.select", "test"), ("optim.schedule", "step"), ("optim.learning_rate", 0.0),
        ("inference.tile_weights", "gauss"),
        ("calibration.fpr", 0.0), ("calibration.pixel_percentile", 101.0),
        ("evaluation.bootstrap", 0),
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

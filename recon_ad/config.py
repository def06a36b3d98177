"""Reading configs: typed arguments after the colon, loading by path, comparing two of them.

A config file is Python with `get_config(arg="")`; `configs/default.py` holds every default.
"""

import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from recon_ad.errors import UserError


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in names, f"one of: {', '.join(names)}"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


MAX_SIDE = 1 << 16  # px, of a tile
_COUNT = (lambda value: _is_whole(value) and value >= 1, "a whole number, 1 or more")
_WHOLE = (lambda value: _is_whole(value) and value >= 0, "a whole number, 0 or more")
_AMOUNT = (lambda value: 0 <= value < math.inf, "0 or more")
_SHARE = (lambda value: 0 < value < 1, "between 0 and 1")
# What a method or a data source checks itself (names of methods, patch sizes) is not here.
RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _WHOLE,
    "data.source": _one_of("folder", "synthetic", "tfds", "csv", "memory"),
    "data.channels": _WHOLE,
    "data.on_error": _one_of("raise", "skip"),
    "data.side": (lambda value: value >= 96, "96 px or more"),
    "data.patch_size": (
        lambda value: _is_whole(value) and 1 <= value <= MAX_SIDE,
        f"a whole number from 1 to {MAX_SIDE} px",
    ),
    "method.width": (lambda value: 0 < value <= 100, "above 0 and up to 100"),
    "data.resize": (
        lambda value: (
            isinstance(value, list)
            and len(value) == 2
            and all(map(_is_whole, value))
            and (min(value) > 0 or not any(value))
        ),
        "(height, width) in px, or (0, 0) for the images' own size",
    ),
    "data.input_range": (
        lambda value: len(value) == 2 and (value[0] < value[1] or not any(value)),
        "(black, white) with black below white, or (0, 0) to go by the files' type",
    ),
    "data.cache_mib": _WHOLE,
    "data.disk_cache_mib": _WHOLE,
    "part.angle": (lambda value: 0 <= value <= 180, "from 0 to 180 degrees"),
    "part.scale": (lambda value: 0 <= value < 1, "0 or more and below 1"),
    "part.overlap": (lambda value: 0 < value <= 1, "above 0 and up to 1"),
    "part.confidence": (lambda value: 0 < value < 1, "between 0 and 1"),
    "holdout.fraction": _SHARE,
    "holdout.few": _AMOUNT,
    "encoder.dtype": _one_of("float32", "bfloat16"),
    "train.steps": _COUNT,
    "train.batch_size": _COUNT,
    "train.log_every": _COUNT,
    "train.eval_every": _COUNT,
    "train.heldout_patches": _COUNT,
    "train.select": _one_of("last", "best"),
    "optim.learning_rate": (lambda value: value > 0, "above 0"),
    "optim.warmup": _WHOLE,
    "optim.schedule": _one_of("constant", "cosine"),
    "inference.stride": _COUNT,
    "inference.tile_weights": _one_of("uniform", "hann"),
    "inference.batch_size": _COUNT,
    "inference.sigma": (lambda value: 0 <= value <= 1000, "from 0 to 1000 px"),
    "inference.opening": _WHOLE,
    "inference.border": _WHOLE,
    "inference.border_weight": _AMOUNT,
    "inference.min_area": _WHOLE,
    "calibration.rule": _one_of("split", "cross"),
    "calibration.fpr": _SHARE,
    "calibration.pixel_percentile": (lambda value: 0 < value <= 100, "above 0 and up to 100"),
    "evaluation.bootstrap": _COUNT,
    "evaluation.panels": _COUNT,
}


# Of configs/classifier.py.
CLASSIFIER_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _WHOLE,
    "features": _one_of("hu", "encoder"),
    "encoder.side": _COUNT,
    "hidden": _COUNT,
    "steps": _COUNT,
    "learning_rate": (lambda value: value > 0, "above 0"),
    "l2": _AMOUNT,
    "folds": (lambda value: value >= 3, "3 or more"),
    "repeats": _COUNT,
    "threshold": (
        lambda value: value is None or 0 < value < 1,
        "between 0 and 1, or None for the best on labels not learnt from",
    ),
}


def check_config(
    config: ConfigDict, rules: Mapping[str, tuple[Callable[[Any], bool], str]] = RULES
) -> None:
    """Finds at the start what would else stop a run after its training.

    Raises:
      UserError: a field's value is not usable; says which would be.
    """
    fields = flatten(config.to_dict())
    for name, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{name} is {value}; it has to be a finite number.")
    for name, (fits, what) in rules.items():
        if not fits(fields[name]):
            raise UserError(f"config.{name} is {fields[name]!r}; it has to be {what}.")


def parse_arg(arg: str, **defaults: Any) -> SimpleNamespace:
    """The arguments of `--config file.py:name=value,flag`, typed as their defaults are.

    Args:
      arg: what stands after the colon; a bare name sets a boolean.
      **defaults: every argument the config knows.

    Raises:
      UserError: an unknown name, or a value that does not have the default's type.
    """
    values = dict(defaults)
    for part in filter(None, (p.strip() for p in arg.split(","))):
        name, has_value, text = part.partition("=")
        if name not in defaults:
            known = ", ".join(sorted(defaults))
            raise UserError(f"the config has no argument {name!r}; it has: {known}.")
        kind = type(defaults[name])
        if kind is bool:
            if text not in ("", "true", "false"):
                raise UserError(f"config argument {name} is true or false, not {text!r}.")
            values[name] = text != "false"
        elif not has_value:
            raise UserError(f"config argument {name} needs a value: {name}=….")
        else:
            try:
                values[name] = kind(text)
            except ValueError:
                raise UserError(
                    f"config argument {name} takes a value of type {kind.__name__}, not {text!r}."
                ) from None
    return SimpleNamespace(**values)


def check_file(path: str) -> None:
    """Raises UserError where there is no such config file."""
    if not Path(path).is_file():
        raise UserError(f"there is no config file {path}; see the folder configs/.")


def load_config(spec: str) -> ConfigDict:
    """The config of `path/to/file.py:arguments`, as the commands' `--config` takes it.

    Raises:
      UserError: no such file, or an argument it does not have.
    """
    path, _, arg = spec.partition(":")
    check_file(path)
    module_spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    # Configs import each other as `configs.…`, wherever the caller stands.
    root = str(Path(path).absolute().parent.parent)
    sys.path.insert(0, root)
    try:
        module_spec.loader.exec_module(module)
    finally:
        sys.path.remove(root)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} has no get_config: it is no config; see the folder configs/.")
    return module.get_config(arg).lock()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data.path": …} of a nested config."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat

"""Config reading: the --config flag, typed arguments after the colon, loading by name or path.

A config file is a Python file with `get_config(arg="")`. `configs/default.py` holds every default.
Configs import each other as `configs.NAME`, independently of their folder and of the caller's.
"""

import contextlib
import importlib.machinery
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from recon_ad.errors import UserError
from recon_ad.limits import MAX_SIDE

# Flags defined by `config_flag` count as the calling command's own, so that its --help shows them.
flags.disclaim_key_flags()

# Returns whether a value is allowed, and describes the allowed values.
Rule = tuple[Callable[[Any], bool], str]


def _one_of(*names: str) -> Rule:
    return lambda value: value in names, f"one of: {', '.join(names)}"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _list_of(kind: Rule) -> Rule:
    fits, what = kind
    return lambda value: isinstance(value, list) and all(map(fits, value)), f"a list of {what}"


TEXT: Rule = (lambda value: isinstance(value, str), "text")
FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
WHOLE: Rule = (_is_whole, "a whole number")
NUMBER: Rule = (_is_number, "a number")
OPTIONAL: Rule = (lambda value: value is None or _is_number(value), "a number or None")
TEXTS: Rule = _list_of(TEXT)
WHOLES: Rule = _list_of((_is_whole, "whole numbers"))
NUMBERS: Rule = _list_of((_is_number, "numbers"))
# The type of each field of configs/default.py. Flags are parsed as that type, but a config file may
# set a value of any type.
TYPES: Mapping[str, Rule] = {
    field: kind
    for kind, fields in (
        (
            TEXT,
            "method.name method.variant vit_flow.coupling encoder.name encoder.weights "
            "encoder.sha256 encoder.dtype ssim.kind data.source data.path data.category data.name "
            "data.prepared data.images data.truth data.on_error data.patches part.template "
            "part.background holdout.group train.select optim.schedule inference.tile_weights "
            "inference.score calibration.rule vit_recon.recipe",
        ),
        (FLAG, "part.align"),
        (
            WHOLE,
            "seed method.n_z aae.critic_steps dae.bottleneck knn.memory knn.coreset vit_flow.steps "
            "encoder.tokens ssim.window data.side data.channels data.patch_size data.cache_mib "
            "data.disk_cache_mib holdout.few train.steps train.batch_size train.log_every "
            "train.eval_every train.heldout_patches optim.warmup inference.stride "
            "inference.batch_size inference.opening inference.min_area inference.border "
            "evaluation.bootstrap evaluation.panels",
        ),
        (
            NUMBER,
            "method.width aae.critic_clip aae.encoder_rate fm_ae.feature_weight dae.noise "
            "subspace.variance vit_flow.ratio residual.squared residual.absolute residual.ssim "
            "part.angle part.scale part.overlap part.confidence holdout.fraction "
            "optim.learning_rate optim.average inference.sigma inference.border_weight "
            "calibration.fpr calibration.pixel_percentile",
        ),
        (
            OPTIONAL,
            "vae.kl_weight ssim_l1.ssim_threshold ssim_l1.l1_threshold "
            "calibration.thresholds.image calibration.thresholds.pixel",
        ),
        (TEXTS, "data.augment"),
        (WHOLES, "dae.widths encoder.blocks data.resize"),
        (NUMBERS, "data.input_range"),
    )
    for field in fields.split()
}

_COUNT = (lambda value: _is_whole(value) and value >= 1, "a whole number, 1 or more")
_WHOLE = (lambda value: _is_whole(value) and value >= 0, "a whole number, 0 or more")
_AMOUNT = (lambda value: 0 <= value < math.inf, "0 or more")
_SHARE = (lambda value: 0 < value < 1, "between 0 and 1")
# Values that a method or a data source checks itself, such as method names, are not listed.
RULES: Mapping[str, Rule] = {
    "seed": _WHOLE,
    "ssim.window": (
        lambda value: _is_whole(value) and value >= 1 and value % 2 == 1,
        "an odd number of px, 1 or more",
    ),
    "data.source": _one_of("folder", "synthetic", "tfds", "csv", "memory"),
    "data.channels": _WHOLE,
    "data.on_error": _one_of("raise", "skip"),
    "data.side": (lambda value: value >= 96, "96 px or more"),
    "data.patch_size": (
        lambda value: _is_whole(value) and 0 <= value <= MAX_SIDE,
        f"a whole number from 0 to {MAX_SIDE} px",
    ),
    "method.width": (lambda value: 0 < value <= 100, "above 0 and up to 100"),
    "data.patches": _one_of("random", "tiles"),
    "data.resize": (
        lambda value: (
            isinstance(value, list)
            and len(value) == 2
            and all(map(_is_whole, value))
            and (value[0] > 0 <= value[1] or not any(value))
        ),
        "(height, width) in px, (n, 0) for a shorter side of n px, or (0, 0) for the original size",
    ),
    "data.input_range": (
        lambda value: len(value) == 2 and (value[0] < value[1] or not any(value)),
        "(black, white) with black below white, or (0, 0) for the range of the files' type",
    ),
    "data.cache_mib": _WHOLE,
    "data.disk_cache_mib": _WHOLE,
    "part.angle": (lambda value: 0 <= value <= 180, "from 0 to 180 degrees"),
    "part.scale": (lambda value: 0 <= value < 1, "0 or more and below 1"),
    "part.overlap": (lambda value: 0 < value <= 1, "above 0 and up to 1"),
    "part.confidence": (lambda value: 0 < value < 1, "between 0 and 1"),
    "holdout.fraction": _SHARE,
    "holdout.few": _AMOUNT,
    "vit_recon.recipe": _one_of("ours", "published"),
    "encoder.dtype": _one_of("float32", "bfloat16", "auto"),
    "encoder.tokens": _COUNT,
    "train.steps": _WHOLE,
    "train.batch_size": _COUNT,
    "train.log_every": _COUNT,
    "train.eval_every": _COUNT,
    "train.heldout_patches": _COUNT,
    "train.select": _one_of("last", "best"),
    "optim.learning_rate": (lambda value: value > 0, "above 0"),
    "optim.warmup": _WHOLE,
    "optim.schedule": _one_of("constant", "cosine"),
    "optim.average": (lambda value: 0 <= value < 1, "0 or more and below 1"),
    "inference.stride": _WHOLE,
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


# For configs/classifier.py.
CLASSIFIER_RULES: Mapping[str, Rule] = {
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
        "between 0 and 1, or None to choose it by cross-validation",
    ),
}


def check_config(config: ConfigDict, rules: Mapping[str, Rule] = RULES) -> None:
    """Check a config for values that would stop a run after its training or falsify its results.

    Raises:
      UserError: If a field has an invalid value. The message says which values are allowed.
    """
    fields = flatten(config.to_dict())
    for name, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{name} is {value}; it must be a finite number.")
    types = [(name, TYPES[name]) for name in fields if name in TYPES]
    for name, (fits, what) in (*types, *rules.items()):
        if not fits(fields[name]):
            raise UserError(f"config.{name} is {fields[name]!r}; it must be {what}.")


def parse_arg(arg: str, **defaults: Any) -> SimpleNamespace:
    """Parse the arguments of `--config file.py:name=value,flag` to the types of their defaults.

    Args:
      arg: Text after the colon. A bare name sets a boolean.
      **defaults: Every argument of the config, with its default.

    Raises:
      UserError: If a name is unknown or a value does not have its default's type.
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
                raise UserError(f"config argument {name} must be true or false, not {text!r}.")
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


PACKAGE = "configs"  # package name under which configs import each other, and folder of ours


def shipped() -> Path:
    """Return the folder of recon_ad's own configs: in the package, or beside it in a clone."""
    inside = Path(__file__).parent / PACKAGE
    return inside if inside.is_dir() else inside.parent.parent / PACKAGE


def shipped_names() -> list[str]:
    """List the configs that come with recon_ad, without the defaults that all share."""
    return sorted({file.stem for file in shipped().glob("*.py")} - {"__init__", "default"})


def find_config(path: str) -> Path:
    """Find a config file: the caller's own, or one that comes with recon_ad.

    Args:
      path: Path of a file, or name of a config that comes with recon_ad, such as "folder". If the
        caller has no file configs/folder.py, that path also means recon_ad's own.

    Raises:
      UserError: If no such config exists.
    """
    own = Path(path)
    if own.suffix == ".py" and own.is_file():
        return own
    here = Path(PACKAGE) if own.suffix == ".py" else Path()
    file = shipped() / f"{own.stem}.py"
    if own.parent == here and file.is_file():
        return file
    raise UserError(
        f"no config file {path}; give the path of a file or one of these names: "
        f"{', '.join(shipped_names())}."
    )


@contextlib.contextmanager
def _importing_each_other(folder: Path) -> Iterator[None]:
    """Allow a config to import others: those of its own folder `configs` first, then recon_ad's.

    Modules that the caller has imported under that name are restored afterwards.
    """

    def of_configs() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] == PACKAGE]

    kept = {name: sys.modules.pop(name) for name in of_configs()}
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    own = [str(folder)] if folder.name == PACKAGE else []
    spec.submodule_search_locations = [*own, str(shipped())]
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        for name in of_configs():
            del sys.modules[name]
        sys.modules.update(kept)


def load_config(spec: str) -> ConfigDict:
    """Load the config `path/to/file.py:arguments` or `name:arguments`, as given to `--config`.

    Raises:
      UserError: If no such file exists or an argument is invalid.
    """
    path, colon, arg = spec.partition(":")
    file = find_config(path)
    module_spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{file.stem}", file)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    with _importing_each_other(file.absolute().parent):
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(
                f"{path} has no get_config, so it is not a config; see the folder configs/."
            )
        return module.get_config(*[arg] * bool(colon)).lock()


class _ConfigParser(flags.ArgumentParser):
    """Parser of --config with `load_config`; that of ml_collections accepts paths but no names."""

    def parse(self, argument: str) -> ConfigDict:
        """Return the config that --config names."""
        return load_config(argument)

    def flag_type(self) -> str:
        """Return the type's name for --helpfull."""
        return "config"


def config_flag(
    default: str | None = None,
    *,
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: list[str] | None = None,
) -> flags.FlagHolder:
    """Define --config, and --config.FIELD for each field of the config that it names.

    Args:
      default: Config to use if none is given. None makes the flag required.
      flag_values: Flags to which it is added.
      argv: Command line that is searched for fields. None uses this process's.
    """
    names = [default] if default else [n for n in shipped_names() if n != "classifier"]
    holder = config_flags.DEFINE_config_file(
        "config",
        help_string=f"{', '.join(names)} or FILE.py, optionally followed by :arguments.",
        flag_values=flag_values,
        sys_argv=argv,
    )
    flag_values["config"].parser = _ConfigParser()
    if default is None:
        flags.mark_flag_as_required("config", flag_values)
    else:
        flag_values.set_default("config", default)
    return holder


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested config to dotted names, such as {"data.path": …}; tuples become lists."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat

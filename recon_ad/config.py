"""Reading configs: --config, typed arguments after the colon, loading by name or path.

A config file is Python with `get_config(arg="")`; `configs/default.py` holds every default. Configs
import each other as `configs.NAME`, wherever they and the caller are.
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

# What `config_flag` defines belongs to the command that calls it, whose --help shows it then.
flags.disclaim_key_flags()

# Whether a value is usable, and which would be.
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
# The type of each field of configs/default.py. Commands give no other, but files may.
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
            "optim.learning_rate inference.sigma inference.border_weight calibration.fpr "
            "calibration.pixel_percentile",
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

MAX_SIDE = 1 << 16  # px, of a tile
_COUNT = (lambda value: _is_whole(value) and value >= 1, "a whole number, 1 or more")
_WHOLE = (lambda value: _is_whole(value) and value >= 0, "a whole number, 0 or more")
_AMOUNT = (lambda value: 0 <= value < math.inf, "0 or more")
_SHARE = (lambda value: 0 < value < 1, "between 0 and 1")
# What a method or a data source checks itself (names of methods, patch sizes) is not here.
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
        "(height, width) in px, (n, 0) for a shorter side of n px, or (0, 0) for the images' own "
        "size",
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
    "vit_recon.recipe": _one_of("ours", "published"),
    "encoder.dtype": _one_of("float32", "bfloat16"),
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


# Of configs/classifier.py.
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
        "between 0 and 1, or None for the best on labels not learnt from",
    ),
}


def check_config(config: ConfigDict, rules: Mapping[str, Rule] = RULES) -> None:
    """Finds at the start what would else stop a run after its training, or mislead it.

    Raises:
      UserError: a field's value is not usable; says which would be.
    """
    fields = flatten(config.to_dict())
    for name, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{name} is {value}; it has to be a finite number.")
    types = [(name, TYPES[name]) for name in fields if name in TYPES]
    for name, (fits, what) in (*types, *rules.items()):
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


PACKAGE = "configs"  # as which configs import each other, and the folder of those that are shipped


def shipped() -> Path:
    """Returns the folder of the configs that come with recon_ad: in it, or beside it in a clone."""
    inside = Path(__file__).parent / PACKAGE
    return inside if inside.is_dir() else inside.parent.parent / PACKAGE


def shipped_names() -> list[str]:
    """Lists the configs that come with recon_ad, without the defaults that all share."""
    return sorted({file.stem for file in shipped().glob("*.py")} - {"__init__", "default"})


def find_config(path: str) -> Path:
    """Finds a config file: the caller's own, or one that comes with recon_ad.

    Args:
      path: of a file; or the name of a config that comes with recon_ad, as folder, for which
        configs/folder.py stands too where the caller has no such file.

    Raises:
      UserError: there is neither.
    """
    own = Path(path)
    if own.suffix == ".py" and own.is_file():
        return own
    here = Path(PACKAGE) if own.suffix == ".py" else Path()
    file = shipped() / f"{own.stem}.py"
    if own.parent == here and file.is_file():
        return file
    raise UserError(
        f"there is no config file {path}; give the path of one, or a name: "
        f"{', '.join(shipped_names())}."
    )


@contextlib.contextmanager
def _importing_each_other(folder: Path) -> Iterator[None]:
    """Lets a config import those that come with recon_ad, and first those of its folder `configs`.

    What the caller has imported under that name is put back afterwards.
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
    """The config of `path/to/file.py:arguments` or `name:arguments`, as `--config` takes it.

    Raises:
      UserError: no such file, or an argument it does not have.
    """
    path, colon, arg = spec.partition(":")
    file = find_config(path)
    module_spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{file.stem}", file)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    with _importing_each_other(file.absolute().parent):
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{path} has no get_config: it is no config; see the folder configs/.")
        return module.get_config(*[arg] * bool(colon)).lock()


class _ConfigParser(flags.ArgumentParser):
    """Reads a config as `load_config` does, in place of ml_collections, which knows no names."""

    def parse(self, argument: str) -> ConfigDict:
        """Returns the config that --config names."""
        return load_config(argument)

    def flag_type(self) -> str:
        """Returns what --helpfull calls it."""
        return "config"


def config_flag(
    default: str | None = None,
    *,
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: list[str] | None = None,
) -> flags.FlagHolder:
    """Defines --config, and --config.FIELD for each field of the config that it names.

    Args:
      default: config where none is given; None: one has to be.
      flag_values: that it is added to.
      argv: command line on which fields are looked for; None: this process's.
    """
    names = [default] if default else [n for n in shipped_names() if n != "classifier"]
    holder = config_flags.DEFINE_config_file(
        "config",
        help_string=f"{', '.join(names)} or FILE.py, each with :arguments behind it.",
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
    """{"data.path": …} of a nested config."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat

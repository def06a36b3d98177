"""Train every combination of lists of settings, one run after another, and compare them.

    python -m recon_ad.sweep --config configs/folder.py:path=DIR --workdir runs/sweep \\
        --sweep method=cae,vae --sweep seed=0,1,2 --config.train.steps=2000

A list is for an argument of the config, or for a field, as in
`config.optim.learning_rate=1e-3,5e-4`. Commas separate values except inside brackets, as in
`--sweep 'config.data.resize=(128,128),(0,0)'`.

Each combination is a `python -m recon_ad.train` in a folder of the workdir that is named after it,
such as `method=cae,seed=0`. The same command skips finished runs and continues with the rest. A
failed run does not stop the others; it is named at the end, and the exit status is then 1. The
comparison is written to `compare.md` and `compare.html` in the workdir, as by `recon_ad.compare`.

With `--index I` only combination I runs, counted from 0, for example as one job of an array:

    sbatch --array=0-5 --wrap 'python -m recon_ad.sweep … --index $SLURM_ARRAY_TASK_ID'

The same command without `--index` then writes the comparison.
"""

import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from recon_ad import cli
from recon_ad.comparing import write_comparison
from recon_ad.config import config_flag
from recon_ad.errors import UserError
from recon_ad.runtime.stopping import Stop, on_signals
from recon_ad.training.run import check_run
from recon_ad.training.same_run import check_same_run

logger = logging.getLogger("recon_ad")

FIELD = "config."  # prefix of a field's name; an argument's has none
BRACKETS = {"(": ")", "[": "]", "{": "}"}
LOOK = 0.2  # s between two checks of the run and of the stop signal

Combination = dict[str, str]  # value by the name of the argument or field


def split_values(text: str) -> list[str]:
    """Split a list into its values, at the commas outside brackets.

    Raises:
      UserError: If a value is empty or the brackets do not match.
    """
    values, closing = [""], []
    for character in text:
        if character == "," and not closing:
            values.append("")
            continue
        values[-1] += character
        if character in BRACKETS:
            closing.append(BRACKETS[character])
        elif character in BRACKETS.values() and (not closing or closing.pop() != character):
            closing = [character]  # an unmatched closing bracket
            break
    if closing:
        raise UserError(
            f"--sweep …={text}: the brackets do not match; see python -m recon_ad.sweep --help."
        )
    values = [value.strip() for value in values]
    if not all(values):
        raise UserError(f"--sweep …={text}: a value is empty; write a list such as seed=0,1,2.")
    return values


def combinations(lists: Sequence[str]) -> list[Combination]:
    """Return all combinations of the lists' values, the last list varying fastest.

    Args:
      lists: Lists, each written as "name=value,value".

    Raises:
      UserError: If one is not a list, or two have the same name.
    """
    found: dict[str, list[str]] = {}
    for text in lists:
        name, equals, values = text.partition("=")
        if not name or not equals:
            raise UserError(f"--sweep {text} is not a list; write it as in --sweep seed=0,1,2.")
        if name in found:
            raise UserError(f"--sweep {name}= was given twice; give one list with all values.")
        found[name] = split_values(values)
    return [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]


def folder_name(combination: Combination) -> str:
    """Return the name of a run's folder: its values, in characters that need no quoting."""
    parts = []
    for name, value in combination.items():
        plain = "".join(c if c.isalnum() or c in "._+-" else " " for c in value)
        parts.append(f"{name.removeprefix(FIELD)}={'_'.join(plain.split())}")
    return ",".join(parts)


def arguments(spec: str, overrides: Mapping[str, Any], combination: Combination) -> list[str]:
    """Return the arguments of `recon_ad.train` for a combination, without its workdir.

    Args:
      spec: The config, with the arguments that all runs share.
      overrides: Fields that all runs share, by their dotted names.
      combination: Values that take precedence over both.
    """
    swept = {n.removeprefix(FIELD): v for n, v in combination.items() if n.startswith(FIELD)}
    path, _, shared = spec.partition(":")
    given = [f"{n}={v}" for n, v in combination.items() if not n.startswith(FIELD)]
    spec = ":".join(filter(None, [path, ",".join(filter(None, [shared, *given]))]))
    fields = {**overrides, **swept}
    return [f"--config={spec}", *(f"--config.{name}={value}" for name, value in fields.items())]


def config_of(given: Sequence[str]) -> ConfigDict:
    """Return the config that `recon_ad.train` reads from these arguments.

    Raises:
      UserError: If that command would reject them.
    """
    argv = ["recon_ad.train", *given]
    values = flags.FlagValues()
    config_flag(flag_values=values, argv=argv)
    try:
        values(argv)
    except cli.WRONG_FLAGS as error:
        raise UserError(f"{' '.join(given)}: {cli.sentence(error)}") from None
    config = values["config"].value
    check_run(config)
    return config


def run_one(command: Sequence[str], stop: Stop) -> int:
    """Run a command until it ends or a stop is requested, and return its exit status."""
    child = subprocess.Popen(command)
    while child.poll() is None:
        if stop.wait(LOOK):
            child.terminate()
            child.wait()
    # Shells report a process that was ended by a signal in the same way.
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def sweep(runs: Mapping[Path, Sequence[str]], workdir: Path) -> int:
    """Run all unfinished runs, compare all runs, and return the exit status.

    Args:
      runs: Arguments of `recon_ad.train` by the run's folder.
      workdir: Folder to which the comparison is written.
    """
    stop = on_signals()
    failed = {}
    for i, (folder, given) in enumerate(runs.items(), 1):
        if (folder / "metrics.json").is_file():  # a run writes it last
            logger.info("%d of %d, %s: finished", i, len(runs), folder.name)
            continue
        logger.info("%d of %d, %s", i, len(runs), folder.name)
        status = run_one(_command(folder, given), stop)
        if stop.asked:
            return status or 1
        if status:
            failed[folder] = status
    if any((folder / "metrics.json").is_file() for folder in runs):
        begun = [folder for folder in runs if (folder / "config.json").is_file()]
        print(write_comparison(begun, workdir), end="")
        logger.info("page: %s", workdir / "compare.html")
    for folder, status in failed.items():
        logger.error("failed: %s, with exit status %d; see its error above", folder.name, status)
    return 1 if failed else 0


def _command(folder: Path, given: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "recon_ad.train", *given, f"--workdir={folder}"]


def main() -> int:
    """Run the command."""
    flag = flags.FLAGS["config"]
    spec, overrides = config_flags.get_config_filename(flag), config_flags.get_override_values(flag)
    workdir, index = Path(_WORKDIR.value), _INDEX.value
    all_of_them = combinations(_SWEEP.value)
    runs = {workdir / folder_name(c): arguments(spec, overrides, c) for c in all_of_them}
    if len(runs) < len(all_of_them):
        raise UserError(
            f"{len(all_of_them)} combinations would share {len(runs)} folders: give each value "
            "once; values must differ in their letters and digits."
        )
    if index is not None and not 0 <= index < len(runs):
        raise UserError(
            f"--index {index}: the sweep has {len(runs)} combinations; give a number from 0 to "
            f"{len(runs) - 1}."
        )
    # All configs are built before the first run, so that mistakes show at once.
    for folder, given in runs.items():
        config = config_of(given)
        if (folder / "config.json").is_file():
            check_same_run(folder, "config.json", json.loads(config.to_json()))
    if index is None:
        return sweep(runs, workdir)
    folder, given = list(runs.items())[index]
    command = _command(folder, given)
    # The training replaces this process, so that it receives the signals and sets the exit status.
    os.execv(command[0], command)


if __name__ == "__main__":
    config_flag()
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the runs.", required=True)
    _SWEEP = flags.DEFINE_multi_string(
        "sweep", None, "One list, as name=value,value. May be repeated.", required=True
    )
    _INDEX = flags.DEFINE_integer("index", None, "Run only this combination, counted from 0.")
    cli.run(main)

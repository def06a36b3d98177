"""Trains every combination of lists of settings, run after run, and compares them.

    python -m recon_ad.sweep --config configs/folder.py:path=DIR --workdir runs/sweep \\
        --sweep method=cae,vae --sweep seed=0,1,2 --config.train.steps=2000

What is swept is an argument of the config, or a field as `config.optim.learning_rate=1e-3,5e-4`.
Commas separate values unless they stand in brackets, as in
`--sweep 'config.data.resize=(128,128),(0,0)'`.

Each combination is a `python -m recon_ad.train` in a folder of the workdir that is named by it, as
`method=cae,seed=0`. The same command again keeps what is finished and goes on with the rest. One
that fails stops no other; it is named at the end, and the exit status is then 1. `compare.md` and
`compare.html` in the workdir are what `recon_ad.compare` makes of them.

With `--index I` only the combination I is run, counted from 0, as a job of its own:

    sbatch --array=0-5 --wrap 'python -m recon_ad.sweep … --index $SLURM_ARRAY_TASK_ID'

The command without it then writes the comparison.
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

FIELD = "config."  # how the name of a field begins, where an argument's does not
BRACKETS = {"(": ")", "[": "]", "{": "}"}
LOOK = 0.2  # s between two looks at a run and at whether to stop

Combination = dict[str, str]  # value by the name of what is swept


def split_values(text: str) -> list[str]:
    """The values of a list, at its commas outside of brackets.

    Raises:
      UserError: a value is empty, or a bracket is not closed.
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
            closing = [character]  # one too many, which nothing closes
            break
    if closing:
        raise UserError(
            f"--sweep …={text}: its brackets do not match; see python -m recon_ad.sweep --help."
        )
    values = [value.strip() for value in values]
    if not all(values):
        raise UserError(f"--sweep …={text}: a value is empty; write them as in seed=0,1,2.")
    return values


def combinations(lists: Sequence[str]) -> list[Combination]:
    """All of them, the last list varying fastest.

    Args:
      lists: each "name=value,value".

    Raises:
      UserError: one is no list, or two have the same name.
    """
    found: dict[str, list[str]] = {}
    for text in lists:
        name, equals, values = text.partition("=")
        if not name or not equals:
            raise UserError(f"--sweep {text} is no list; write it as in --sweep seed=0,1,2.")
        if name in found:
            raise UserError(f"--sweep {name}= was given twice; give one list of its values.")
        found[name] = split_values(values)
    return [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]


def folder_name(combination: Combination) -> str:
    """Of its run: what differs, in characters that need no quoting."""
    parts = []
    for name, value in combination.items():
        plain = "".join(c if c.isalnum() or c in "._+-" else " " for c in value)
        parts.append(f"{name.removeprefix(FIELD)}={'_'.join(plain.split())}")
    return ",".join(parts)


def arguments(spec: str, overrides: Mapping[str, Any], combination: Combination) -> list[str]:
    """What `recon_ad.train` is given for a combination, beside its workdir.

    Args:
      spec: of the config, with the arguments that all runs share.
      overrides: fields that all runs share, by dotted names.
      combination: stands above both.
    """
    swept = {n.removeprefix(FIELD): v for n, v in combination.items() if n.startswith(FIELD)}
    path, _, shared = spec.partition(":")
    given = [f"{n}={v}" for n, v in combination.items() if not n.startswith(FIELD)]
    spec = ":".join(filter(None, [path, ",".join(filter(None, [shared, *given]))]))
    fields = {**overrides, **swept}
    return [f"--config={spec}", *(f"--config.{name}={value}" for name, value in fields.items())]


def config_of(given: Sequence[str]) -> ConfigDict:
    """The config that `recon_ad.train` reads from these arguments.

    Raises:
      UserError: as that command would end.
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
    """Runs a command to its end, or until it is to stop; the exit status."""
    child = subprocess.Popen(command)
    while child.poll() is None:
        if stop.wait(LOOK):
            child.terminate()
            child.wait()
    # As shells do for what a signal ended.
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def sweep(runs: Mapping[Path, Sequence[str]], workdir: Path) -> int:
    """Runs what is not finished, and compares; the exit status.

    Args:
      runs: arguments of `recon_ad.train` by the run's folder.
      workdir: where the comparison is written.
    """
    stop = on_signals()
    failed = {}
    for i, (folder, given) in enumerate(runs.items(), 1):
        if (folder / "metrics.json").is_file():  # written last
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
        logger.error("failed: %s, with exit status %d; see above why", folder.name, status)
    return 1 if failed else 0


def _command(folder: Path, given: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "recon_ad.train", *given, f"--workdir={folder}"]


def main() -> int:
    """Runs the command."""
    flag = flags.FLAGS["config"]
    spec, overrides = config_flags.get_config_filename(flag), config_flags.get_override_values(flag)
    workdir, index = Path(_WORKDIR.value), _INDEX.value
    all_of_them = combinations(_SWEEP.value)
    runs = {workdir / folder_name(c): arguments(spec, overrides, c) for c in all_of_them}
    if len(runs) < len(all_of_them):
        raise UserError(
            f"{len(all_of_them)} combinations would share {len(runs)} folders: give each value "
            "once, in letters and digits that tell it from the others."
        )
    if index is not None and not 0 <= index < len(runs):
        raise UserError(
            f"--index {index}: there are {len(runs)} combinations, 0 to {len(runs) - 1}."
        )
    # All configs are made before the first run: a mistake shows at once.
    for folder, given in runs.items():
        config = config_of(given)
        if (folder / "config.json").is_file():
            check_same_run(folder, "config.json", json.loads(config.to_json()))
    if index is None:
        return sweep(runs, workdir)
    folder, given = list(runs.items())[index]
    command = _command(folder, given)
    # In this process's place: signals and the exit status are the training's own.
    os.execv(command[0], command)


if __name__ == "__main__":
    config_flag()
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the runs.", required=True)
    _SWEEP = flags.DEFINE_multi_string(
        "sweep", None, "name=value,value; once for each list.", required=True
    )
    _INDEX = flags.DEFINE_integer("index", None, "Run this combination only, counted from 0.")
    cli.run(main)

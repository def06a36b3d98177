"""Whether a workdir holds the run that is asked for, which then goes on."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from recon_ad.config import flatten
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, WITH_ENCODER
from recon_ad.methods.features import RANDOM
from recon_ad.runtime import files
from recon_ad.runtime import mesh as meshes

CONFIG = "config.json"  # of a run
# Where the images are on a machine, and how much of them it keeps at hand: the same run elsewhere.
PLACES = ("path", "category", "images", "prepared", "cache_mib", "disk_cache_mib")
# Of a run in its own workdir, whose data.json has digests of images, template and background, and
# whose detector has those of an encoder.
ELSEWHERE = (
    *(f"data.{name}" for name in PLACES if name != "category"),  # which names the images
    *("part.template", "part.background"),
)


def same_run(
    workdir: Path, config: ConfigDict, data: Mapping[str, Any], *, unknown: Sequence[str] = ()
) -> None:
    """Begins a run with its config.json and data.json; every host calls it.

    Args:
      workdir: of the run.
      config: of the run.
      data: what tells its images from others.
      unknown: entries of data.json that are not compared.

    Raises:
      UserError: the workdir holds another run.
    """
    described = {CONFIG: json.loads(config.to_json()), "data.json": dict(data)}
    for name, content in described.items():
        check = functools.partial(check_same_run, workdir, name, content, unknown=unknown)
        if (workdir / name).is_file():
            check(begin=False)  # on all hosts, of which none waits then for one that found fault
        meshes.on_first_host(check)
        check(begin=False)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, but: Sequence[str] = ()
) -> list[str]:
    """One "name: old → new" for each field in which two configs differ, `but` some."""
    a, b = flatten(old), flatten(new)
    absent = "(absent)"
    return [
        f"{name}: {a.get(name, absent)} → {b.get(name, absent)}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name, absent) != b.get(name, absent) and name not in but
    ]


def check_same_run(
    workdir: Path,
    name: str,
    content: dict[str, Any],
    *,
    begin: bool = True,
    unknown: Sequence[str] = (),
) -> None:
    """Writes workdir/name, or checks that the run in the workdir began with the same.

    Args:
      workdir: of the run.
      name: of the file.
      content: what it holds.
      begin: whether it is written where there is none.
      unknown: what else a file may hold, and is not compared.

    Raises:
      UserError: it began with another; says in what they differ. Or there is none, without `begin`.
    """
    path = workdir / name
    if not path.is_file():
        if not begin:
            raise UserError(
                f"{path} is on the first host only: give all hosts the same --workdir, on a file "
                "system that they share."
            )
        files.write_json(path, content)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path} is damaged ({error}): choose another --workdir.") from None
    if not isinstance(before, dict):
        raise UserError(f"{path} is damaged (it holds no object): choose another --workdir.")
    kept = {k: v for k, v in before.items() if k not in unknown}
    changed = differences(kept, content, but=ELSEWHERE if name == CONFIG else ())
    if changed:
        raise UserError(
            f"{workdir} holds a run with another {path.stem} ({'; '.join(changed[:5])}): "
            "choose another --workdir, or delete this one to start anew."
        )


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config, as JSON has it, without what is a machine's own, or of no concern to its method."""
    method = config["method"]["name"]
    others = METHODS.keys() - {method}
    content = {name: value for name, value in config.items() if name not in others}
    if method not in WITH_ENCODER:
        del content["encoder"]
    elif config["encoder"]["weights"] != RANDOM:  # where they lie; a run has their checksum
        content["encoder"] = {k: v for k, v in config["encoder"].items() if k != "weights"}
    # Of files, which lie elsewhere on another machine, only whether there are any.
    files = {name: bool(config["part"][name]) for name in ("template", "background")}
    content["part"] = {**config["part"], **files}
    content["data"] = {k: v for k, v in config["data"].items() if k not in PLACES}
    return content

"""The check that a workdir holds the requested run, which then resumes."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from recon_ad.config import flatten
from recon_ad.detector.older import with_later_fields
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, WITH_ENCODER
from recon_ad.methods.features import RANDOM
from recon_ad.runtime import files
from recon_ad.runtime import mesh as meshes

CONFIG = "config.json"  # name of a run's config file
# Places of the images on a machine and sizes of its caches, which may differ in the same run.
PLACES = ("path", "category", "images", "prepared", "cache_mib", "disk_cache_mib")
# Fields that may differ in a run's own workdir: data.json has digests of images, template and
# background, and the detector has those of an encoder.
ELSEWHERE = (
    *(f"data.{name}" for name in PLACES if name != "category"),  # the category names the images
    *("part.template", "part.background"),
)


def same_run(
    workdir: Path, config: ConfigDict, data: Mapping[str, Any], *, unknown: Sequence[str] = ()
) -> None:
    """Write a run's config.json and data.json, or check them; every host calls this function.

    Args:
      workdir: Directory of the run.
      config: Config of the run.
      data: Entries that distinguish its images from others.
      unknown: Entries of data.json that are not compared.

    Raises:
      UserError: If the workdir holds another run.
    """
    described = {CONFIG: json.loads(config.to_json()), "data.json": dict(data)}
    for name, content in described.items():
        check = functools.partial(check_same_run, workdir, name, content, unknown=unknown)
        if (workdir / name).is_file():
            check(begin=False)  # on all hosts, so that none waits for a host that raised
        meshes.on_first_host(check)
        check(begin=False)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, but: Sequence[str] = ()
) -> list[str]:
    """Return one "name: old → new" for each field in which two configs differ, except `but`."""
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
    """Write workdir/name, or check that the run in the workdir began with the same content.

    Args:
      workdir: Directory of the run.
      name: Name of the file.
      content: Content of the file.
      begin: Whether to write the file if it is absent.
      unknown: Further entries of the file, which are not compared.

    Raises:
      UserError: If the run began with different content, or the file is absent and `begin` is
        False. The message lists the differences.
    """
    path = workdir / name
    if not path.is_file():
        if not begin:
            raise UserError(
                f"{path} is on the first host only: give all hosts the same --workdir on a shared "
                "file system."
            )
        files.write_json(path, content)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path} is damaged ({error}): choose another --workdir.") from None
    if not isinstance(before, dict):
        raise UserError(f"{path} is damaged (not a JSON object): choose another --workdir.")
    kept = {k: v for k, v in before.items() if k not in unknown}
    if name == CONFIG:
        kept = with_later_fields(kept)
    changed = differences(kept, content, but=ELSEWHERE if name == CONFIG else ())
    if changed:
        raise UserError(
            f"{workdir} holds a run with another {path.stem} ({'; '.join(changed[:5])}): "
            "choose another --workdir, or delete this one to start over."
        )


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's JSON without fields that concern only the machine or other methods."""
    method = config["method"]["name"]
    others = METHODS.keys() - {method}
    content = {name: value for name, value in config.items() if name not in others}
    if method not in WITH_ENCODER:
        del content["encoder"]
    elif config["encoder"]["weights"] != RANDOM:  # a path; a run has the weights' checksum
        content["encoder"] = {k: v for k, v in config["encoder"].items() if k != "weights"}
    # Files have other paths on other machines, so only their presence counts.
    files = {name: bool(config["part"][name]) for name in ("template", "background")}
    content["part"] = {**config["part"], **files}
    content["data"] = {k: v for k, v in config["data"].items() if k not in PLACES}
    return content

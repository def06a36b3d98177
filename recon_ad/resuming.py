"""Whether a workdir holds the run that is asked for, which then goes on."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from recon_ad.config import check_same_run
from recon_ad.runtime import mesh as meshes


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
    described = {"config.json": json.loads(config.to_json()), "data.json": dict(data)}
    for name, content in described.items():
        check = functools.partial(check_same_run, workdir, name, content, unknown=unknown)
        if (workdir / name).is_file():
            check(begin=False)  # on all hosts, of which none waits then for one that found fault
        meshes.on_first_host(check)
        check(begin=False)

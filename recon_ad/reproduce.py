"""Reproduces a paper's table, ours beside the paper's: NAME.md, NAME.json, pictures.

    python -m recon_ad.reproduce --table schneider2022 --scale cpu --workdir runs/schneider2022
    python -m recon_ad.reproduce --table mvtec_ad --workdir runs/mvtec_ad --data FOLDER

The same command again goes on where it stopped, also on another machine that has only NAME.json.
"""

import signal
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.data.locate import check_weights
from recon_ad.runtime import stopping
from recon_ad.runtime.compilation import keep_compiled
from recon_ad.tables import TABLES
from recon_ad.tables.run import run_table


def main() -> None:
    """Runs the command."""
    keep_compiled()
    signal.signal(signal.SIGTERM, stopping.requeue)
    run_table(
        TABLES[_TABLE.value],
        scale=_SCALE.value,
        workdir=Path(_WORKDIR.value),
        data=Path(_DATA.value).expanduser() if _DATA.value else None,
        weights=check_weights(Path(_WEIGHTS.value).expanduser()) if _WEIGHTS.value else None,
    )


if __name__ == "__main__":
    _TABLE = flags.DEFINE_enum("table", None, list(TABLES), "Which table.", required=True)
    _SCALE = flags.DEFINE_enum(
        "scale", "cpu", ["cpu", "paper"], "cpu: an hour or two on two cores; paper: for a GPU."
    )
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the runs.", required=True)
    _DATA = flags.DEFINE_string(
        "data", "", "Folder with the data sets, in the MVTec layout; others are null."
    )
    _WEIGHTS = flags.DEFINE_string(
        "weights", "", "Folder with a folder of each encoder's name; else they are fetched."
    )
    cli.run(main)

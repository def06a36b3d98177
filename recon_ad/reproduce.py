"""Reproduce a paper's table beside the published figures: NAME.md, NAME.json, pictures.

    python -m recon_ad.reproduce --table schneider2022 --scale cpu --workdir runs/schneider2022
    python -m recon_ad.reproduce --table mvtec_ad --workdir runs/mvtec_ad --data FOLDER

The same command resumes where it stopped, even on another machine that has only NAME.json.
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
    """Run the command."""
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
    _TABLE = flags.DEFINE_enum("table", None, list(TABLES), "Table to reproduce.", required=True)
    _SCALE = flags.DEFINE_enum(
        "scale",
        "cpu",
        ["cpu", "long", "paper"],
        "cpu takes an hour or two on two cores, long a night or more; paper needs a GPU.",
    )
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the runs.", required=True)
    _DATA = flags.DEFINE_string(
        "data",
        "",
        "Folder with the data sets in the MVTec layout; without its data, a cell is null.",
    )
    _WEIGHTS = flags.DEFINE_string(
        "weights", "", "Folder with one folder per encoder; by default weights are downloaded."
    )
    cli.run(main)

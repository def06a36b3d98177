"""Build a table of two tiny runs in the way `recon_ad.reproduce` builds the papers' tables.

    python -m benchmarks.robustness.small_table --workdir WORKDIR

benchmarks/robustness/kills.py kills it.
"""

import signal
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.runtime import stopping
from recon_ad.runtime.compilation import keep_compiled
from recon_ad.tables.base import Cell, Column, Table
from recon_ad.tables.run import run_table

FIELDS = {
    "train.steps": 6, "train.eval_every": 2, "train.batch_size": 4, "evaluation.bootstrap": 20,
    "evaluation.panels": 1,
}  # fmt: skip
TABLE = Table(
    "small",
    "A small table",
    (Column("iou_max_oracle", "IoU", 4), Column("image_auroc", "image AUROC")),
    lambda scale, data: [
        Cell(name, "cae", 0, "configs/folder.py", {"smoke": "true"}, fields=FIELDS | of)
        for name, of in (("chess", {}), ("noise", {"data.name": "noise"}))
    ],
)


def main() -> None:
    """Run the table."""
    keep_compiled()
    signal.signal(signal.SIGTERM, stopping.requeue)
    run_table(TABLE, scale="cpu", workdir=Path(_WORKDIR.value))


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the runs.", required=True)
    cli.run(main)

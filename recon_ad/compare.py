"""Compare finished runs in a table (compare.md) and on a page (compare.html).

    python -m recon_ad.compare runs/cae runs/vae runs/sweep --output runs/compared

The table is also printed. A folder that is not itself a run, such as that of a sweep, stands for
the runs in it. Runs that differ only in the seed form one row with their mean and, for two or more
seeds, a 95 % interval from Student's t distribution.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.comparing import write_comparison
from recon_ad.errors import UserError

logger = logging.getLogger("recon_ad")


def main(words: Sequence[str]) -> None:
    """Run the command on its arguments, the folders of runs."""
    if not words:
        raise UserError("no run was given: write python -m recon_ad.compare RUN… --output FOLDER.")
    output = Path(_OUTPUT.value)
    print(write_comparison([Path(word) for word in words], output), end="")
    logger.info("page: %s", output / "compare.html")


if __name__ == "__main__":
    _OUTPUT = flags.DEFINE_string("output", None, "Folder for the table and page.", required=True)
    cli.run(main, words=True)

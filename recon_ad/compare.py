"""Compares finished runs in a table, also in compare.md, and on a page, compare.html.

    python -m recon_ad.compare runs/cae runs/vae runs/sweep --output runs/compared

A folder that is no run stands for the runs in it, as that of a sweep does.
Runs that differ in nothing but the seed form one row: the mean, with a 95 % interval by Student's t
where there are two seeds or more.
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
    """Runs the command."""
    if not words:
        raise UserError("no run was given: python -m recon_ad.compare RUN… --output FOLDER.")
    output = Path(_OUTPUT.value)
    print(write_comparison([Path(word) for word in words], output), end="")
    logger.info("page: %s", output / "compare.html")


if __name__ == "__main__":
    _OUTPUT = flags.DEFINE_string("output", None, "Folder of the table and page.", required=True)
    cli.run(main, words=True)

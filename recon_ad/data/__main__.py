"""Tells of a folder of images before one trains on it.

    python -m recon_ad.data check PATH [--category=NAME]

prints what would spoil a training or its figures, each with what to do about it, and what there is:
counts, sizes, channels, masks, and how well good and defective test images can be told apart
without any model. PATH is a folder in the MVTec layout, a folder of such folders (and NAME one of
them), or a folder of good images. Nothing is written and no JAX is needed.

Exit status: 0, also where there is something to look at; 3 where something has to be mended (files
that cannot be used, masks of another size than their image, the same picture in train and test or
under two labels); 2 for a mistake in the command.
"""

import os
import sys
from collections.abc import Sequence

from absl import flags

from recon_ad import cli
from recon_ad.data.checking.check import as_text, check_folder
from recon_ad.errors import UserError

MEND = 3  # exit status when something has to be mended
USAGE = "python -m recon_ad.data check PATH [--category=NAME]"


def main(words: Sequence[str]) -> int:
    """The command: `check` and the folder."""
    if words[:1] != ["check"]:
        given = f"{words[0]!r} is no command here" if words else "no command was given"
        raise UserError(f"{given}: write {USAGE}.")
    if len(words) != 2:
        given = "no folder was given" if len(words) < 2 else f"one folder too many: {words[2]!r}"
        raise UserError(f"{given}: write {USAGE}.")
    report = check_folder(words[1], category=_CATEGORY.value)
    try:
        # A name that is no UTF-8 is escaped, whatever the terminal thinks of it.
        print(as_text(report).encode(errors="backslashreplace").decode(), flush=True)
    except BrokenPipeError:  # as of `| head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return MEND if report.mend else 0


if __name__ == "__main__":
    _CATEGORY = flags.DEFINE_string("category", "", "Folder below PATH that is checked.")
    cli.run(main, words=True)

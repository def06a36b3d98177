"""Checks a folder of images before one trains on it.

    python -m recon_ad.check PATH [--category=NAME]

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
from recon_ad.checking.check import as_text, check_folder
from recon_ad.errors import UserError
from recon_ad.runtime.terminal import escaped

MEND = 3  # exit status when something has to be mended


def main(words: Sequence[str]) -> int:
    """Runs the command on the one folder that it is given."""
    if len(words) != 1:
        given = "no folder was given" if not words else f"one folder too many: {words[1]!r}"
        raise UserError(f"{given}: write python -m recon_ad.check PATH [--category=NAME].")
    report = check_folder(words[0], category=_CATEGORY.value)
    try:
        # A name that is no UTF-8 is escaped, whatever the terminal thinks of it.
        shown = escaped(as_text(report), keep="\n")
        print(shown.encode(errors="backslashreplace").decode(), flush=True)
    except BrokenPipeError:  # as of `| head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return MEND if report.mend else 0


if __name__ == "__main__":
    _CATEGORY = flags.DEFINE_string("category", "", "Folder below PATH that is checked.")
    cli.run(main, words=True)

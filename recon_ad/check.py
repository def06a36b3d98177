"""Check a folder of images before training on it.

    python -m recon_ad.check PATH [--category=NAME]

The report names everything that would spoil the training or its metrics and says what to do about
it. It also lists counts, sizes, channels and masks, and how well good and defective test images can
be told apart without any model. PATH is a folder in the MVTec layout, a folder of such folders
(NAME selects one of them), or a folder of good images. Nothing is written, and JAX is not needed.

The exit status is 0 if training is possible, even with warnings; 3 if something must be fixed first
(unusable files, masks whose size differs from their image's, the same picture in train and test or
under two labels); and 2 for a mistake in the command.
"""

import os
import sys
from collections.abc import Sequence

from absl import flags

from recon_ad import cli
from recon_ad.checking.check import as_text, check_folder
from recon_ad.errors import UserError
from recon_ad.runtime.terminal import escaped

MEND = 3  # exit status when something must be fixed


def main(words: Sequence[str]) -> int:
    """Run the command on its one argument, the folder."""
    if len(words) != 1:
        given = "no folder was given" if not words else f"one folder too many: {words[1]!r}"
        raise UserError(f"{given}: write python -m recon_ad.check PATH [--category=NAME].")
    report = check_folder(words[0], category=_CATEGORY.value)
    try:
        # File names that are not valid UTF-8 are escaped, even if the terminal could show them.
        shown = escaped(as_text(report), keep="\n")
        print(shown.encode(errors="backslashreplace").decode(), flush=True)
    except BrokenPipeError:  # the reader has closed the pipe, for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return MEND if report.mend else 0


if __name__ == "__main__":
    _CATEGORY = flags.DEFINE_string("category", "", "Check only this folder below PATH.")
    cli.run(main, words=True)

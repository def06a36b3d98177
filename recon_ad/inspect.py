"""Judges images as they arrive in a folder.

    python -m recon_ad.inspect --detector D/detector --watch FOLDER --output O
    python -m recon_ad.inspect --onnx M.onnx [--runtime openvino] --watch … --output …

writes a row for each image to O/line.sqlite (`recon_ad.line.store`), once, however often it
is stopped, killed and started again, and the overlay of each image to O/good or O/reject before its
row. An image that cannot be judged has a row with its error; when its file changes within minutes,
as one that was half written does, it is judged again and has that row.

**Back-pressure.** The folder is the queue: nothing is dropped, one image is judged at a time, the
oldest first. How many were waiting stands in each row, and a growing queue is told. Images are
never moved or deleted; whoever writes them tidies up.

A file that exists but cannot be read just now (EIO, EACCES, ESTALE and the like, as network drives
give) is tried again for a minute, and others meanwhile, before its error is its row.

Before an image is opened the attempt is noted: one that ended the process twice is a broken file at
the third start. One that takes longer than --seconds, or makes the process grow by more than
--memory GiB, is a broken file, too, and the command starts itself anew; a decoder at work cannot be
ended otherwise.

When the disk is full, or another program holds the table, it waits and tries the same image again.
SIGTERM and SIGINT let the image that is being judged finish; the exit status is then 0.

The log names each reject with its score, some twenty a minute at most, and says once a minute how
many images were judged and rejected.
"""

import logging
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.detector.open import detector_flags
from recon_ad.errors import UserError
from recon_ad.line.run import MEMORY, SECONDS, run_line
from recon_ad.runtime.stopping import on_signals
from recon_ad.runtime.waiting import exclusive_lock

logger = logging.getLogger("recon_ad")


def main() -> int:
    """Runs the command."""
    folder = Path(_WATCH.value)
    if folder.is_file():
        raise UserError(
            f"--watch {folder} is a file: give the folder in which images arrive; "
            "recon_ad.predict judges a file."
        )
    if not folder.is_dir():
        raise UserError(f"--watch {folder}: there is no such folder.")
    output = Path(_OUTPUT.value)
    inner, outer = output.resolve(), folder.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(
            f"--output {output} and --watch {folder} lie one in the other, so that overlays would "
            "be judged: give another."
        )
    stop = on_signals()
    detector = _DETECTOR.open()
    logger.info("watching %s", folder)
    with exclusive_lock(output / "inspect.lock"):
        tally = run_line(
            detector, folder, output, stop=stop, seconds=_SECONDS.value, gib=_MEMORY.value
        )
    logger.info("stopped after %s; see %s", str(tally), output)
    return 0


if __name__ == "__main__":
    _DETECTOR = detector_flags()
    _WATCH = flags.DEFINE_string("watch", None, "Folder in which images arrive.", required=True)
    _OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
    _SECONDS = flags.DEFINE_float(
        "seconds", SECONDS, "The most that judging an image may take.", lower_bound=1.0
    )
    _MEMORY = flags.DEFINE_float(
        "memory", MEMORY, "GiB by which it may make the process grow (Linux).", lower_bound=0.1
    )
    cli.run(main)

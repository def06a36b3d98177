"""Judge images as they arrive in a folder.

    python -m recon_ad.inspect --detector D/detector --watch FOLDER --output O
    python -m recon_ad.inspect --onnx M.onnx [--runtime openvino] --watch … --output …

Each image gets exactly one row in O/line.sqlite (`recon_ad.line.store`), however often the command
is stopped, killed and restarted. Its overlay is written to O/good or O/reject before the row. An
image that cannot be judged gets a row with its error. If its file changes within minutes, as a
half-written file does, it is judged again and its row is replaced.

**Back-pressure.** The folder is the queue. Nothing is dropped, and images are judged one at a time,
oldest first. Each row records how many images were waiting, and a growing queue is logged. Images
are never moved or deleted; the program that writes them must also clean up.

A file that exists but temporarily cannot be read (EIO, EACCES or ESTALE, for example on a network
drive) is retried for a minute while other images are judged. Then its error becomes its row.

Each attempt is recorded before the image is opened, so that an image that ended the process twice
counts as a broken file at the third start. An image that takes longer than --seconds, or makes the
process grow by more than --memory GiB, also counts as broken. The command then restarts itself,
because nothing else stops a running decoder.

If the disk is full or another program holds the table, the command waits and tries the same image
again. On SIGTERM and SIGINT it finishes the current image and exits with status 0.

The log names each reject with its score, about twenty a minute at most, and reports once a minute
how many images were judged and rejected.
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
    """Run the command."""
    folder = Path(_WATCH.value)
    if folder.is_file():
        raise UserError(
            f"--watch {folder} is a file: give the folder in which images arrive, or use "
            "recon_ad.predict to judge a file."
        )
    if not folder.is_dir():
        raise UserError(f"--watch {folder}: no such folder; check the path.")
    output = Path(_OUTPUT.value)
    inner, outer = output.resolve(), folder.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(
            f"--output {output} and --watch {folder}: one contains the other, so overlays would be "
            "judged as images; give another --output."
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
        "seconds", SECONDS, "Longest time that judging one image may take.", lower_bound=1.0
    )
    _MEMORY = flags.DEFINE_float(
        "memory", MEMORY, "GiB by which one image may grow the process (Linux).", lower_bound=0.1
    )
    cli.run(main)

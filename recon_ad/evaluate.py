"""Evaluate a run on its test images: metrics.json, report.html, scores.csv, model.onnx.

    python -m recon_ad.evaluate --workdir D [--data PATH] [--export=off]

Existing files are overwritten. `--data` evaluates on the test images of another folder.
"""

import signal
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.detector.open import methods_flag
from recon_ad.evaluation.run import evaluate_workdir
from recon_ad.runtime import stopping
from recon_ad.runtime.compilation import keep_compiled


def main() -> None:
    """Run the command."""
    keep_compiled()
    _ADD_METHODS()
    signal.signal(signal.SIGTERM, stopping.requeue)
    export = _EXPORT.value == "auto"
    evaluate_workdir(Path(_WORKDIR.value), data=_DATA.value, export=export)


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    _DATA = flags.DEFINE_string("data", "", "Folder to evaluate on; by default the run's own.")
    _EXPORT = flags.DEFINE_enum("export", "auto", ["auto", "off"], "auto also exports model.onnx.")
    _ADD_METHODS = methods_flag()
    cli.run(main)

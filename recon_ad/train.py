"""Train a method on good images, calibrate it, and evaluate it.

    python -m recon_ad.train --config configs/demo.py --workdir runs/demo

The same command resumes a run that was stopped, or reports that it is complete. With
`--fit_check=80GiB` nothing is trained; the command reports the largest batch that fits into a GPU
with that much memory.
"""

import logging
import signal
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.config import config_flag
from recon_ad.data.build import build_source
from recon_ad.evaluation.images import warn_of_other_test_images
from recon_ad.evaluation.run import evaluate_workdir
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import stopping
from recon_ad.runtime.compilation import keep_compiled
from recon_ad.training.fit import fit_check
from recon_ad.training.run import check_run, check_weights, train

logger = logging.getLogger("recon_ad")


def _is_complete(workdir: Path) -> bool:
    return meshes.broadcast_from_first(
        all((workdir / name).is_file() for name in ("metrics.json", "report.html"))
    )


def main() -> None:
    """Run the command."""
    keep_compiled()
    if _FIT_CHECK.value is not None:
        check_run(_CONFIG.value)
        print(fit_check(_CONFIG.value, _FIT_CHECK.value))
        return
    meshes.initialize_distributed()
    signal.signal(signal.SIGTERM, stopping.requeue)  # JAX's own handler would only record it
    if not meshes.is_first_host():
        logger.setLevel(logging.WARNING)  # only the first host logs the progress
    workdir, config = Path(_WORKDIR.value), _CONFIG.value
    check_run(config)
    check_weights(config, workdir)
    source = build_source(config)
    detector = train(config, workdir, source=source, profile=_PROFILE.value)
    if _STOP_AFTER.value == "train":
        return
    if _is_complete(workdir):
        logger.info("the run in %s is complete; see %s", workdir, workdir / "report.html")
        if meshes.is_first_host():
            warn_of_other_test_images(workdir, source)
    else:
        evaluate_workdir(workdir, detector=detector, source=source)


if __name__ == "__main__":
    _CONFIG = config_flag()
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    _PROFILE = flags.DEFINE_bool(
        "profile", False, "Profile a few steps and write the trace to WORKDIR/profile."
    )
    _FIT_CHECK = flags.DEFINE_string(
        "fit_check",
        None,
        "Do not train; report the largest batch for this much GPU memory, such as 80GiB.",
    )
    _STOP_AFTER = flags.DEFINE_enum(
        "stop_after", "", ["", "train"], "Stop after training, without an evaluation."
    )
    with meshes.ending_at_once():
        cli.run(main)

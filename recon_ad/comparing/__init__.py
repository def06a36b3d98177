"""Finished runs side by side, by `recon_ad.compare`.

Belongs here: reading runs' files, sorting runs into rows that may be compared, and the table and
page that show them. Does not belong here: running anything, or a statistic (`recon_ad.metrics`).
"""

from collections.abc import Sequence
from pathlib import Path

from recon_ad.comparing.page import html, markdown
from recon_ad.comparing.runs import compare, read_run, runs_in
from recon_ad.runtime import files

__all__ = ["write_comparison"]


def write_comparison(folders: Sequence[Path], output: Path) -> str:
    """Writes `compare.md` and `compare.html` in the output folder; returns the former.

    Args:
      folders: of runs, or of sweeps, whose runs are directly in them.
      output: where both are written.

    Raises:
      UserError: a folder is no run and holds none, a run's file is damaged, or none is finished.
    """
    once = {run.resolve(): run for folder in folders for run in runs_in(folder)}
    comparison = compare([read_run(folder) for folder in once.values()])
    text = markdown(comparison)
    files.write_text(output / "compare.md", text)
    files.write_text(output / "compare.html", html(comparison, beside=output))
    return text

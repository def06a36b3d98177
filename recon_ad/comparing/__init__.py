"""Comparison of finished runs, by `recon_ad.compare`.

Reading runs' files, sorting runs into rows that may be compared, and the table and page that show
them belong here. Running anything and statistics (`recon_ad.metrics`) do not.
"""

from collections.abc import Sequence
from pathlib import Path

from recon_ad.comparing.page import html, markdown
from recon_ad.comparing.runs import compare, read_run, runs_in
from recon_ad.runtime import files

__all__ = ["write_comparison"]


def write_comparison(folders: Sequence[Path], output: Path) -> str:
    """Write `compare.md` and `compare.html` in the output folder, and return the former.

    Args:
      folders: Folders of runs, or of sweeps, whose runs are directly in them.
      output: Folder for both files.

    Raises:
      UserError: If a folder is not a run and contains none, a run's file is damaged, or no run is
        finished.
    """
    once = {run.resolve(): run for folder in folders for run in runs_in(folder)}
    comparison = compare([read_run(folder) for folder in once.values()])
    text = markdown(comparison)
    files.write_text(output / "compare.md", text)
    files.write_text(output / "compare.html", html(comparison, beside=output))
    return text

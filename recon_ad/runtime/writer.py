"""Outputs of a run's metrics: log.jsonl (always), TensorBoard events, pictures, and the terminal.

Every line of log.jsonl is one JSON object with `step`. The file contains each step once, even after
a run was killed and resumed.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter
from tqdm import tqdm

from recon_ad.runtime import files
from recon_ad.runtime.progress import pace

logger = logging.getLogger("recon_ad")

SILENT = 60.0  # s without a line of the log, after which the next step writes one


def read_log(path: Path, *, until: int | None = None) -> list[dict[str, Any]]:
    """Return a log's lines up to and including step `until`, without a half-written last line.

    Other damaged lines are left out with a warning.
    """
    if not path.is_file():
        return []
    lines = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            continue
        try:
            entry = json.loads(line)
            keep = until is None or entry["step"] <= until
        except (ValueError, KeyError, TypeError):
            logger.warning("%s: line %d is damaged and was left out", path, number)
            continue
        if keep:
            lines.append(entry)
    return lines


class Writer:
    """Writer of metrics on the first host; calls on the other hosts do nothing.

    Args:
      workdir: Directory of log.jsonl and of the event files.
      start: Number of steps already done. Later lines of an earlier, killed run are dropped.
      total: Number of steps of the whole run, for the progress bar.
      collects: Whether the steps only collect features, so that the log has their number alone.
    """

    def __init__(self, workdir: Path, *, start: int, total: int, collects: bool = False):
        self._collects = collects
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._workdir = workdir
        path = workdir / "log.jsonl"
        kept = read_log(path, until=start)
        files.write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self._file = path.open("a")
        self._board = SummaryWriter(str(workdir), purge_step=start + 1, flush_secs=30)
        # The bar is for a terminal; a log file gets lines.
        self._bar = tqdm(total=total, initial=start, disable=not sys.stderr.isatty(), unit="step")
        self._done, self._total = start, total
        # The step that compiles is left out of the rate.
        self._begun: tuple[int, float] | None = None  # steps done and time, after the first step
        self._spoke = (start, time.monotonic())  # step and time of the log's last line

    def step_done(self) -> None:
        """Advance the progress bar or, without one, write a line if the log was silent for long."""
        if not self._active:
            return
        self._bar.update()
        self._done += 1
        if self._begun is None:
            self._begun = (self._done, time.monotonic())
        if self._bar.disable and time.monotonic() - self._spoke[1] > SILENT:
            self._say(self._done, "")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write one line of the log, and one point for each name in TensorBoard."""
        if not self._active:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        text = " ".join(f"{name} {value:.5g}" for name, value in values.items())
        if self._bar.disable:
            self._say(step, "" if self._collects else text)
        else:
            self._bar.set_postfix_str(text)

    def _say(self, step: int, text: str) -> None:
        """Log a step's metrics and, once for each step, the rate."""
        now, (last, _) = time.monotonic(), self._spoke
        begun, since = self._begun or (step, now)
        fast = pace(
            step - begun,
            self._total - step,
            now - since,
            what="batch" if self._collects else "step",
        )
        told = ", ".join(filter(None, [text, fast if step > last else ""]))
        self._spoke = (step, now)
        what = "collecting features, batch" if self._collects else "step"
        logger.info("%s %d of %d%s", what, step, self._total, f": {told}" if told else "")

    def samples(self, step: int, sheet: UInt8[np.ndarray, "h w c"], *, png: bytes) -> None:
        """Write reconstructions: a picture for TensorBoard and an encoded file under `samples`."""
        if self._active:
            files.write_bytes(self._workdir / "samples" / f"step_{step:07d}.png", png)
            self._board.add_image("reconstructions", sheet, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        if self._active:
            self._bar.close()
            self._file.close()
            self._board.close()

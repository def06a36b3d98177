"""Record of what was measured, left out and failed, as a table and as JSON."""

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import record
from benchmarks.harness.turns import Timing
from recon_ad.runtime import files

OURS = "JAX"
PACKAGES = (
    *("torch", "triton", "onnxruntime", "onnxruntime-gpu", "jax2onnx", "timm", "dm-pix", "kornia"),
    *("torchmetrics", "pytorch-msssim", "ml_collections"),
)


class Book:
    """A record that is written to its file after each figure, so that a stopped run leaves some.

    Args:
      path: Path of the JSON file.
      about: Content at its beginning.
      seconds: Time after which nothing new is started.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], *, seconds: float):
        self._path, self._about = path, about
        self._begin, self._seconds = time.perf_counter(), seconds
        self.rows: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Record a failure in the block instead of raising it, and write the file."""
        print(f"{time.perf_counter() - self._begin:5.0f} s  {what}", flush=True)
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failed[what] = (
                f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            )
        self.write()

    def in_time(self, what: str) -> bool:
        """Return whether time is left for something new; if not, record it as left out."""
        if time.perf_counter() - self._begin > self._seconds:
            self.left_out[what] = f"no time left of {self._seconds / 60:.1f} minutes"
            return False
        return True

    def add(
        self,
        what: str,
        timings: Mapping[str, Timing],
        *,
        precision: str,
        per_step: int | None,
        apart: Mapping[str, Any],
        **more: Any,
    ) -> None:
        """Add a row.

        Args:
          what: What was measured.
          timings: Timings by contender.
          precision: Precision of the arithmetic.
          per_step: Patches per step, for figures in patches/s. None gives milliseconds.
          apart: Differences of the others' results from ours.
          **more: Further content of the row in the JSON file.
        """
        figures = {}
        for name, t in timings.items():
            values = (t.median, t.low, t.high)
            if per_step:
                median, high, low = (per_step / v for v in values)
            else:
                median, low, high = (1e3 * v for v in values)
            figures[name] = {
                **{"median": median, "low": low, "high": high},
                **{"turns": t.turns, "steps": t.steps},
            }
        others = {name: t.median for name, t in timings.items() if name != OURS}
        row = {
            "what": what,
            "precision": precision,
            "unit": "patches/s" if per_step else "ms",
            "figures": figures,
        }
        if others and OURS in timings:
            row["fastest_other"] = fastest = min(others, key=others.__getitem__)
            row["times_as_fast"] = others[fastest] / timings[OURS].median
        self.rows.append(row | {"apart": dict(apart)} | more)

    def write(self) -> None:
        """Write the JSON file with all results so far."""
        content = {
            **self._about,
            "minutes": (time.perf_counter() - self._begin) / 60,
            "rows": self.rows,
            **self.extra,
            "left_out": self.left_out,
            "failed": self.failed,
        }
        files.write_json(self._path, content | record.facts(*PACKAGES))

    def table(self) -> str:
        """Return all rows as a Markdown table, followed by what was left out or failed."""
        lines = [["what", "arithmetic", "unit", "ours", "others", "times as fast", ""]]
        lines.append(["---"] * len(lines[0]))
        for row in self.rows:
            figures = {name: _shown(f) for name, f in row["figures"].items()}
            others = ", ".join(f"{name} {f}" for name, f in figures.items() if name != OURS)
            ratio = f"{row['times_as_fast']:.2f}" if "times_as_fast" in row else "–"
            note = f"{row['times_floor']:.1f} × floor" if "times_floor" in row else ""
            ours = figures.get(OURS, "–")
            lines.append([row["what"], row["precision"], row["unit"], ours, others, ratio, note])
        told = ["| " + " | ".join(line) + " |" for line in lines]
        told += [f"{name}: {value}" for name, value in self.extra.items()]
        told += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        told += [f"FAILED: {name}: {why}" for name, why in self.failed.items()]
        return "\n".join(told)


def _shown(figure: Mapping[str, float]) -> str:
    return f"{figure['median']:.4g} ({figure['low']:.4g}–{figure['high']:.4g})"

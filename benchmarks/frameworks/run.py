"""Main program of `python -m benchmarks.frameworks`, run once all required packages are found."""

import os
from pathlib import Path

from absl import flags

from benchmarks.frameworks import inference, similarity, training, transposed
from benchmarks.harness import devices as settings
from benchmarks.harness.book import Book
from benchmarks.harness.subjects import SCALES, default_scale
from recon_ad import cli

# The most important part comes first, because time may run out.
PARTS = {
    "training": training,
    "transposed": transposed,
    "similarity": similarity,
    "inference": inference,
}


def measured(path: Path, scale: str, parts: list[str], *, minutes: float, command: str) -> Book:
    """Measure, and write the file after each result.

    Args:
      path: Path of the JSON file.
      scale: Name in `SCALES`.
      parts: Names in `PARTS`.
      minutes: Time after which nothing new is started.
      command: Command to record in the JSON file.
    """
    settings.check_devices()
    about = {
        "command": command,
        "unit": "median with quartiles, in turns; ratio to the fastest other",
        "scale": scale,
        "precision": "float32 and TF32 alike in all frameworks; bfloat16 nowhere",
        "load_before": os.getloadavg()[0],
    }
    book = Book(path, about, seconds=60 * minutes)
    for precision in settings.PRECISIONS:
        with book.attempt(f"rounding in {precision}"):
            settings.set_precision(precision)
            book.extra[f"rounding in {precision}"] = settings.rounding()
    for part in parts:
        with book.attempt(part):
            PARTS[part].measure(book, SCALES[scale])
    book.write()
    return book


def start() -> None:
    """Parse the flags, measure and print the table."""
    kind = default_scale()
    minutes = flags.DEFINE_float("minutes", 9.0, "Time after which nothing new is started.")
    scale = flags.DEFINE_enum("scale", kind, list(SCALES), "Problem sizes.")
    parts = flags.DEFINE_multi_enum("parts", list(PARTS), list(PARTS), "Parts to measure.")
    path = flags.DEFINE_string("output", f"results/frameworks_{kind}.json", "JSON file to write.")

    def main() -> int:
        book = measured(
            *(Path(path.value), scale.value, parts.value),
            minutes=minutes.value,
            command="python -m benchmarks.frameworks",
        )
        print("\n" + book.table())
        return 1 if book.failed else 0

    cli.run(main)

"""Parts of a table: its cells, the paper's figures beside them, and the columns to show.

Figures are named as in metrics.json; "truths.A.iou_max_oracle" is a figure against an additional
truth.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recon_ad.data import Source
from recon_ad.detector.jax_detector import Detector

Run = dict[str, Any]  # a cell as NAME.json holds it


SEEDS = (0, 1, 2)


def seeds_at(scale: str) -> tuple[int, ...]:
    """Return one seed at cpu scale, all seeds at the others."""
    return SEEDS[:1] if scale == "cpu" else SEEDS


class Made(NamedTuple):
    """Images that are made from a user's set before a run.

    Attributes:
      name: Name of the folder that stores them.
      make: Function of the set's folder and an empty folder, which it fills in the MVTec layout.
      files: Files in that folder, by the dotted names of the config fields that need them.
    """

    name: str
    make: Callable[[Path, Path], None]
    files: Mapping[str, str] = {}


class Cell(NamedTuple):
    """One training run with its evaluation.

    Attributes:
      dataset: Name of the data set in the table.
      method: Key of `recon_ad.methods.METHODS`.
      seed: Seed of everything random.
      config: Path of a config file, whose arguments are in `arguments`.
      arguments: Arguments of the config, except method and seed.
      part: Heading under which the page shows the cell.
      variant: Change of an ablation, such as "d = 50".
      fields: Values of config fields by their dotted names, set after the config is made.
      folders: Names of the folder in which the images are searched; () for generated images.
      together: Such names for each of several sets that one model learns, by the set's name.
      made: Images that are made from the user's and replace them. None uses the user's images.
      absent: Advice for a user who does not have the images.
      paper: Figures of the paper.
      source: Source of the paper's figures, "" without any.
      protocol: Sentences on differences from the paper that concern this cell only.
      iou_watched: Best IoU whose time to reach is measured during training, or None.
      optional: True to leave the cell out once the table's time is spent.
    """

    dataset: str
    method: str
    seed: int
    config: str
    arguments: Mapping[str, str] = {}
    part: str = ""
    variant: str = ""
    fields: Mapping[str, Any] = {}
    folders: tuple[str, ...] = ()
    together: Mapping[str, tuple[str, ...]] = {}
    made: Made | None = None
    absent: str = ""
    paper: Mapping[str, float] = {}
    source: str = ""
    protocol: tuple[str, ...] = ()
    iou_watched: float | None = None
    optional: bool = False

    @property
    def name(self) -> str:
        """The cell's name, unique in its table, which is also the name of the run's folder."""
        variant = "".join(c if c.isalnum() or c in "._" else "" for c in self.variant)
        parts = (self.dataset, self.method, variant, f"seed{self.seed}")
        return "-".join(filter(None, parts))

    @property
    def spec(self) -> str:
        """The config and its arguments as the commands' `--config` takes them."""
        arguments = {**self.arguments, "method": self.method, "seed": str(self.seed)}
        return f"{self.config}:" + ",".join(f"{k}={v}" for k, v in arguments.items())


class Column(NamedTuple):
    """Column of a figure on the page.

    Attributes:
      key: Name of the figure.
      head: Head of the column.
      digits: Number of digits after the decimal point.
    """

    key: str
    head: str
    digits: int = 3


class Figure(NamedTuple):
    """Picture that is drawn from finished runs.

    Attributes:
      name: Name of its file, without the suffix.
      cells: Names of the cells that it shows.
      draw: Function of the available cells' folders, by the cell's name, that returns PNG bytes
        and a caption of one or more sentences.
    """

    name: str
    cells: tuple[str, ...]
    draw: Callable[[Mapping[str, Path]], tuple[bytes, str]]


def no_remarks(runs: Sequence[Run]) -> list[str]:
    """Return no remarks, for a table without any."""
    del runs
    return []


def no_sections(runs: Sequence[Run]) -> dict[str, str]:
    """Return no further sections, for a table without any."""
    del runs
    return {}


def nothing(detector: Detector, source: Source) -> Run:
    """Return nothing, for a table that measures only what evaluation does."""
    del detector, source
    return {}


class Table(NamedTuple):
    """Table of a paper.

    Attributes:
      name: Name of the table for `--table` and of its files.
      title: Title of the page.
      columns: Figures to show.
      cells: Function of the scale and the folder with the data sets (or None) that returns the
        cells in the order in which they are run. It raises `UserError` if there can be no cells.
      protocol: Sentences on differences from the paper, or on points that the paper leaves open.
      remarks: Function of the finished cells that returns sentences on their results.
      sections: Function of the finished cells that returns further sections of the page, Markdown
        by heading.
      figures: Pictures, drawn as their cells are finished.
      measure: Function of a detector and its images that returns further entries of a finished
        cell.
      mean_row: True to add a row with each method's mean over the data sets.
      hours: Hours that the table may take on two cores, by scale. They limit optional cells only.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    cells: Callable[[str, Path | None], Sequence[Cell]]
    protocol: tuple[str, ...] = ()
    remarks: Callable[[Sequence[Run]], list[str]] = no_remarks
    sections: Callable[[Sequence[Run]], Mapping[str, str]] = no_sections
    figures: tuple[Figure, ...] = ()
    measure: Callable[[Detector, Source], Run] = nothing
    mean_row: bool = False
    hours: Mapping[str, float] = {"cpu": 1.0, "long": 24.0}

"""What a table is: its cells, the paper's figures beside them, and the columns that are shown.

Figures are named as in metrics.json; "truths.A.iou_max_oracle" is one against a further truth.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recon_ad.data import Source
from recon_ad.detector.jax_detector import Detector

Run = dict[str, Any]  # a cell as NAME.json holds it


SEEDS = (0, 1, 2)


def seeds_at(scale: str) -> tuple[int, ...]:
    """One seed for two cores, all at the paper's scale."""
    return SEEDS if scale == "paper" else SEEDS[:1]


class Made(NamedTuple):
    """Images that are made from a user's set before a run.

    Attributes:
      name: of the folder they are kept in.
      make: (the set's folder, an empty folder) -> fills it, in the MVTec layout.
      files: config fields that name files in it, by their dotted names.
    """

    name: str
    make: Callable[[Path, Path], None]
    files: Mapping[str, str] = {}


class Cell(NamedTuple):
    """One training run, evaluated.

    Attributes:
      dataset: its name in the table.
      method: a row of `recon_ad.methods.METHODS`.
      seed: of everything random.
      config: a config file's path; its arguments are in `arguments`.
      arguments: of the config, beside method and seed.
      part: the head under which the page shows it.
      variant: what an ablation changes, "d = 50", say.
      fields: config fields by their dotted names, set after the config was made.
      folders: names under which the images are looked for; () where they are generated.
      together: the same for each of several sets that one model learns, by the set's name.
      made: what is made from the images, and used in their place; None: they are used as they are.
      absent: what to tell a user who does not have them.
      paper: the paper's figures.
      source: where they stand; "" where there are none.
      protocol: sentences on what is done in another way than in the paper, for this cell only.
      iou_watched: the best IoU of which it is measured when training reaches it, or None.
      optional: left out where the time that the table may take is spent.
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
        """Unique in its table, and the name of the run's folder."""
        variant = "".join(c if c.isalnum() or c in "._" else "" for c in self.variant)
        parts = (self.dataset, self.method, variant, f"seed{self.seed}")
        return "-".join(filter(None, parts))

    @property
    def spec(self) -> str:
        """As the commands' `--config` takes it."""
        arguments = {**self.arguments, "method": self.method, "seed": str(self.seed)}
        return f"{self.config}:" + ",".join(f"{k}={v}" for k, v in arguments.items())


class Column(NamedTuple):
    """A figure on the page.

    Attributes:
      key: its name.
      head: over the column.
      digits: after the point.
    """

    key: str
    head: str
    digits: int = 3


class Figure(NamedTuple):
    """A picture that is drawn from finished runs.

    Attributes:
      name: of its file, without the suffix.
      cells: names of the cells it shows.
      draw: given the folders of those of them that are here, by the cell's name: PNG bytes and one
        or more sentences that go under it.
    """

    name: str
    cells: tuple[str, ...]
    draw: Callable[[Mapping[str, Path]], tuple[bytes, str]]


def no_remarks(runs: Sequence[Run]) -> list[str]:
    """For a table about whose figures nothing is said."""
    del runs
    return []


def nothing(detector: Detector, source: Source) -> Run:
    """For a table that measures no more than evaluation does."""
    del detector, source
    return {}


class Table(NamedTuple):
    """A table of a paper.

    Attributes:
      name: as `--table` takes it; of its files too.
      title: of the page.
      columns: figures that are shown.
      cells: (scale, folder with the data sets or None) -> cells, in the order in which they are
        run. Raises `UserError` where there can be none.
      protocol: sentences on what differs from the paper, or what the paper leaves open.
      remarks: (finished cells) -> sentences on what came out, made from the figures.
      figures: drawn when all cells are run.
      measure: (detector, its images) -> what a finished cell holds beside what evaluation found.
      mean_row: whether each method has a row with its mean over the data sets.
      minutes: that the table may take at `--scale cpu`; counts for optional cells only.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    cells: Callable[[str, Path | None], Sequence[Cell]]
    protocol: tuple[str, ...] = ()
    remarks: Callable[[Sequence[Run]], list[str]] = no_remarks
    figures: tuple[Figure, ...] = ()
    measure: Callable[[Detector, Source], Run] = nothing
    mean_row: bool = False
    minutes: float = 60.0

"""Several categories of images as one source, so that one model learns all of them."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from recon_ad.data.listing import subfolders
from recon_ad.data.source import GOOD, Record, Source
from recon_ad.errors import UserError

EVERY = "*"


def named(category: str, path: Path) -> list[str]:
    """Return the categories that `config.data.category` names: "grid", "grid+carpet", "*" for all.

    Args:
      category: The value in the config.
      path: Folder that holds the categories.

    Raises:
      UserError: If a category is named twice (by the last part of its path), or none is found.
    """
    if category == EVERY:
        if not path.is_dir():
            raise UserError(f"{path}: folder not found: give the one that holds categories")
        found = [d.name for d in subfolders(path) if (d / "train" / GOOD).is_dir()]
        if not found:
            raise UserError(
                f"{path}: holds no category, a folder with train/{GOOD} in it: give the folder "
                "that does, or leave out category="
            )
        return found
    if (path / category).is_dir():  # also one with a + in its name
        return [category]
    names = category.split("+")
    if "" in names and len(names) > 1:
        raise UserError(
            f'config.data.category is "{category}": give a name on either side of each +.'
        )
    labels = [_label(name) for name in names]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(
            f'config.data.category is "{category}", which names {", ".join(twice)} twice: name '
            "each category once."
        )
    return names


def several(
    load: Callable[[str, int | None], Source], names: list[str], *, channels: int | None
) -> Source:
    """Return the categories one after the other as one source.

    Args:
      load: Function of (category, channels) that returns its source.
      names: Names of the categories, paths below the folder that holds them.
      channels: Number of channels for all images; None means 3 if those of any category are RGB.

    Returns:
      Records whose names begin with their category's, as the names of defect types do.

    Raises:
      UserError: If `load` raises it, or if categories differ in their channels other than by 1 and
        3.
    """
    sources = {name: load(name, channels) for name in names}
    found = {name: source.train[0].load().shape[2] for name, source in sources.items()}
    notes = []
    if len(set(found.values())) > 1:
        if set(found.values()) != {1, 3}:
            each = ", ".join(f"{name} {count}" for name, count in found.items())
            raise UserError(
                f"the categories differ in their number of channels ({each}): choose those that go "
                "together, or set config.data.channels."
            )
        gray = [name for name in names if found[name] == 1]
        sources |= {name: load(name, 3) for name in gray}
        notes.append(f"The images of {', '.join(gray)} are gray and are read as RGB.")
    return joined({_label(name): source for name, source in sources.items()}, notes=notes)


def joined(sources: Mapping[str, Source], *, notes: list[str]) -> Source:
    """Return the images of all categories, named by their categories."""

    def renamed(category: str, record: Record) -> Record:
        return record._replace(
            name=f"{category}/{record.name}",
            defect=f"{category}/{record.defect}" if record.anomalous else GOOD,
            category=category,
        )

    return Source(
        tuple(renamed(name, r) for name, source in sources.items() for r in source.train),
        tuple(renamed(name, r) for name, source in sources.items() for r in source.test),
        tuple(
            [*notes, *(f"{name}: {n}" for name, source in sources.items() for n in source.notes)]
        ),
    )


def _label(name: str) -> str:
    return PurePosixPath(name).name

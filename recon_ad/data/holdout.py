"""Division of the normal images into training and held-out ones (thresholds, normalisation).

Neighbouring frames of one series look alike. A random choice would put nearly the same image on
both sides, and the thresholds would come out too low. So whole series, contiguous blocks of the
sorted names, or regions with a gap between them are held out instead.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from recon_ad.data.source import Record, by_category
from recon_ad.errors import UserError

# More blocks cut more series in two; fewer show less of what varies over time, and how much images
# of one block resemble each other is not seen.
_BLOCKS = 10


class HoldOut(NamedTuple):
    """A division of good images.

    Attributes:
      train: Images, or parts of them, to learn from.
      heldout: Normal images, or regions of them, to calibrate with.
      how: One sentence on how they were divided.
      regions_per_image: Number of held-out regions that make up a whole image, by the pixels that
        count; 1 where images are held out whole. An image's score is a maximum, so it is likelier
        to be high than a region's. Of several categories the largest number is kept, so that none
        of them has more false alarms than requested.
      blocks: For each held-out image the number of its block of neighbours, or of its group.
      grouped: Whether blocks are groups that the user named, each independent of the others.
      crossed: Whether all images serve as both, each held out from a model without its block.
    """

    train: tuple[Record, ...]
    heldout: tuple[Record, ...]
    how: str
    regions_per_image: float = 1.0
    blocks: tuple[int, ...] = ()
    grouped: bool = False
    crossed: bool = False


def hold_out_all(records: Sequence[Record], *, how: str, group: str = "") -> HoldOut:
    """Hold out all of these images.

    Args:
      records: Good images that nothing was trained on, sorted by name.
      how: One sentence on where they come from.
      group: As for `split_holdout`; without it blocks are neighbours.

    Raises:
      UserError: As for `group_numbers`.
    """
    names = [record.name for record in records]
    blocks = group_numbers(names, group) if group else _neighbours(len(names))
    return HoldOut((), tuple(records), how, blocks=blocks, grouped=bool(group))


def group_numbers(names: Sequence[str], group: str) -> tuple[int, ...]:
    """Return the number of each image's group.

    Args:
      names: Names of the images.
      group: As for `split_holdout`.

    Raises:
      UserError: If the regular expression is not valid, or a name does not match it.
    """
    pattern = _compiled(group)
    keys = [_key(name, pattern) for name in names]
    numbers = {key: i for i, key in enumerate(sorted(set(keys)))}
    return tuple(numbers[key] for key in keys)


def _neighbours(count: int) -> tuple[int, ...]:
    """Return the number of the block of each of `count` neighbours."""
    return tuple(i * min(_BLOCKS, count) // count for i in range(count))


def split_holdout(
    records: Sequence[Record],
    *,
    fraction: float,
    group: str = "",
    few: int,
    gap: int,
    min_side: int,
) -> HoldOut:
    """Divide good images into training and held-out ones; no pixel is in both.

    A validation part of the data set is held out instead, and nothing else is.

    Args:
      records: Good images in any order; their names are sorted.
      fraction: Share to hold out, in (0, 1): of the images, or of each image's longer side.
      group: Regular expression searched in the file's name (the last part of the record's name).
        Its first capture group, or the whole match if it has none, names the series of the image.
        Whole series are held out, evenly spaced over the sorted ones.
      few: Number of images from which on, without `group`, contiguous blocks of the sorted names
        are held out. With fewer images a region of each image is held out, at the end of its longer
        side. Each of several categories is divided separately.
      gap: Pixels between an image's training part and its held-out part (one patch).
      min_side: Least side of either part in pixels (one patch).

    Raises:
      UserError: If there is no image, `fraction` or `group` is unusable, a name does not match
        `group`, there are fewer than two series, or too few images that are all too small to cut;
        or if an image is broken, where regions are cut.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the hold-out fraction is {fraction}: give a number between 0 and 1")
    if not records:
        raise UserError("there are no good images to hold out from: give at least one")

    def divided(ordered: list[Record]) -> HoldOut:
        if any(record.validation for record in ordered):
            return _by_part(ordered, group)
        if group:
            return _by_group(ordered, fraction, group)
        if len(ordered) >= max(few, 2):
            return _by_block(ordered, fraction)
        return _by_region(ordered, fraction, gap=gap, min_side=min_side)

    return _of_each_category(records, divided)


def cross_holdout(records: Sequence[Record], *, group: str = "") -> HoldOut:
    """Use every good image for both in turn: each is held out with its block or group.

    Args:
      records: Good images in any order, at least two of each category.
      group: As for `split_holdout`; without it blocks are contiguous in the sorted names.

    Raises:
      UserError: As for `split_holdout` and its groups.
    """

    def crossed(ordered: list[Record]) -> HoldOut:
        number = len(ordered)
        if group:
            _members(ordered, group)  # two or more
            blocks = group_numbers([record.name for record in ordered], group)
            own, what = "group", f'{max(blocks) + 1} groups by "{group}"'
        else:
            blocks = _neighbours(number)
            own, what = "block", f"{max(blocks) + 1} blocks in order of file name"
        how = f"every training image ({number}), judged without its own {own} ({what})"
        return HoldOut(
            tuple(ordered), tuple(ordered), how, blocks=blocks, grouped=bool(group), crossed=True
        )

    return _of_each_category(records, crossed)


def _by_part(records: list[Record], group: str) -> HoldOut:
    names = [record.name for record in records if record.validation]
    blocks = group_numbers(names, group) if group else _neighbours(len(names))
    held = dict(zip(names, blocks, strict=True))
    number = "1 image" if len(held) == 1 else f"{len(held)} images"
    how = f"{number} of the data set's own validation part"
    if len(held) == len(records):
        raise UserError(f"there are {how} and no others: put images to train on into train/good")
    return _divided(records, held, how, grouped=bool(group))


def _of_each_category(
    records: Sequence[Record], divide: Callable[[list[Record]], HoldOut]
) -> HoldOut:
    """Divide the images of each category, sorted by name, separately."""
    categories = by_category(records)
    each = {
        category: divide(sorted(categories[category], key=lambda record: record.name))
        for category in sorted(categories)
    }
    if len(each) == 1:
        return next(iter(each.values()))
    blocks: list[int] = []
    for part in each.values():
        first = max(blocks, default=-1) + 1
        blocks.extend([first + block for block in part.blocks])
    return HoldOut(
        tuple(record for part in each.values() for record in part.train),
        tuple(record for part in each.values() for record in part.heldout),
        "; ".join(f"{category}: {part.how}" for category, part in each.items()),
        max(part.regions_per_image for part in each.values()),
        tuple(blocks),
        all(part.grouped for part in each.values()),
        all(part.crossed for part in each.values()),
    )


def _compiled(group: str) -> re.Pattern[str]:
    try:
        return re.compile(group)
    except re.error as error:
        raise UserError(
            f'the hold-out group "{group}" is not a valid regular expression: {error}'
        ) from error


def _key(name: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(PurePosixPath(name).name)
    key = match[1 if pattern.groups else 0] if match else None
    if key is None:
        raise UserError(
            f'{name}: the name does not match the hold-out group "{pattern.pattern}": rename the '
            "file or change the expression"
        )
    return key


def _members(records: Sequence[Record], group: str) -> dict[str, list[Record]]:
    """Return the images of each group, by its key in order."""
    pattern = _compiled(group)
    members: dict[str, list[Record]] = {}
    for record in records:
        members.setdefault(_key(record.name, pattern), []).append(record)
    keys = sorted(members)
    if len(keys) < 2:
        raise UserError(
            f'the hold-out group "{group}" puts all {len(records)} images into one group, '
            f'"{keys[0]}": at least two are needed, one to train and one to hold out'
        )
    return {key: members[key] for key in keys}


def _by_group(records: list[Record], fraction: float, group: str) -> HoldOut:
    members = _members(records, group)
    keys = list(members)
    chosen: list[str] = []
    for count in range(1, len(keys)):
        chosen = [keys[(2 * i + 1) * len(keys) // (2 * count)] for i in range(count)]
        if sum(len(members[key]) for key in chosen) >= fraction * len(records):
            break
    held = {record.name: i for i, key in enumerate(chosen) for record in members[key]}
    return _divided(
        records,
        held,
        f"{len(held)} of {len(records)} images: groups {', '.join(chosen)} of {len(keys)} by "
        f'"{group}"',
        grouped=True,
    )


def _by_block(records: list[Record], fraction: float) -> HoldOut:
    number = len(records)
    wanted = min(max(1, round(fraction * number)), number - 1)
    blocks = min(_BLOCKS, wanted)
    held: dict[str, int] = {}
    for i in range(blocks):
        # The middle of the i-th of as many equal stretches.
        start, stop = i * number // blocks, (i + 1) * number // blocks
        size = min((i + 1) * wanted // blocks - i * wanted // blocks, stop - start)
        first = start + (stop - start - size) // 2
        held.update((record.name, i) for record in records[first : first + size])
    if blocks == 1:
        where = "a contiguous block" if wanted > 1 else "the middle"
    else:
        where = f"{blocks} contiguous blocks"
    return _divided(records, held, f"{len(held)} of {number} images in {where} of the sorted names")


def _divided(
    records: list[Record], held: dict[str, int], how: str, *, grouped: bool = False
) -> HoldOut:
    """Hold out the images that are named, each with the number of its block."""
    heldout = tuple(record for record in records if record.name in held)
    return HoldOut(
        tuple(record for record in records if record.name not in held),
        heldout,
        how,
        blocks=tuple(held[record.name] for record in heldout),
        grouped=grouped,
    )


class _Cut(NamedTuple):
    """The place where an image is cut on its longer side, and the share of the held-out part."""

    axis: str
    train_stop: int
    start: int
    stop: int
    regions: float


def _cut(record: Record, fraction: float, *, gap: int, min_side: int) -> _Cut | None:
    """Return the cut at the end of the longer side, or of the region; None if it is too small."""
    height, width = record.load().shape[:2]
    axis, length = ("columns", width) if width >= height else ("rows", height)
    across = min(height, width)
    inside = np.full(length, across)  # pixels that count at each place along the longer side
    if record.load_roi is not None:
        inside = record.load_roi().sum(axis=0 if axis == "columns" else 1)
    first, last = np.flatnonzero(inside)[[0, -1]]
    stop, extent = int(last) + 1, int(last) + 1 - int(first)
    held = min(max(min_side, round(fraction * extent)), extent - gap - min_side)
    if held < min_side or across < min_side:
        return None
    train, heldout = inside[: stop - gap - held].sum(), inside[stop - held : stop].sum()
    if min(train, heldout) < min_side**2 / 2:  # half a patch, as a training patch has at least
        return None
    return _Cut(axis, stop - gap - held, stop - held, stop, float(inside.sum() / heldout))


def _by_region(records: list[Record], fraction: float, *, gap: int, min_side: int) -> HoldOut:
    train: list[Record] = []
    heldout: list[Record] = []
    cuts: list[_Cut] = []
    for record in records:
        cut = _cut(record, fraction, gap=gap, min_side=min_side)
        if cut is None:
            train.append(record)
            continue
        train.append(_part(record, cut.axis, 0, cut.train_stop))
        heldout.append(_part(record, cut.axis, cut.start, cut.stop))
        cuts.append(cut)
    if not cuts:
        raise UserError(
            f"{_counted(records)}, too few to hold some out, and none is large enough to be cut "
            f"into two parts of {min_side} px with {gap} px between, also in its region of "
            "interest: give more images or a smaller patch"
        )
    whole = len(records) - len(cuts)
    which = "every image's" if not whole else f"the other {len(cuts)} images'"
    rest = f"; {whole} too small to cut, in training as a whole" if whole else ""
    if len({(cut.axis, cut.start, cut.stop) for cut in cuts}) == 1:
        part = f"last {cuts[0].stop - cuts[0].start} {cuts[0].axis}"
    else:
        sizes = [cut.stop - cut.start for cut in cuts]
        part = f"last {min(sizes)} to {max(sizes)} px of the longer side"
    if any(record.load_roi for record in records):
        part += " of the region of interest"
    how = f"{which} {part}, {gap} px apart from the training part{rest}"
    regions = sum(cut.regions for cut in cuts) / len(cuts)
    return HoldOut(tuple(train), tuple(heldout), how, regions, _neighbours(len(heldout)))


def _counted(records: list[Record]) -> str:
    if len(records) == 1:
        return "there is 1 good image"
    return f"there are {len(records)} good images"


def _part(record: Record, axis: str, start: int, stop: int) -> Record:
    name = f"{record.name}[{axis} {start}:{stop}]"
    load, load_roi = (
        None if whole is None else partial(_crop, whole, axis, start, stop)
        for whole in (record.load, record.load_roi)
    )
    return record._replace(name=name, load=load, load_roi=load_roi)


def _crop(load: Callable[[], np.ndarray], axis: str, start: int, stop: int) -> np.ndarray:
    """Return a copy of the rows or columns start:stop, so that the image can be freed."""
    image = load()
    return (image[:, start:stop] if axis == "columns" else image[start:stop]).copy()

"""Folders of images, and images in memory, as sources.

A folder either has the layout of MVTec AD (Bergmann et al. 2019, CVPR, section 3), `train/good/*`,
`test/<defect>/*`, `ground_truth/<defect>/<stem>_mask.png`, where `test` and `ground_truth` may be
missing, or it is a plain folder of good images. Either may have subfolders and regions of interest
(`recon_ad.data.truth`). Training images are decoded once when the source is made, since a truncated
file shows only then. Test images are only listed, and decoded by their users.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recon_ad.data import truth
from recon_ad.data.arrays import InputRange, as_image
from recon_ad.data.decode import (
    SUFFIXES,
    are_colours,
    check_channels,
    decode_image,
    stored_type,
)
from recon_ad.data.decode_cache import DecodeCache
from recon_ad.data.layout import Layout, check_all_good, check_no_masks, dataset_root, layout_of
from recon_ad.data.listing import files_below, images_below, images_in
from recon_ad.data.source import GOOD, Record, Source
from recon_ad.errors import UserError
from recon_ad.runtime.progress import progress

_CALLED_GOOD = frozenset({"good", "ok", "normal", "pass"})
_NAMED = 20  # broken files that are named one by one
_THREADS = 4  # more would hold as many decoded images at a time


def folder_source(
    path: str | os.PathLike[str],
    *,
    category: str = "",
    channels: int | None = None,
    input_range: InputRange | None = None,
    on_error: str = "raise",
    cache: DecodeCache | None = None,
) -> Source:
    """List a folder of images; records load images and are named relative to the folder.

    Every training image is decoded to find broken ones.

    Args:
      path: Folder in the MVTec layout, folder of such folders, or folder of good images.
      category: Folder below `path` to use, if `path` is a folder of such folders.
      channels: Number of channels for all images, see `decode_image`. None means 3 if any training
        image is RGB and the others are gray, else the number that all have.
      input_range: Values in the files that mean black and white, see `as_image`.
      on_error: "raise" stops at the first broken training image or unusable mask; "skip" leaves the
        image or the mask out and adds a note.
      cache: Cache of decoded images; None keeps nothing.

    Returns:
      Images sorted by name. A defective image whose mask is missing or empty has no `load_mask`:
      its truth is unknown. The notes name such images.

    Raises:
      UserError: If the folder does not exist or has no training image, holds several categories and
        none is chosen, or its training images differ in their channels; or, unless skipped, if a
        training image or a mask is broken, or a mask has another size than its image.
    """
    check_channels(channels)
    if on_error not in ("raise", "skip"):
        raise UserError(f'on_error is "{on_error}": give "raise" or "skip"')
    root = dataset_root(Path(path), category)
    layout = layout_of(root)
    train_folder = layout.good
    regions = truth.Regions(root)
    files = [file for file in layout.good_images() if not regions.is_region(file)]
    if not files:
        raise UserError(
            f"{train_folder}: holds no images ({', '.join(sorted(SUFFIXES))}): put good ones there"
        )
    if train_folder == root:
        check_all_good(files, root)
    check_no_masks(files)
    notes = _left_out(train_folder, root)
    decode = partial(decode_image, input_range=input_range)
    decode = cache.decoding(decode) if cache else decode
    files, channels, seen, train_notes = _verified(
        files, root, decode, channels, regions=regions, on_error=on_error
    )
    train_notes += _about_depth(seen, input_range)
    load = partial(decode, channels=channels)
    train = tuple(
        Record(
            _name(file, root),
            partial(load, file),
            load_roi=regions.of(file),
            validation=layout.is_validation(file),
        )
        for file in files
    )
    test: tuple[Record, ...] = ()
    test_notes: list[str] = []
    if train_folder != root:
        test, test_notes = _test_split(root, layout, load, regions, on_error)
    if regions:
        without = [r.name for r in (*train, *test) if r.load_roi is None]
        if without:
            test_notes.append(
                f"{_count(len(without), 'image')} without a region of interest, of which all "
                f"pixels count: {_some(without)}."
            )
    return Source(train, test, tuple([*notes, *train_notes, *test_notes]))


def memory_source(
    images: Sequence[np.ndarray] | np.ndarray, *, input_range: InputRange | None = None
) -> Source:
    """Make a source of good images that are in memory already; it has no test split.

    Args:
      images: List of images, or array whose first axis counts them. Each is [h, w] or [h, w, c]
        with the same c for all; see `as_image`.
      input_range: Values that mean black and white, see `as_image`.

    Returns:
      Records named "0000", "0001", ... that load [h, w, c].

    Raises:
      UserError: If there is no image, or one has another shape, type or range; the message names
        it.
    """
    if isinstance(images, np.ndarray) and images.ndim < 3:
        raise UserError(
            f"the array of images has shape {images.shape}: give [n, h, w] or [n, h, w, c], or a "
            "list of images"
        )
    arrays = [
        _read_only(as_image(image, name=f"image {index}", input_range=input_range))
        for index, image in enumerate(images)
    ]
    if not arrays:
        raise UserError("the list of images is empty: give at least one good image")
    for index, array in enumerate(arrays):
        if array.shape[2] != arrays[0].shape[2]:
            raise UserError(
                f"image {index} has {array.shape[2]} channels and image 0 has "
                f"{arrays[0].shape[2]}: give images of one kind"
            )
    return Source(tuple(Record(f"{i:04d}", partial(_given, a)) for i, a in enumerate(arrays)), ())


def _given(image: np.ndarray) -> np.ndarray:
    return image


def _read_only(image: np.ndarray) -> np.ndarray:
    """Return a view through which the caller's array cannot be changed."""
    view = image.view()
    view.flags.writeable = False
    return view


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _some(names: Iterable[str], shown: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _left_out(folder: Path, root: Path) -> list[str]:
    """Return a note on files among the training images that have no image suffix."""
    others = [p for p in files_below(folder) if p.suffix.lower() not in SUFFIXES]
    if not others:
        return []
    return [
        f"{_count(len(others), 'file')} among the training images left out for the suffix: "
        f"{_some(_name(p, root) for p in others)}."
    ]


class _Seen(NamedTuple):
    """A training image's channels, whether they are colours, its file's type and largest value."""

    channels: int
    colours: bool
    stored: str
    largest: float
    kind: str


def _verify(
    file: Path, *, decode: Callable[[Path], np.ndarray], regions: truth.Regions, on_error: str
) -> _Seen | UserError:
    """Return an image's properties, or, if broken files are skipped, why it does not decode."""
    try:
        image = decode(file)
        if (load_roi := regions.of(file)) is not None:
            load_roi()
        colours, stored = are_colours(file), stored_type(file)
        return _Seen(image.shape[2], colours, stored, float(image.max()), image.dtype.kind)
    except UserError as error:
        if on_error == "raise":
            raise
        return error


def _verified(
    files: list[Path],
    root: Path,
    decode: Callable[..., np.ndarray],
    channels: int | None,
    *,
    regions: truth.Regions,
    on_error: str,
) -> tuple[list[Path], int, list[_Seen], list[str]]:
    """Decode every training image; return usable files, channels for all, their kind, and notes."""
    kept: dict[Path, _Seen] = {}
    broken: list[UserError] = []
    with ThreadPoolExecutor(_THREADS) as pool:  # Pillow decodes outside Python's lock
        verify = partial(
            _verify, decode=partial(decode, channels=channels), regions=regions, on_error=on_error
        )
        reading = progress(files, "reading good images")
        for file, result in zip(reading, pool.map(verify, files), strict=True):
            if isinstance(result, UserError):
                broken.append(result)
            else:
                kept[file] = result
    if not kept:
        raise UserError(f"none of the {len(files)} training images can be used: {broken[0]}")
    notes = [f"Training image left out: {error}." for error in broken[:_NAMED]]
    if broken[_NAMED:]:
        notes.append(f"{len(broken) - _NAMED} more training images left out as broken.")
    found = Counter(seen.channels for seen in kept.values())
    alike = all(seen.colours for seen in kept.values() if seen.channels == 3)
    if len(found) > 1 and not (set(found) == {1, 3} and alike):
        few = min(found, key=found.__getitem__)
        odd = next(_name(file, root) for file, seen in kept.items() if seen.channels == few)
        raise UserError(
            f"{root}: training images differ in their number of channels ({sorted(found)}; {odd} "
            f"has {few}): give images of one kind, or set config.data.channels"
        )
    if len(found) > 1:
        notes.append(
            f"{found[3]} of {len(kept)} training images are RGB and the others gray: all are read "
            "as RGB."
        )
    return list(kept), max(found), list(kept.values()), notes


def _about_depth(seen: list[_Seen], input_range: InputRange | None) -> list[str]:
    """Return notes on bit depths that are probably not intended."""
    notes = []
    types = Counter(s.stored for s in seen)
    if len(types) > 1:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(types.items()))
        each = "each counts by its own range" if input_range is None else "one range is set for all"
        notes.append(f"Training images differ in type ({counts}), and {each}.")
    if input_range is not None:
        reached = max(s.largest / (1 if s.kind == "f" else 65535) for s in seen)
        if reached < 0.5:
            notes.append(
                f"Training images reach only {reached:.0%} of the way from black to white: check "
                f"config.data.input_range={tuple(input_range)}."
            )
        return notes
    largest = max(s.largest for s in seen)
    if types.keys() == {"uint16"} and 255 < largest < 2**15:
        bits = int(largest).bit_length()
        notes.append(
            f"No value of the 16-bit training images is above {largest:.0f}: if the camera gives "
            f"{bits} bits, set config.data.input_range=(0, {2**bits - 1}), else they count as dark."
        )
    return notes


def _test_split(
    root: Path,
    layout: Layout,
    load: Callable[[Path], np.ndarray],
    regions: truth.Regions,
    on_error: str,
) -> tuple[tuple[Record, ...], list[str]]:
    """Return the test records with their masks, and notes."""
    folders = layout.types()
    if layout.test is None or not layout.test.is_dir():
        return (), []
    truths = layout.truths or root
    records: list[Record] = []
    trouble: dict[str, list[str]] = {
        kind: [] for kind in ("missing", "empty", "unusable", "grays", "inverted")
    }
    for folder in folders:
        masks = truth.stems(truths / folder.name) if folder.name != GOOD else {}
        files = images_below(folder)
        found = [truth.masks_of(file, folder, masks) for file in files]
        check_one_image_each(files, found)
        with ThreadPoolExecutor(_THREADS) as pool:
            # Lazy: with on_error="raise" the first unusable mask ends the listing.
            states = pool.map(partial(truth.mask_state, on_error=on_error), files, found)
            for file, own, seen in zip(files, found, states, strict=True):
                name = _name(file, root)
                usable = seen.state == "usable"
                if folder.name != GOOD:
                    for kind, is_so in (
                        (seen.state, not usable), ("grays", seen.grays), ("inverted", seen.inverted)
                    ):  # fmt: skip
                        if is_so:
                            trouble[kind].append(name)
                load_mask = partial(truth.united_mask, own) if usable else None
                records.append(
                    Record(
                        name,
                        partial(load, file),
                        folder.name,
                        load_mask,
                        load_roi=regions.of(file),
                    )
                )
    notes = [
        f"{layout.test.name}/{folder.name} counts as a type of defect: if its images are good, "
        f"rename it to {layout.test.name}/{GOOD}."
        for folder in folders
        if folder.name != GOOD and folder.name.lower() in _CALLED_GOOD
    ]
    if layout.unused:
        notes.append(f"Not used: {', '.join(layout.unused)}.")
    if loose := images_in(layout.test):
        notes.append(
            f"{_count(len(loose), 'image')} directly under {layout.test.name} left out, for lack "
            f"of a defect type: {_some(_name(f, root) for f in loose)}."
        )
    if trouble["missing"] and not truths.is_dir():
        notes.append("No folder ground_truth was found, so no defective test image has a mask.")
    elif trouble["missing"]:
        notes.append(_about(trouble["missing"], "without a mask"))
    if trouble["empty"]:
        notes.append(_about(trouble["empty"], "with an empty mask, which is ignored"))
    if trouble["unusable"]:
        notes.append(_about(trouble["unusable"], "with a broken or wrong-sized mask, not used"))
    if trouble["grays"]:
        notes.append(
            _about(
                trouble["grays"],
                "with gray levels in the mask that count as good, so that pixel figures may be "
                "wrong (save masks with two values, see python -m recon_ad.check)",
            )
        )
    if trouble["inverted"]:
        notes.append(
            _about(
                trouble["inverted"],
                "with a mask that seems inverted, so that pixel figures may be wrong (white is "
                "what is defective)",
            )
        )
    return tuple(records), notes


def check_one_image_each(files: Sequence[Path], masks: Sequence[Sequence[Path]]) -> None:
    """Raise UserError where two images that differ only in their suffix share a mask."""
    owners: dict[Path, Path] = {}
    for file, own in zip(files, masks, strict=True):
        for mask in own:
            if mask in owners:
                raise UserError(
                    f"{mask} is the mask of both {owners[mask]} and {file.name}: give the images "
                    "names that differ in more than the suffix"
                )
            owners[mask] = file


def _about(names: list[str], what: str) -> str:
    return f"{_count(len(names), 'defective test image')} {what}: {_some(names)}."

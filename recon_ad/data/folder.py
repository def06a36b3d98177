"""Folders of images, and images in memory, as sources.

A folder is either laid out as MVTec AD is (Bergmann et al. 2019, CVPR, section 3):
`train/good/*`, `test/<defect>/*`, `ground_truth/<defect>/<stem>_mask.png`, where `test` and
`ground_truth` may be missing, or it is simply a folder of good images. Suffixes count in any case;
names that begin with a dot are ignored. Training images are decoded once when the source is made,
since a truncated file shows only then; test images are only listed, and decoded by who needs them.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from recon_ad.data.decode import SUFFIXES, check_channels, decode_image, decode_mask, image_size
from recon_ad.data.source import GOOD, Record, Source, as_image
from recon_ad.errors import UserError


def folder_source(
    path: str | os.PathLike[str],
    *,
    category: str = "",
    channels: int | None = None,
    on_error: str = "raise",
) -> Source:
    """Lists a folder of images; records load [h, w, c] uint8 and are named relative to the folder.

    Args:
      path: a folder in the MVTec layout, a folder of such folders, or a folder of good images.
      category: the folder below `path` to use, for a folder of such folders.
      channels: 1 (gray) or 3 (RGB) for all images. None: 3 if any training image is RGB, else 1.
      on_error: "raise" stops at the first broken training image or unusable mask; "skip" leaves the
        image or the mask out and says so in the notes.

    Returns:
      Images sorted by name. A defective image whose mask is missing or empty has no `load_mask`:
      its truth is unknown. The notes name such images.

    Raises:
      UserError: there is no such folder, no training image, several categories and none chosen, or,
        unless skipped, a broken training image, a broken mask, or a mask of another size than its
        image.
    """
    check_channels(channels)
    if on_error not in ("raise", "skip"):
        raise UserError(f'on_error is "{on_error}": give "raise" or "skip"')
    root = _root(Path(path), category)
    good = root / "train" / GOOD
    train_folder = good if good.is_dir() else root
    files = _images(train_folder)
    if not files:
        raise UserError(
            f"{train_folder}: holds no images: put good images there "
            f"({', '.join(sorted(SUFFIXES))}; subfolders are not searched)"
        )
    notes = _left_out(train_folder, root, mvtec=train_folder != root)
    files, train_channels, train_notes = _verified(files, root, channels, on_error)
    load = partial(decode_image, channels=train_channels)
    train = tuple(Record(_name(file, root), partial(load, file)) for file in files)
    test: tuple[Record, ...] = ()
    test_notes: list[str] = []
    if train_folder != root:
        test, test_notes = _test_split(root, load, on_error)
    return Source(train, test, tuple([*notes, *train_notes, *test_notes]))


def memory_source(images: Sequence[np.ndarray] | np.ndarray) -> Source:
    """Makes a source of good images that are in memory already; it has no test split.

    Args:
      images: a list of images, or an array whose first axis counts them. Each is [h, w] or
        [h, w, c] with c = 1 or 3, the same c for all; uint8, or floating point in [0, 1].

    Returns:
      Records named "0000", "0001", ... that load [h, w, c], uint8 as given or float32.

    Raises:
      UserError: no image, or one of another shape, type or range; the message says which.
    """
    if isinstance(images, np.ndarray) and images.ndim < 3:
        raise UserError(
            f"the array of images has shape {images.shape}: give [n, h, w] or [n, h, w, c], or a "
            "list of images"
        )
    arrays = [
        _read_only(as_image(image, name=f"image {index}")) for index, image in enumerate(images)
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
    """A view through which the caller's array cannot be changed."""
    view = image.view()
    view.flags.writeable = False
    return view


def _root(path: Path, category: str) -> Path:
    """The folder that holds `train/good` or the images; `UserError` says what is there instead."""
    if not path.exists():
        raise UserError(f"{path}: there is no such folder: check the path")
    if not path.is_dir():
        raise UserError(f"{path}: is a file: give the folder that holds the images")
    root = path / category
    categories = [d.name for d in _subfolders(path) if (d / "train" / GOOD).is_dir()]
    if not root.is_dir():
        there = f"there are {', '.join(categories)}" if categories else "there are none"
        raise UserError(f'{path}: has no category "{category}": {there}')
    if (root / "train" / GOOD).is_dir() or _images(root):
        return root
    if categories and not category:
        raise UserError(
            f"{path}: holds a folder for each category: choose one with category=, there are "
            f"{', '.join(categories)}"
        )
    if (root / "train").is_dir():
        raise UserError(f"{root}: has a folder train but no train/{GOOD}: put good images there")
    raise UserError(
        f"{root}: holds neither images ({', '.join(sorted(SUFFIXES))}) nor a folder train/{GOOD}: "
        "give a folder of good images or one in the MVTec layout; subfolders are not searched"
    )


def list_images(folder: Path) -> list[Path]:
    """Images in a folder and in all folders below it, sorted; dotfiles and dot-folders left out."""
    found = _images(folder)
    for below in _subfolders(folder):
        found += list_images(below)
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)


def _subfolders(folder: Path) -> list[Path]:
    return [p for p in _visible(folder) if p.is_dir()]


def _images(folder: Path) -> list[Path]:
    return [p for p in _visible(folder) if p.suffix.lower() in SUFFIXES and p.is_file()]


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _some(names: Iterable[str], shown: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _left_out(folder: Path, root: Path, *, mvtec: bool) -> list[str]:
    """Notes on what lies beside the training images and is not used."""
    notes = []
    others = [p for p in _visible(folder) if p.is_file() and p.suffix.lower() not in SUFFIXES]
    if others:
        notes.append(
            f"{_count(len(others), 'file')} beside the training images left out for the suffix: "
            f"{_some(_name(p, root) for p in others)}."
        )
    folders = _subfolders(folder)
    if folders:
        hint = "" if mvtec else " (without train/good, the images here are taken for good ones)"
        notes.append(
            f"{_count(len(folders), 'subfolder')} of the training images not searched{hint}: "
            f"{_some(_name(p, root) for p in folders)}."
        )
    return notes


def _verify(file: Path, *, on_error: str) -> int | UserError:
    """The channels of an image that decodes, or with on_error="skip" why it does not."""
    try:
        return decode_image(file).shape[2]
    except UserError as error:
        if on_error == "raise":
            raise
        return error


def _verified(
    files: list[Path], root: Path, channels: int | None, on_error: str
) -> tuple[list[Path], int, list[str]]:
    """Decodes every training image: the usable files, the channels to read all with, notes."""
    kept: list[Path] = []
    found: Counter[int] = Counter()
    broken: list[tuple[Path, UserError]] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        results = pool.map(partial(_verify, on_error=on_error), files)
        for file, result in zip(files, results, strict=True):
            if isinstance(result, UserError):
                broken.append((file, result))
            else:
                kept.append(file)
                found[result] += 1
    if not kept:
        raise UserError(f"none of the {len(files)} training images can be used: {broken[0][1]}")
    notes = []
    if broken:
        notes.append(
            f"{len(broken)} of {_count(len(files), 'training image')} skipped as broken: "
            f"{_some(_name(file, root) for file, _ in broken)}."
        )
    if channels is None:
        channels = 3 if found[3] else 1
        if len(found) > 1:
            notes.append(
                f"{found[3]} of {len(kept)} training images are RGB and the others gray: all are "
                "read as RGB."
            )
    return kept, channels, notes


def _test_split(
    root: Path, load: Callable[[Path], np.ndarray], on_error: str
) -> tuple[tuple[Record, ...], list[str]]:
    """The records under `test/` with their masks, and notes."""
    if not (root / "test").is_dir():
        return (), []
    truth = root / "ground_truth"
    has_truth = truth.is_dir()
    records: list[Record] = []
    trouble: dict[str, list[str]] = {"missing": [], "empty": [], "unusable": []}
    for folder in _subfolders(root / "test"):
        masks = _masks(truth / folder.name) if folder.name != GOOD else {}
        files = _images(folder)
        found = [masks.get(f"{f.stem}_mask") or masks.get(f.stem) for f in files]
        with ThreadPoolExecutor() as pool:
            # Lazy: with on_error="raise" the first unusable mask ends the listing.
            states = pool.map(partial(_mask_state, on_error=on_error), files, found)
            for file, mask, state in zip(files, found, states, strict=True):
                name = _name(file, root)
                if folder.name != GOOD and state != "usable":
                    trouble[state].append(name)
                usable = mask is not None and state == "usable"
                load_mask = partial(decode_mask, mask) if usable else None
                records.append(Record(name, partial(load, file), folder.name, load_mask))
    notes = []
    if loose := _images(root / "test"):
        notes.append(
            f"{_count(len(loose), 'image')} directly under test left out, for lack of a defect "
            f"type: {_some(_name(f, root) for f in loose)}."
        )
    if trouble["missing"] and not has_truth:
        notes.append("There is no folder ground_truth, so no defective test image has a mask.")
    elif trouble["missing"]:
        notes.append(_about(trouble["missing"], "without a mask"))
    if trouble["empty"]:
        notes.append(_about(trouble["empty"], "with an empty mask, which is not used"))
    if trouble["unusable"]:
        notes.append(_about(trouble["unusable"], "with a broken or wrong-sized mask, not used"))
    return tuple(records), notes


def _about(names: list[str], what: str) -> str:
    return f"{_count(len(names), 'defective test image')} {what}: {_some(names)}."


def _masks(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in _images(folder)} if folder.is_dir() else {}


def _mask_state(image: Path, mask: Path | None, *, on_error: str) -> str:
    """Whether an image's mask is "usable", "missing", "empty" or, on_error="skip", "unusable"."""
    if mask is None:
        return "missing"
    try:
        truth = decode_mask(mask)
        size = _size_or_none(image)
        if size is not None and truth.shape != size:
            raise UserError(
                f"{mask}: the mask has {truth.shape[0]} × {truth.shape[1]} pixels (height × width) "
                f"and its image {image} has {size[0]} × {size[1]}: draw the mask on the image's "
                "own pixels"
            )
    except UserError:
        if on_error == "raise":
            raise
        return "unusable"
    return "usable" if truth.any() else "empty"


def _size_or_none(image: Path) -> tuple[int, int] | None:
    """The size of a test image, None where it is broken: who decodes it later says so."""
    try:
        return image_size(image)
    except UserError:
        return None

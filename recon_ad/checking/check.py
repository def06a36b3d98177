"""Check of a folder of images for contents that would spoil a training or its figures.

The folder is listed as `folder_source` lists it. Every image and mask is read once, as many at a
time as memory allows. Images are read a second time for the figures without a model.
"""

import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from recon_ad.checking.confounders import Figure, about_figures, figures
from recon_ad.checking.findings import (
    Finding,
    Truth,
    about_channels,
    about_constant,
    about_copies,
    about_depth,
    about_masks,
    about_series,
    about_sizes,
    count,
    is_readable,
    kind,
)
from recon_ad.checking.look import (
    ImageLook,
    MaskLook,
    look_at_image,
    look_at_mask,
    look_at_region,
    side_by_side,
)
from recon_ad.data import truth
from recon_ad.data.arrays import resize
from recon_ad.data.decode import SUFFIXES, decode_image
from recon_ad.data.folder import check_one_image_each
from recon_ad.data.layout import Layout, check_all_good, check_no_masks, dataset_root, layout_of
from recon_ad.data.listing import files_below, images_below
from recon_ad.data.source import GOOD
from recon_ad.errors import UserError
from recon_ad.runtime.terminal import escaped

_SHOWN = 20  # files that a finding names
_FEW = 3  # largest number of sizes that are listed one by one
_WIDTH = 96
_LONGEST = 2048  # px, to which images are reduced for the figures without a model


class Report(NamedTuple):
    """Result of the check.

    Attributes:
      root: Folder that was checked.
      findings: Findings, those that must be fixed first.
      sections: Title and lines of each section.
    """

    root: Path
    findings: tuple[Finding, ...]
    sections: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def mend(self) -> bool:
        """True if anything must be fixed before training."""
        return any(finding.mend for finding in self.findings)


class _Folder(NamedTuple):
    """Files by their role; types of test images in order, with their masks by `truth.stems`."""

    root: Path
    layout: Layout
    train: list[Path]
    test: dict[str, list[Path]]
    masks: dict[str, dict[str, Path]]
    regions: truth.Regions

    def name(self, file: Path) -> str:
        return escaped(file.relative_to(self.root).as_posix())


def check_folder(path: str | os.PathLike[str], *, category: str = "") -> Report:
    """Check a folder of images.

    Args:
      path: Folder in the MVTec layout, a folder of such folders, or a folder of good images.
      category: Folder below `path` to use, for a folder of such folders.

    Raises:
      UserError: If the folder does not exist, has no training image, or has several categories of
        which none is chosen.
    """
    folder = _listed(Path(path), category)
    wanted = [(file, "") for file in folder.train]
    wanted += [(file, defect) for defect, files in folder.test.items() for file in files]
    seen = side_by_side(
        lambda pair: look_at_image(pair[0], folder.name(pair[0]), pair[1]),
        [(pair[0], pair) for pair in wanted],
    )
    looks = [look for look in seen if isinstance(look, ImageLook)]
    errors = [look for look in seen if isinstance(look, UserError)]
    sizes = {look.file: look.size for look in looks}
    truths, mask_errors, orphans = _truths(folder, sizes)
    errors += mask_errors + _region_errors(folder, sizes)

    findings = [*_broken(folder, errors), *_names(folder), *_left_out(folder)]
    of_channels, channels = about_channels(looks)
    of_depth, looks = about_depth(looks)
    findings += [*of_channels, *of_depth, *about_sizes(looks), *about_constant(looks)]
    defective = [t for defect, ts in truths.items() if defect != GOOD for t in ts]
    findings += about_masks(defective, truths.get(GOOD, []), orphans)
    findings += [*about_copies(looks), *about_series(looks)]
    of_test, of_figures = _figures(looks, channels)
    findings += of_figures
    sections = (
        ("Counts", _counts(folder, truths)),
        ("Sizes (height × width, px)", _sizes(looks)),
        ("Channels and type", _kinds(looks)),
        ("Masks", _shares(defective)),
        ("Image AUROC without a model (0.50 is chance, 1.00 separates all images)", of_test),
    )
    return Report(
        folder.root,
        tuple(sorted(findings, key=lambda finding: not finding.mend)),
        tuple((title, tuple(lines)) for title, lines in sections if lines),
    )


def as_text(report: Report) -> str:
    """Format the report for a terminal: what to fix, what to check, and the folder's content."""
    lines = [str(report.root)]
    number = 0
    for title, mend in (("Fix before training", True), ("Please check", False)):
        findings = [finding for finding in report.findings if finding.mend == mend]
        if findings:
            lines += ["", title]
        for finding in findings:
            number += 1
            lines += textwrap.wrap(
                finding.text,
                _WIDTH,
                initial_indent=f"{number:2}. ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            lines += [f"      {file}" for file in finding.files[:_SHOWN]]
            if finding.files[_SHOWN:]:
                lines.append(f"      and {len(finding.files) - _SHOWN} more")
    if not report.findings:
        lines += ["", "No problems were found."]
    for title, section in report.sections:
        lines += ["", title, *(f"  {line}" for line in section)]
    return "\n".join(lines)


def _listed(path: Path, category: str) -> _Folder:
    root = dataset_root(path, category)
    layout = layout_of(root)
    regions = truth.Regions(root)
    train = [file for file in layout.good_images() if not regions.is_region(file)]
    if not train:
        raise UserError(
            f"{layout.good} contains no images ({', '.join(sorted(SUFFIXES))}); put good images "
            "there"
        )
    if layout.good == root:
        check_all_good(train, root)
        return _Folder(root, layout, train, {}, {}, regions)
    test = {f.name: images_below(f) for f in layout.types()}
    masks = {f.name: truth.stems(f) for f in Layout(root, test=layout.truths).types()}
    return _Folder(root, layout, train, test, masks, regions)


def _truths(
    folder: _Folder, sizes: dict[Path, tuple[int, int]]
) -> tuple[dict[str, list[Truth]], list[UserError], list[str]]:
    """Return test images with masks by type, errors of masks, and names of masks of no image."""
    found = {
        defect: {
            file: truth.masks_of(file, _of_type(folder, defect), folder.masks.get(defect, {}))
            for file in files
        }
        for defect, files in folder.test.items()
    }
    used = [mask for by_image in found.values() for masks in by_image.values() for mask in masks]
    seen = side_by_side(
        lambda file: look_at_mask(file, folder.name(file)), [(file, file) for file in used]
    )
    looks = dict(zip(used, seen, strict=True))
    truths = {
        defect: [
            Truth(
                folder.name(file),
                sizes.get(file),
                tuple(look for mask in masks if isinstance(look := looks[mask], MaskLook)),
                bool(masks),
            )
            for file, masks in by_image.items()
        ]
        for defect, by_image in found.items()
    }
    # The masks of good images are never read.
    read = [
        mask for d, by_image in found.items() if d != GOOD for m in by_image.values() for mask in m
    ]
    errors = [look for mask in read if isinstance(look := looks[mask], UserError)]
    given = {mask for masks in folder.masks.values() for mask in masks.values()}
    orphans = sorted(folder.name(mask) for mask in given - set(used))
    return truths, errors, orphans


def _of_type(folder: _Folder, defect: str) -> Path:
    assert folder.layout.test is not None, "a type is one of the test images'"
    return folder.layout.test / defect


def _names(folder: _Folder) -> list[Finding]:
    """Return findings on names that make a mask another image's mask, or a good image."""
    checks = [partial(check_no_masks, folder.train)]
    for defect, files in folder.test.items():
        masks = folder.masks.get(defect, {})
        own = [truth.masks_of(file, _of_type(folder, defect), masks) for file in files]
        checks.append(partial(check_one_image_each, files, own))
    found = []
    for check in checks:
        try:
            check()
        except UserError as error:
            found.append(Finding(f"{error}.", mend=True))
    return found


def _region_errors(folder: _Folder, sizes: dict[Path, tuple[int, int]]) -> list[UserError]:
    loads = [(file, load) for file in sizes if (load := folder.regions.of(file)) is not None]
    return [error for error in side_by_side(look_at_region, loads) if error is not None]


def _broken(folder: _Folder, errors: Sequence[UserError]) -> list[Finding]:
    if not errors:
        return []
    start = os.path.join(folder.root, "") if folder.root != Path() else ""
    return [
        Finding(
            f"{count(len(errors), 'file')} cannot be used and will stop the training. Repair or "
            "remove the files below, or train with --config.data.on_error=skip.",
            tuple(str(error).replace(start, "") if start else str(error) for error in errors),
            mend=True,
        )
    ]


def _left_out(folder: _Folder) -> list[Finding]:
    """Return findings on files that neither training nor test will read."""
    root, layout = folder.root, folder.layout
    found = []
    folders = (layout.good, layout.validation, layout.test, layout.truths)
    parts = [part for part in folders if part is not None]
    others = [
        folder.name(file)
        for part in parts
        if part.is_dir()
        for file in files_below(part)
        if file.suffix.lower() not in SUFFIXES
    ]
    if others:
        found.append(
            Finding(
                f"{count(len(others), 'file')} beside the images will be left out because of the "
                f"suffix. Save images as one of {', '.join(sorted(SUFFIXES))}.",
                tuple(others),
            )
        )
    if layout.test is not None and layout.truths is not None:
        known = {*folder.train, *(f for files in folder.test.values() for f in files)}
        known |= {mask for masks in folder.masks.values() for mask in masks.values()}
        lost = [f for f in images_below(root) if f not in known and not folder.regions.is_region(f)]
        if lost:
            found.append(
                Finding(
                    f"{count(len(lost), 'image')} outside the folders train/{GOOD}, "
                    f"validation/{GOOD}, {folder.name(layout.test)}/{GOOD}, "
                    f"{folder.name(layout.test)}/<defect> and "
                    f"{folder.name(layout.truths)}/<defect> will not be used. Move or remove the "
                    "files below.",
                    tuple(folder.name(file) for file in lost),
                )
            )
    return found


def _figures(looks: Sequence[ImageLook], channels: int) -> tuple[list[str], list[Finding]]:
    """Return the lines on the figures without a model, and the findings."""
    test = Counter(look.defect for look in looks if not look.training)
    if not test:
        return ["not available: no test images"], []
    if not test[GOOD] or test[GOOD] == test.total():
        absent, folder = ("defective", "<defect>") if test[GOOD] else ("good", GOOD)
        rest = "" if test[GOOD] else "; only pixel figures are"
        text = (
            f"No {absent} test images were found, so no image figure (AUROC, average precision, "
            f"F1) is possible{rest}. Put {absent} images that are not in train into test/{folder}."
        )
        return [f"not available: no {absent} test images"], [Finding(text)]
    if not channels or not all(is_readable(look, channels) for look in looks):
        return ["not available: the images differ in their number of channels"], []
    found = figures(looks, partial(_reduced, channels=channels))
    return [_line(figure) for figure in found], about_figures(found)


def _reduced(look: ImageLook, *, channels: int) -> Shaped[np.ndarray, "h w c"]:
    image = decode_image(look.file, channels=channels)
    factor = _LONGEST / max(look.size)
    smaller = [max(1, round(n * factor)) for n in look.size]
    return resize(image, (smaller[0], smaller[1]) if factor < 1 else None)


def _line(figure: Figure) -> str:
    few = " (too few images to tell)" if figure.high and not figure.tells_apart else ""
    return f"{figure.name:<32}{figure.auroc:.2f}  defective: {figure.how}{few}"


def _counts(folder: _Folder, truths: dict[str, list[Truth]]) -> list[str]:
    held_out = sum(map(folder.layout.is_validation, folder.train))
    lines = [f"{'train':<32}{len(folder.train) - held_out:>4}"]
    if held_out:
        lines.append(f"{'validation':<32}{held_out:>4}")
    for defect, images in truths.items():
        masks = sum(truth.given for truth in images)
        with_masks = f"  {masks} with a mask" if defect != GOOD else ""
        lines.append(f"{'test, ' + defect:<32}{len(images):>4}{with_masks}")
    return lines


def _sizes(looks: Sequence[ImageLook]) -> list[str]:
    lines = []
    for split, part in _splits(looks):
        sizes = Counter(look.size for look in part)
        if len(sizes) <= _FEW:
            told = ", ".join(f"{h} × {w} ({n})" for (h, w), n in sizes.most_common())
        else:
            sides = np.array([look.size for look in part])
            least, middle, most = (
                "{:.0f} × {:.0f}".format(*of(sides, axis=0)) for of in (np.min, np.median, np.max)
            )
            told = f"{len(sizes)} sizes: {least} to {most}, median {middle}"
        lines.append(f"{split:<8}{told}")
    return lines


def _kinds(looks: Sequence[ImageLook]) -> list[str]:
    lines = []
    for split, part in _splits(looks):
        kinds = Counter(f"{kind(look.channels)}, {_depth(look.dtype)}" for look in part)
        told = "; ".join(f"{name} ({number})" for name, number in kinds.most_common())
        lines.append(f"{split:<8}{told}; largest value {max(x.highest for x in part):g}")
    gray = sum(look.colourless and look.colours for look in looks)
    if gray and gray == sum(look.channels == 3 for look in looks):
        lines.append("The RGB images have no colour; config.data.channels=1 saves time.")
    return lines


def _depth(dtype: str) -> str:
    return f"{dtype.removeprefix('uint')} bits" if dtype.startswith("uint") else "floats"


def _shares(truths: Sequence[Truth]) -> list[str]:
    shares = [mask.share for truth in truths for mask in truth.masks]
    if not shares:
        return []
    return [
        f"{count(len(shares), 'mask')}: {min(shares):.2%} to {max(shares):.2%} of the image, "
        f"median {np.median(shares):.2%}"
    ]


def _splits(looks: Sequence[ImageLook]) -> list[tuple[str, list[ImageLook]]]:
    splits = (
        ("train", [look for look in looks if look.training]),
        ("test", [look for look in looks if not look.training]),
    )
    return [(name, part) for name, part in splits if part]

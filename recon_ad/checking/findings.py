"""Findings on a folder's images and masks, in plain sentences for its owner.

Every function takes measurements and returns findings, none if nothing is wrong. The measurements
are of files that can be decoded, and their names are relative to the folder.
"""

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from recon_ad.checking.look import ImageLook, MaskLook
from recon_ad.checking.similar import nearly_same, same, series
from recon_ad.data.truth import MUCH, is_inverted

_BITS = (8, 10, 12, 14)  # bits of cameras that save files of 16
_CONSTANT = 0.005  # of white; an image of lower deviation shows nothing: 1.3 of 255 levels
_ODD_FACTOR, _ODD_SIGMAS, _ODD_SHARE = 1.5, 5.0, 0.1  # of a size that stands out
_FEW = 8  # up to this many similar training images are named as copies in any set
# Place of the copies -> advice, and whether the copies make figures wrong.
_COPIES = {
    "in train and in test": ("Remove it from train, or the test proves nothing", True),
    "in test under different labels": ("Keep it under the correct label only", True),
    "more than once in train": (
        "It counts more than once, and copies may be in training and in calibration at the same "
        "time; keep one",
        False,
    ),
    "more than once in test": ("It counts more than once in the figures; keep one", False),
}


class Finding(NamedTuple):
    """A problem, or a possible problem, of the folder.

    Attributes:
      text: Description of the problem and what to do about it.
      files: One line for each file concerned, if any.
      mend: True if the problem stops a run or makes its figures wrong.
    """

    text: str
    files: tuple[str, ...] = ()
    mend: bool = False


class Truth(NamedTuple):
    """An image of a test folder and its masks.

    Attributes:
      name: Name of the image.
      size: Size of the image. None if it cannot be decoded.
      masks: Masks that can be decoded.
      given: True if the image has any mask file.
    """

    name: str
    size: tuple[int, int] | None
    masks: tuple[MaskLook, ...]
    given: bool


def count(number: int, noun: str) -> str:
    """Return the number and the noun, in the plural unless the number is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_readable(look: ImageLook, channels: int) -> bool:
    """Return whether `decode_image` can give that number of channels of an image."""
    change = (look.channels, channels)
    return look.channels == channels or change == (1, 3) or (change == (3, 1) and look.colours)


def about_channels(looks: Sequence[ImageLook]) -> tuple[list[Finding], int]:
    """Return findings, and the number of channels with which images are read, 0 if undecided."""
    trained = Counter(look.channels for look in looks if look.training)
    if not trained:
        return [], 0
    mixed = all(is_readable(look, 1) for look in looks if look.training)
    usable = len(trained) == 1 or mixed
    channels = max(trained) if usable else 0
    # In a mixed training set the minority is odd, whatever the test images have.
    usual = max(trained, key=trained.__getitem__)
    odd = [
        look
        for look in looks
        if not (is_readable(look, channels) if usable else look.channels == usual)
    ]
    if odd:
        return [
            Finding(
                f"{count(len(odd), 'image')} cannot be read together with the others, most of "
                f"which have {_channels(usual)}. Save all with the same number of channels.",
                tuple(f"{look.name} has {_channels(look.channels)}" for look in odd),
                mend=True,
            )
        ], channels
    kinds = Counter(look.channels for look in looks)
    if len(kinds) < 2:
        return [], channels
    few, many = sorted(kinds, key=kinds.__getitem__)
    return [
        Finding(
            f"{count(kinds[few], 'image')} of {len(looks)} {_have(kinds[few])} {_channels(few)} "
            f"and the others {_channels(many)}. All will be read as {kind(channels)}. If this is "
            "not intended, save all alike, or set config.data.channels=1 to read all as gray.",
            tuple(look.name for look in looks if look.channels == few),
        )
    ], channels


def about_depth(looks: Sequence[ImageLook]) -> tuple[list[Finding], list[ImageLook]]:
    """Return findings, and the measurements with the white of these images."""
    kinds = Counter(look.dtype for look in looks)
    highest = max((look.highest for look in looks if look.dtype == "uint16"), default=0)
    bits = next((bits for bits in _BITS if highest < 2**bits), 16)
    white = (2**bits - 1) / 65535 if highest else 1.0
    seen = [look.with_white(white) if look.dtype == "uint16" else look for look in looks]
    if len(kinds) > 1:
        usual = max(kinds, key=kinds.__getitem__)
        return [
            Finding(
                f"The images differ in type ({_counted(kinds)}), and each is scaled by the range "
                "of its type. Save all with the same number of bits.",
                tuple(f"{look.name} is {look.dtype}" for look in looks if look.dtype != usual),
            )
        ], seen
    if white == 1:
        return [], seen
    return [
        Finding(
            f"The images have 16 bits, but no value is above {highest:.0f}. If the camera gives "
            f"{bits} bits, train with --config.data.input_range='(0,{2**bits - 1})'; otherwise all "
            "images count as nearly black."
        )
    ], seen


def about_sizes(looks: Sequence[ImageLook]) -> list[Finding]:
    """Return findings on images whose height or width is far from the others'."""
    if not looks:
        return []
    sides = np.log([look.size for look in looks])
    middle = np.median(sides, axis=0)
    spread = 1.4826 * np.median(np.abs(sides - middle), axis=0)
    limit = np.maximum(math.log(_ODD_FACTOR), _ODD_SIGMAS * spread)
    odd = np.flatnonzero((np.abs(sides - middle) > limit).any(axis=1))
    if not len(odd) or len(odd) > max(1, _ODD_SHARE * len(looks)):
        return []  # if many differ, sizes simply vary, which is not a mistake
    return [
        Finding(
            f"{count(len(odd), 'image')} {'is' if len(odd) == 1 else 'are'} much smaller or larger "
            f"than the others, which have about {_size(np.exp(middle))} pixels (height × width). "
            "Check that all images show the same part at the same scale.",
            tuple(f"{looks[i].name} has {_size(looks[i].size)}" for i in odd),
        )
    ]


def about_constant(looks: Sequence[ImageLook]) -> list[Finding]:
    """Return findings on images that show nothing."""
    flat = [look for look in looks if look.contrast < _CONSTANT]
    if not flat:
        return []
    shades = []
    for look in flat:
        level = look.brightness
        shade = "black" if level < 0.02 else "white" if level > 0.98 else f"gray, {level:.0%}"
        shades.append(f"{look.name} is all {shade}")
    return [
        Finding(
            f"{count(len(flat), 'image')} {_have(len(flat))} nearly the same value everywhere. "
            "Check whether the camera or the light failed, and remove images that show nothing.",
            tuple(shades),
        )
    ]


def about_copies(looks: Sequence[ImageLook]) -> list[Finding]:
    """Return findings on pictures that are in the folder more than once."""
    near = [list(pair) for pair in nearly_same(looks)]
    alike = {look.name for pair in near if all(x.training for x in pair) for look in pair}
    trained = sum(look.training for look in looks)
    if len(alike) > max(trained / 2, _FEW):  # copies cannot be distinguished from other shots
        of_near = [
            Finding(
                f"{len(alike)} of {trained} training images differ from another one by no more "
                "than a copy would. This is normal for a part in a fixture that is photographed "
                "many times; if they are copies, keep one of each."
            )
        ]
    else:
        of_near = _copies(near, "The same picture, re-encoded, rescaled or taken twice, is")
    return _copies(same(looks), "The same picture, pixel by pixel, is") + of_near


def _copies(groups: Sequence[Sequence[ImageLook]], what: str) -> list[Finding]:
    sorted_out: dict[str, list[str]] = {place: [] for place in _COPIES}
    for group in groups:
        kinds = {look.defect for look in group}
        if len(kinds) > 1:
            place = "in train and in test" if "" in kinds else "in test under different labels"
        else:
            place = f"more than once in {'test' if kinds != {''} else 'train'}"
        sorted_out[place].append(" = ".join(look.name for look in group))
    found = []
    for place, lines in sorted_out.items():
        advice, mend = _COPIES[place]
        times = "one picture" if len(lines) == 1 else f"{len(lines)} pictures"
        if lines:
            text = f"{what} {place} ({times}). {advice}."
            found.append(Finding(text, tuple(lines), mend))
    return found


def about_series(looks: Sequence[ImageLook]) -> list[Finding]:
    """Return a finding on series of training images that their names reveal, if any."""
    told = series([look for look in looks if look.training])
    if told is None:
        return []
    name, group = told.example
    return [
        Finding(
            f"The training images seem to come in {told.groups} series, which their names show "
            f'("{group}" in {name}): for {told.agreement:.0%} of the images the most similar image '
            f"is of the same series; by chance this would be {told.chance:.0%}. If a series is one "
            "part, place or day, hold out whole series, as thresholds are too low otherwise: "
            f"--config.holdout.group={shlex.quote(told.pattern)}"
        )
    ]


def about_masks(
    truths: Sequence[Truth], good: Sequence[Truth], orphans: Sequence[str]
) -> list[Finding]:
    """Return findings on masks that are missing or implausible.

    Args:
      truths: Defective test images with their masks.
      good: Good test images, which should have no masks.
      orphans: Names of masks that belong to no image.
    """
    missing = [truth.name for truth in truths if not truth.given]
    pairs = [(mask, truth) for truth in truths for mask in truth.masks]
    masks = [mask for mask, _ in pairs]
    much = [mask for mask in masks if mask.share > MUCH]
    inverted = [mask for mask in much if is_inverted(share=mask.share, rim=mask.rim)]
    found = []

    def tell(lines: Iterable[str], one: str, many: str, rest: str, *, mend: bool = False) -> None:
        if lines := tuple(lines):
            start = f"1 {one}" if len(lines) == 1 else f"{len(lines)} {many}"
            found.append(Finding(f"{start} {rest}", lines, mend))

    if truths and len(missing) == len(truths):
        found.append(
            Finding(
                "No defective test image has a mask, so pixel figures are not possible. If you "
                "want them, put masks into ground_truth/<defect>/<name>_mask.png."
            )
        )
    else:
        tell(missing, "defective test image has", "defective test images have",
             "no mask and will be left out of pixel figures. Draw the masks, white where "
             "defective.")  # fmt: skip
    tell((f"{mask.name} has {_size(mask.size)} and its image {_size(truth.size)}"
          for mask, truth in pairs if truth.size is not None and mask.size != truth.size),
         "mask differs", "masks differ",
         "in size from the image (height × width). Draw masks on the image's own pixels.",
         mend=True)  # fmt: skip
    tell((mask.name for mask in masks if not mask.share), "mask is", "masks are",
         "empty and will not be used. Mark the defect in white, or move the image to test/good if "
         "it has no defect.")  # fmt: skip
    tell((_marked(mask) for mask in inverted), "mask seems", "masks seem",
         "inverted, since nearly all of the border is marked. White must mean defective and black "
         "good; if it is the other way round, invert the mask.")  # fmt: skip
    tell((_marked(mask) for mask in much if mask not in inverted), "mask covers", "masks cover",
         "more than half of the image. Check that white means defective.")  # fmt: skip
    tell((_levels(mask) for mask in masks if mask.between), "mask has", "masks have",
         "gray levels between black and the largest value; levels up to half of the largest count "
         "as good. Save masks with two values only, as PNG and not as JPEG.")  # fmt: skip
    tell((mask.name for truth in good for mask in truth.masks if mask.share),
         "mask marks a defect", "masks mark a defect",
         "in a good image and will not be used. Move the image to its defect type, or remove the "
         "mask.")  # fmt: skip
    tell(orphans, "mask belongs", "masks belong",
         "to no test image and will not be used. Check the names: ground_truth/<defect>/"
         "<name>_mask.png belongs to test/<defect>/<name>.png.")  # fmt: skip
    return found


def _marked(mask: MaskLook) -> str:
    return f"{mask.name} marks {mask.share:.0%}"


def _levels(mask: MaskLook) -> str:
    lost = f", {mask.lost} of them counting as good" if mask.lost else ""
    return f"{mask.name} has {count(mask.between, 'such pixel')}{lost}"


def _size(size: Iterable[int | float]) -> str:
    return " × ".join(f"{side:.0f}" for side in size)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())


def _channels(number: int) -> str:
    return "1 channel (gray)" if number == 1 else f"{number} channels"


def kind(channels: int) -> str:
    """Return the name of an image's kind by its number of channels."""
    return {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")


def _have(number: int) -> str:
    return "has" if number == 1 else "have"

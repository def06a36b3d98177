"""Copies among the images of a folder, and series of images that their names reveal.

The functions work on `ImageLook`s, so images are decoded again only for the few doubtful pairs.
Memory is that of the thumbnails, 4 KB for each image. Time is quadratic, 5 s for 10,000 images.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from recon_ad.checking.look import ImageLook, gray, side_by_side
from recon_ad.data.decode import decode_image

# Measured on four sets: a picture re-encoded as JPEG of quality 50 differs by less than 0.85 gray
# levels between thumbnails (1.9 if halved in size too) and by less than 0.4 between blurred
# pictures, and its fine detail correlates by 0.76 or more. Another photograph of the same part at
# the same place differs by 0.77 gray levels or more when blurred, unless nothing was moved.
_THUMBS_APART = 2.0  # gray levels, RMS; closer pairs are compared again at a larger size
_THUMBS_SHARE = 0.15  # of a thumbnail's own deviation, an additional limit
_BLUR = 8.0  # px, standard deviation; a JPEG changes means over its 8 × 8 blocks little
_BLURRED_APART = 0.6  # gray levels, RMS
_DETAIL_ALIKE = 0.7  # correlation of the detail that the blur removes
_LONGEST = 1024  # px, to which larger pictures are reduced for this
_FLAT = 0.5  # gray levels, deviation of a thumbnail that shows nothing

_BLOCK = 1024  # thumbnails that are compared with all others at a time

# A grouping by name is accepted if most similar images share the group this much more often than
# by chance (0: as by chance, 1: always), with at least so many images, and so far above the noise.
_AGREEMENT = 0.5
_ENOUGH = 12
_SIGMAS = 4.0
_AS_GOOD = 0.05  # among groupings this close to the best, the finest is the series
_FIELDS = 8  # largest number of fields of a name that are tried
_DIGITS = 5


class Series(NamedTuple):
    """Grouping by names that fits the similarity of the images.

    Attributes:
      pattern: Pattern for `config.holdout.group`.
      groups: Number of groups.
      example: One image's name and its group.
      agreement: Share of the images whose most similar image is in the same group.
      chance: Expected share if names and similarity were independent.
    """

    pattern: str
    groups: int
    example: tuple[str, str]
    agreement: float
    chance: float


def same(looks: Sequence[ImageLook]) -> list[list[ImageLook]]:
    """Return groups of two or more images whose decoded pixels are equal, in the order given."""
    groups = defaultdict(list)
    for look in looks:
        groups[look.digest].append(look)
    return [group for group in groups.values() if len(group) > 1]


def nearly_same(looks: Sequence[ImageLook]) -> list[tuple[ImageLook, ImageLook]]:
    """Return pairs of images that differ as if one was re-encoded or rescaled from the other.

    Images of equal pixels count once. Rotated, mirrored, cropped or brightened copies are not
    found, and neither are pictures of noise only.
    """
    once = list({look.digest: look for look in reversed(looks)}.values())[::-1]
    if len(once) < 2:
        return []
    vectors = _vectors(once)
    deviation = vectors.std(axis=1)
    limit = np.minimum(_THUMBS_APART, _THUMBS_SHARE * deviation)
    limit[deviation < _FLAT] = 0
    training = np.array([look.training for look in once])
    doubtful = set()
    # The closest image of each split, as a picture may have a copy in both.
    for part in (np.flatnonzero(training), np.flatnonzero(~training)):
        for i, (j, apart) in enumerate(_nearest(vectors, part)):
            if apart < min(limit[i], limit[j]):
                doubtful.add((min(i, j), max(i, j)))
    pairs = [(once[i], once[j]) for i, j in sorted(doubtful)]
    alike = side_by_side(
        lambda pair: _is_copy(*pair),
        [(max(pair, key=lambda look: look.size).file, pair) for pair in pairs],
    )
    return [pair for pair, copied in zip(pairs, alike, strict=True) if copied]


def series(looks: Sequence[ImageLook]) -> Series | None:
    """Return the grouping by a part of the names that fits the images' similarity, or None.

    In a fitting grouping each image's most similar image is in the same group far more often than
    by chance. Similarity is the correlation of thumbnails, so brighter or darker pictures of one
    thing are similar too.
    """
    if len(looks) < _ENOUGH:
        return None
    vectors = _vectors(looks)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(vectors.std(axis=1, keepdims=True), 1e-6)
    closest = np.array([j for j, _ in _nearest(vectors, np.arange(len(looks)))])
    names = [PurePosixPath(look.name).name for look in looks]
    found = []
    for pattern in _patterns(names):
        groups = _grouped(names, pattern)
        if groups is None:
            continue
        sizes = Counter(groups)
        if not 2 <= len(sizes) <= len(names) / 2:
            continue
        pairs = sum(size * (size - 1) for size in sizes.values())
        chance = pairs / (len(names) * (len(names) - 1))
        agreement = float(np.mean([groups[i] == groups[j] for i, j in enumerate(closest)]))
        kappa = (agreement - chance) / (1 - chance)
        noise = (chance * (1 - chance) / len(names)) ** 0.5
        if kappa >= _AGREEMENT and agreement - chance >= _SIGMAS * noise:
            largest = sizes.most_common(1)[0][0]
            example = (names[groups.index(largest)], largest)
            found.append((kappa, Series(pattern, len(sizes), example, agreement, chance)))
    if not found:
        return None
    best = max(kappa for kappa, _ in found)
    return max((s for kappa, s in found if kappa > best - _AS_GOOD), key=lambda s: s.groups)


def _vectors(looks: Sequence[ImageLook]) -> Float32[np.ndarray, "n d"]:
    return np.array([look.thumb.ravel() for look in looks], np.float32)


def _nearest(
    vectors: Float32[np.ndarray, "n d"], among: Int[np.ndarray, " k"]
) -> Iterator[tuple[int, float]]:
    """Yield the nearest other vector among some for each vector, and the RMS difference.

    The difference is infinite if `among` has only the vector itself; nothing is yielded if `among`
    is empty.
    """
    if not len(among):
        return
    # Centred, as the difference of the large squares below would otherwise lose digits.
    centred = vectors - vectors.mean(axis=0)
    squares = np.sum(centred**2, axis=1)
    others = centred[among].T
    for start in range(0, len(vectors), _BLOCK):
        stop = min(start + _BLOCK, len(vectors))
        apart = squares[start:stop, None] + squares[None, among]
        apart -= 2 * (centred[start:stop] @ others)
        apart[np.arange(start, stop)[:, None] == among[None, :]] = np.inf
        best = apart.argmin(axis=1)
        least = np.maximum(apart[np.arange(stop - start), best], 0)
        rms = np.sqrt(least / vectors.shape[1])
        yield from zip(among[best].tolist(), rms.tolist(), strict=True)


def _is_copy(first: ImageLook, second: ImageLook) -> bool:
    """Compare two pictures at the size of the smaller: the light exactly, the detail roughly."""
    height, width = (min(sides) for sides in zip(first.size, second.size, strict=True))
    factor = min(1.0, _LONGEST / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    blurred, detail = [], []
    for look in (first, second):
        plane = gray(decode_image(look.file)) * np.float32(255 / look.white)
        if plane.shape[::-1] != size:
            plane = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
        blurred.append(cv2.GaussianBlur(plane, (0, 0), _BLUR))
        detail.append(plane - blurred[-1])
    apart = np.sqrt(np.mean((blurred[0] - blurred[1]) ** 2))
    return bool(apart <= _BLURRED_APART and _correlation(*detail) >= _DETAIL_ALIKE)


def _correlation(a: Float[np.ndarray, "h w"], b: Float[np.ndarray, "h w"]) -> float:
    return float(np.sum(a * b) / max(np.sqrt(np.sum(a * a) * np.sum(b * b)), 1e-12))


def _patterns(names: Sequence[str]) -> Iterator[str]:
    """Yield regular expressions that match a part of a name, the simple ones first."""
    for mark in "_- ":
        fields = min((name.count(mark) for name in names), default=0) + 1
        if fields < 2:
            continue
        # Fields of the group exclude the dot before the suffix.
        field, before = f"[^{mark}.]*", f"[^{mark}]*{mark}"
        for skipped in range(min(fields, _FIELDS)):
            start = f"^(?:{before}){{{skipped}}}" if skipped else "^"
            yield f"{start}({field})"
            if skipped + 1 < fields:
                yield f"{start}({field}{mark}{field})"
    yield r"^(\D+)"
    # The leading digits of the last number, as for pictures taken one after the other.
    for digits in range(1, _DIGITS + 1):
        yield rf"(\d*)\d{{{digits}}}\D*$"


def _grouped(names: Sequence[str], pattern: str) -> list[str] | None:
    """Return the group of each name, or None if any name has no group."""
    matches = [re.search(pattern, name) for name in names]
    return [match[1] for match in matches if match] if all(matches) else None

"""Registration of a rigid part (Buzzega et al., section 3.1): where is the template in an image?

A similarity maps points of the template to points of the image: rotation, scale and shift. It is
found in two steps, with NumPy, SciPy and OpenCV only:

- coarse: the best poses of a grid (`recon_ad.alignment.coarse_search`);
- fine: from the best of these poses by Gauss and Newton at growing resolutions, for the four
  numbers of the similarity together with gain and offset of the light (Evangelidis and Psarakis
  2008 maximise the same correlation), with weights that defects have no say in (Tukey's biweight).

The confidence is the normalised correlation of the template and the aligned image. A part below the
least confidence, or seen by too small a share, is not registered: its images must not be scored.

Images, masks and matrices are as in `recon_ad.alignment.geometry`.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Shaped

from recon_ad.alignment.coarse_search import Search, candidates
from recon_ad.alignment.geometry import (
    Gray,
    Mask,
    Matrix,
    Template,
    TooLittle,
    angle_of,
    corners,
    resized,
    scale_of,
    scaled,
    seen_by,
    shrunk,
    size_text,
    warp,
    within,
)
from recon_ad.data.arrays import to_unit
from recon_ad.errors import UserError

FINE = (256, 640)  # px, the template's longer side in the second step's rounds
ROUNDS = 20  # of Gauss and Newton at most, at each resolution
STILL = 0.01  # px that a corner moves by when it has arrived
REWEIGHTED = 3  # times in each of them
BLURRED = 4  # px that a blur of 1 px reaches
LEAST_SPREAD = 0.05  # of the image's own
TUKEY = 4.685  # standard deviations beyond which a pixel is no longer believed (95 % efficiency)


class Registration(NamedTuple):
    """Where the part is.

    Attributes:
      matrix: from the template to the image.
      confidence: normalised correlation of template and aligned image, in [−1, 1].
      overlap: share of the template's pixels that the picture shows.
      registered: whether both reach what the search asks for, and the pose is within it (1° and
        0.02 more, since the search is a grid).
    """

    matrix: Matrix
    confidence: float
    overlap: float
    registered: bool

    @property
    def angle(self) -> float:
        """Degrees, counter-clockwise as one sees the image."""
        return angle_of(self.matrix)

    @property
    def scale(self) -> float:
        """Of the part in the image, 1 for the template's own."""
        return scale_of(self.matrix)


def make_template(image: Shaped[np.ndarray, "h w c"], *, mask: Mask | None = None) -> Template:
    """The template from an image of the part.

    Raises:
      UserError: the mask has another size, or what it leaves shows nothing.
    """
    gray = gray_of(image)
    mask = _mask_of(gray, mask, name="template")
    if not mask.any() or gray[mask].std() < 1e-3:
        raise TooLittle("the template shows nothing but one gray: give one that shows the part.")
    return Template(gray, mask)


def _mask_of(gray: Gray, mask: Mask | None, *, name: str) -> Mask:
    """The mask as given, or all of the image; of another size, it is refused."""
    mask = np.ones(gray.shape, bool) if mask is None else mask
    if mask.shape != gray.shape:
        raise UserError(
            f"the {name} has {size_text(gray.shape)} px and its mask {size_text(mask.shape)}: "
            f"give masks of the {name}'s size."
        )
    return mask


def register(
    image: Shaped[np.ndarray, "h w c"],
    template: Template,
    search: Search,
    *,
    valid: Mask | None = None,
) -> Registration:
    """Finds the template in the image.

    Args:
      image: that shows the part.
      template: of the part.
      search: where to look, and what counts as found.
      valid: pixels of the image that are of the picture; None: all are.

    Raises:
      UserError: the mask has another size than the image, or the template shows too little.
    """
    gray = gray_of(image)
    valid = _mask_of(gray, valid, name="image")
    poses = candidates(gray, valid, template, search)
    for side in FINE:
        small, factor = shrunk(template, side)
        scene = resized(gray, factor), resized(valid, factor)
        refined = [_fine(*scene, small, scaled(matrix, factor)) for matrix in poses]
        scored = [(*_agreement(*scene, small, matrix), matrix) for matrix in refined]
        _, _, best = max(
            (s for s in scored if s[1] >= search.overlap), key=lambda s: s[0], default=scored[0]
        )
        poses = [scaled(best, 1 / factor)]
        # More than one pose was worth a look at the lowest resolution only.
    matrix = poses[0]
    confidence, overlap = _agreement(*scene, small, scaled(matrix, factor))
    inside = abs(angle_of(matrix)) <= search.angle + 1 and abs(scale_of(matrix) - 1) <= (
        search.scale + 0.02
    )
    found = confidence >= search.confidence and overlap >= search.overlap and inside
    return Registration(matrix, confidence, overlap, bool(found))


def gray_of(image: Shaped[np.ndarray, "h w c"]) -> Gray:
    """The mean over channels, in [0, 1]."""
    return to_unit(image).mean(axis=2, dtype=np.float32)


def _agreement(gray: Gray, valid: Mask, template: Template, matrix: Matrix) -> tuple[float, float]:
    """Normalised correlation over what both show, and how much of the template that is."""
    shape = template.gray.shape
    seen = seen_by(valid, matrix, shape) & template.mask
    overlap = float(seen.sum() / template.mask.sum())
    if seen.sum() < 16:
        return -1.0, overlap
    aligned = warp(gray, matrix, shape)[seen].astype(np.float64)
    expected = template.gray[seen].astype(np.float64)
    aligned, expected = aligned - aligned.mean(), expected - expected.mean()
    norm = np.sqrt((aligned @ aligned) * (expected @ expected))
    return (float(aligned @ expected / norm) if norm > 0 else -1.0), overlap


def _fine(gray: Gray, valid: Mask, template: Template, matrix: Matrix) -> Matrix:
    """Gauss and Newton from that pose."""
    h, w = template.gray.shape
    # Gradients of the image, not of the template: they are looked up where the pose puts them.
    valid = within(valid, BLURRED + 1)  # and Sobel's neighbours
    mask = within(template.mask, BLURRED)
    smooth = cv2.GaussianBlur(gray, (0, 0), 1.0)
    expected = cv2.GaussianBlur(template.gray, (0, 0), 1.0)
    along_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    along_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    middle = (w - 1) / 2, (h - 1) / 2
    reach = max(h, w) / 2  # so that all six unknowns are of one size
    for _ in range(ROUNDS):
        seen = seen_by(valid, matrix, (h, w)) & mask
        if seen.sum() < 16:
            return matrix
        aligned, gx, gy = (
            warp(image, matrix, (h, w))[seen] for image in (smooth, along_x, along_y)
        )
        u, v = (x[seen] - middle[0]) / reach, (y[seen] - middle[1]) / reach
        t = expected[seen]
        # I + ∇I · δ = gain · T + offset, with δ = (p u + q v, −q u + p v) + shift.
        jacobian = np.stack([gx * u + gy * v, gx * v - gy * u, gx, gy, -t, -np.ones_like(t)])
        step = _robust(jacobian.astype(np.float64), -aligned.astype(np.float64))
        if step is None:
            return matrix
        p, q = step[0] / reach, step[1] / reach
        change = np.array([[p, q], [-q, p]])
        moved = np.column_stack([change, step[2:4] - change @ np.array(middle)])
        matrix = matrix + moved
        if np.abs(corners(matrix, (h, w)) - corners(matrix - moved, (h, w))).max() < STILL:
            break
    return matrix


def _robust(
    rows: Float[np.ndarray, "k n"], wanted: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " k"] | None:
    """Least squares, and again without what does not fit; None if it has no solution."""
    weights = np.ones_like(wanted)
    solution = None
    for _ in range(REWEIGHTED + 1):
        weighted = rows * weights
        normal = weighted @ rows.T
        if np.linalg.cond(normal) > 1e12:
            return None
        solution = np.linalg.solve(normal, weighted @ wanted)
        residual = solution @ rows - wanted
        # Where most pixels fit exactly, as a saturated ground does, the median is 0.
        spread = max(1.4826 * np.median(np.abs(residual)), LEAST_SPREAD * wanted.std(), 1e-9)
        weights = np.clip(1 - (residual / (TUKEY * spread)) ** 2, 0, None) ** 2
    return solution

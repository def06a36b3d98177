"""Registration of a rigid part (Buzzega et al., section 3.1): finding the template in an image.

A similarity maps points of the template to points of the image by rotation, scale and shift. It is
found in two steps, with NumPy, SciPy and OpenCV only:

- The coarse step finds the best poses of a grid (`recon_ad.alignment.coarse_search`).
- The fine step starts from the best of these poses and runs Gauss-Newton at growing resolutions. It
  solves for the four numbers of the similarity together with gain and offset of the light
  (Evangelidis and Psarakis 2008 maximise the same correlation), with weights that exclude defects
  (Tukey's biweight).

The confidence is the normalised correlation of the template and the aligned image. A part below the
least confidence, or of which too small a share is visible, is not registered: its images must not
be scored.

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

FINE = (256, 640)  # px, the template's longer side in the rounds of the fine step
ROUNDS = 20  # most Gauss-Newton iterations at each resolution
STILL = 0.01  # px, the largest movement of a corner at convergence
REWEIGHTED = 3  # number of reweightings in each iteration
BLURRED = 4  # px, the reach of a blur of 1 px
LEAST_SPREAD = 0.05  # smallest spread of the residuals as a share of the image's own
TUKEY = 4.685  # standard deviations beyond which a pixel has no weight (95 % efficiency)


class Registration(NamedTuple):
    """Pose of the part in an image.

    Attributes:
      matrix: Matrix from the template to the image.
      confidence: Normalised correlation of template and aligned image, in [−1, 1].
      overlap: Share of the template's pixels that the image shows.
      registered: Whether confidence and overlap reach the search's limits, and the pose is within
        its range (plus 1° and 0.02, because the search is a grid).
    """

    matrix: Matrix
    confidence: float
    overlap: float
    registered: bool

    @property
    def angle(self) -> float:
        """Rotation in degrees, counter-clockwise as the image is viewed."""
        return angle_of(self.matrix)

    @property
    def scale(self) -> float:
        """Scale of the part in the image, 1 for the template's own."""
        return scale_of(self.matrix)


def make_template(image: Shaped[np.ndarray, "h w c"], *, mask: Mask | None = None) -> Template:
    """Make the template from an image of the part.

    Raises:
      UserError: If the mask has another size.
      TooLittle: If the masked image shows no structure.
    """
    gray = gray_of(image)
    mask = _mask_of(gray, mask, name="template")
    if not mask.any() or gray[mask].std() < 1e-3:
        raise TooLittle("the template is uniformly gray: give one that shows the part.")
    return Template(gray, mask)


def _mask_of(gray: Gray, mask: Mask | None, *, name: str) -> Mask:
    """Return the given mask, or one of the whole image; reject a mask of another size."""
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
    """Find the template in the image.

    Args:
      image: Image that shows the part.
      template: Template of the part.
      search: Range of the search, and limits for a registration.
      valid: Mask of the image's pixels that show something. None counts all.

    Raises:
      UserError: If the mask does not have the image's size, or the template shows too little.
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
        # Several poses are compared only at the lowest resolution.
    matrix = poses[0]
    confidence, overlap = _agreement(*scene, small, scaled(matrix, factor))
    inside = abs(angle_of(matrix)) <= search.angle + 1 and abs(scale_of(matrix) - 1) <= (
        search.scale + 0.02
    )
    found = confidence >= search.confidence and overlap >= search.overlap and inside
    return Registration(matrix, confidence, overlap, bool(found))


def gray_of(image: Shaped[np.ndarray, "h w c"]) -> Gray:
    """Return the mean over channels, in [0, 1]."""
    return to_unit(image).mean(axis=2, dtype=np.float32)


def _agreement(gray: Gray, valid: Mask, template: Template, matrix: Matrix) -> tuple[float, float]:
    """Return the normalised correlation over shared pixels, and the template's visible share."""
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
    """Refine a pose by Gauss-Newton iterations."""
    h, w = template.gray.shape
    # Gradients are those of the image, not of the template, and are sampled at the pose.
    valid = within(valid, BLURRED + 1)  # one more for Sobel's neighbours
    mask = within(template.mask, BLURRED)
    smooth = cv2.GaussianBlur(gray, (0, 0), 1.0)
    expected = cv2.GaussianBlur(template.gray, (0, 0), 1.0)
    along_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    along_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    middle = (w - 1) / 2, (h - 1) / 2
    reach = max(h, w) / 2  # brings all six unknowns to a similar magnitude
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
    """Solve a robust least-squares problem by reweighting; return None if it has no solution."""
    weights = np.ones_like(wanted)
    solution = None
    for _ in range(REWEIGHTED + 1):
        weighted = rows * weights
        normal = weighted @ rows.T
        if np.linalg.cond(normal) > 1e12:
            return None
        solution = np.linalg.solve(normal, weighted @ wanted)
        residual = solution @ rows - wanted
        # If most pixels fit exactly, as on a saturated background, the median is 0.
        spread = max(1.4826 * np.median(np.abs(residual)), LEAST_SPREAD * wanted.std(), 1e-9)
        weights = np.clip(1 - (residual / (TUKEY * spread)) ** 2, 0, None) ** 2
    return solution

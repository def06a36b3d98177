"""Images of one rigid part, moved and damaged."""

import cv2
import numpy as np
from scipy import ndimage

from helpers.layouts import saved
from recon_ad.alignment.geometry import similarity

SHAPE = (96, 144)


def body(seed=0):
    """Draw a plate with blobs on a dark background, uint8 [h, w, 1]."""
    noise = np.random.default_rng(7).standard_normal(SHAPE)
    smooth = ndimage.gaussian_filter(noise, 4)
    picture = 150 + 60 * smooth / np.abs(smooth).max()
    inside = np.zeros(SHAPE, bool)
    inside[18:-18, 24:-24] = True
    picture[~inside] = 20
    picture += np.random.default_rng(seed).normal(0, 2, SHAPE)
    return np.clip(picture, 0, 255).astype(np.uint8)[..., None]


def moved(image, *, angle=0.0, scale=1.0, shift=(0.0, 0.0)):
    """Return the part in another pose, the mask of its valid pixels, and the matrix."""
    shape = image.shape[:2]
    matrix = similarity(angle=angle, scale=scale, shift=tuple(shift), shape=shape)
    picture = cv2.warpAffine(
        image, matrix, shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    ).reshape(image.shape)
    valid = moved_mask(np.ones(shape, bool), matrix, least=0.999)
    # Cubic interpolation also uses neighbouring pixels.
    valid = ndimage.binary_erosion(valid, np.ones((5, 5)), border_value=1)
    return np.clip(picture, 0, 1) if picture.dtype == np.float32 else picture, valid, matrix


def moved_mask(mask, matrix, *, least=0.5):
    """Return a mask in the pose of a matrix, with pixels of which it covers more than `least`."""
    return cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > least


def spot(image, where, value=255):
    """Return the image with a square defect, and its mask."""
    image, truth = image.copy(), np.zeros(SHAPE, bool)
    truth[where[0] : where[0] + 8, where[1] : where[1] + 8] = True
    image[truth] = value
    return image, truth


def save(path, image):
    saved(path, image[..., 0])

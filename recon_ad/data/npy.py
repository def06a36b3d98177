"""NumPy's .npy files as images: arrays [h, w] or [h, w, c] of integers or floats."""

from tokenize import TokenError

import numpy as np
from jaxtyping import Shaped

from recon_ad.errors import UserError

MAGIC = b"\x93NUMPY"
# More indicate an image with the channels first, or no image.
MAX_CHANNELS = 64
# Exceptions of NumPy's reader; the last two are the parser's for a header that is nested deeply.
_BROKEN = (
    ValueError, TypeError, OSError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError,
)  # fmt: skip


def mapped_array(name: str) -> Shaped[np.ndarray, "h w c"]:
    """Return the array in a .npy file, mapped and not yet read.

    Raises:
      UserError: If the file is broken, or holds no such array.
    """
    try:
        with np.errstate(over="ignore"):  # NumPy warns of a shape that no file can hold
            array = np.load(name, mmap_mode="r", allow_pickle=False)
    except _BROKEN as error:
        # NumPy's own texts are about its code.
        system = isinstance(error, OSError) and error.errno is not None
        reason = error.strerror if system else "its header and its content do not fit each other"
        reason = "it holds Python objects" if "Python objects" in str(error) else reason
        raise UserError(
            f"{name}: cannot be decoded ({reason}): the file is broken or truncated, replace or "
            "remove it"
        ) from error
    if array.ndim not in (2, 3) or 0 in array.shape or array.dtype.kind not in "uif":
        raise UserError(
            f"{name}: holds an array {list(array.shape)} of {array.dtype}: save [height, width] or "
            "[height, width, channels] of integers or floats"
        )
    if array.ndim == 3 and array.shape[2] > MAX_CHANNELS:
        raise UserError(
            f"{name}: has shape {list(array.shape)}, that is {array.shape[2]} channels: save the "
            f"channels last, at most {MAX_CHANNELS}"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array[..., None] if array.ndim == 2 else array

"""Files of anomaly maps, as `predict --maps` writes them beside the overlays.

`npy`: the float32 map itself.

`png`: 16 bits of gray, for programs that show images, with the map's own lowest value as black and
its highest as white, which stand in the file's text under `black` and `white`:

    value = black + level · (white − black) / 65535

gives the map again, to 1/131070 of its range.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from PIL import Image
from PIL.PngImagePlugin import PngInfo

LEVELS = 65535  # of 16 bits, above black


def npy(anomaly_map: Float[np.ndarray, "h w"]) -> bytes:
    """Return the map as a .npy file."""
    file = io.BytesIO()
    np.save(file, anomaly_map)
    return file.getvalue()


def png(anomaly_map: Float[np.ndarray, "h w"]) -> bytes:
    """Return the map as a PNG of 16 bits, with its scale as text."""
    values = np.nan_to_num(anomaly_map).astype(np.float64)  # a stranger's model may give infinity
    black, white = float(values.min()), float(values.max())
    span = white - black or 1.0
    levels = np.rint((values - black) / span * LEVELS).astype(np.uint16)
    scale = PngInfo()
    scale.add_text("black", repr(black))
    scale.add_text("white", repr(white))
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", pnginfo=scale)
    return file.getvalue()


FORMS: Mapping[str, Callable[[Float[np.ndarray, "h w"]], bytes]] = {"npy": npy, "png": png}

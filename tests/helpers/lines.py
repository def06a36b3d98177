"""Images for a line, rows of its table, and a stop request."""

import numpy as np
from PIL import Image

from recon_ad.line.store import Store
from recon_ad.runtime.stopping import Stop


def write(path, level=100):
    """Write a small gray image of one level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 12), level, np.uint8)).save(path)


class Looks(Stop):
    """A stop request after so many reads of the table."""

    left = 5

    def wait(self, seconds):
        self.left -= 1
        return not self.left


def rows(count, *, first=1, seed=0, darker=0.0, blur=1.0, creep=0.0, rejects=0.02, broken=50):
    """Return rows of a line's table; one in `broken` images cannot be read.

    This gives reference periods of one length equally many scores, whose limits are then cached.
    """
    random = np.random.default_rng(seed)
    for i in range(first, first + count):
        measured = {
            "score": float(np.exp(0.3 * random.standard_normal() + creep * (i - first))),
            "anomalous": int(random.random() < rejects),
            "brightness": float(0.5 - darker + 0.01 * random.standard_normal()),
            "sharpness": float(0.02 * blur + 0.001 * random.standard_normal()),
        }
        failed = dict.fromkeys(measured) | {"outcome": "broken", "error": "broken"}
        row = {"id": i, "committed": 1e9 + i, "registration": None, "outcome": "good"}
        yield row | {"error": None} | (measured if i % broken else failed)


def rows_of(output):
    """Return the rows that a line has written."""
    store = Store(output / "line.sqlite")
    found = list(store.rows())
    store.close()
    return found

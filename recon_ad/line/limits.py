"""Warning limits of a line from a certificate: brightness and sharpness at which it was tested.

Control charts compare the line with its own past. These limits are those of the certificate's
operating envelope instead, so that they also hold for a line that was never right. The mean of the
latest images is compared with them, as the limits are means of good images.
"""

import json
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_ad.errors import UserError

IMAGES = 30  # latest images whose mean is compared
KIND = "certificate"  # of the alarms, in place of a chart's
STATISTICS = ("brightness", "sharpness")
WORDS = {
    ("brightness", "low"): "images are darker than the certificate covers",
    ("brightness", "high"): "images are brighter than the certificate covers",
    ("sharpness", "low"): "images are more blurred than the certificate covers",
    ("sharpness", "high"): "images are sharper or noisier than the certificate covers",
}

Limits = Mapping[str, tuple[float | None, float | None]]  # lowest and highest of each statistic


def read_limits(file: Path) -> Limits:
    """Read the warning limits of a certificate.json.

    Raises:
      UserError: If the file is not one, or has no limits.
    """
    wrong = UserError(
        f"--certificate {file} holds no operating envelope: give the certificate.json of "
        "recon_ad.certify of this version."
    )
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        found = content["envelope"]["warning_limits"]
        limits = {name: tuple(found[name]) for name in STATISTICS}
    except OSError as error:
        raise UserError(
            f"--certificate {file} cannot be read ({error.strerror}): give the certificate.json of "
            "recon_ad.certify."
        ) from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise wrong from None
    for pair in limits.values():
        if len(pair) != 2 or not all(
            end is None or (type(end) in (int, float) and 0 <= end < 1e12) for end in pair
        ):
            raise wrong
    return limits


class Watch:
    """The latest values of a statistic with limits.

    Args:
      low: Lowest mean that is covered; None for no limit.
      high: Highest.
    """

    def __init__(self, low: float | None, high: float | None):
        self._low, self._high = low, high
        self._latest: deque[float] = deque(maxlen=IMAGES)

    def outside(self, value: float) -> str:
        """Take the next value; return "low" or "high" where the mean is outside, else "".

        NaN stands for no value and changes nothing.
        """
        if not math.isnan(value):
            self._latest.append(value)
        if len(self._latest) < IMAGES:
            return ""
        mean = sum(self._latest) / IMAGES
        if self._low is not None and mean < self._low:
            return "low"
        return "high" if self._high is not None and mean > self._high else ""

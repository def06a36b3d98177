"""The format of the benchmark server of MVTec AD 2 (Heckler-Kram et al. 2025) for private images.

    S/anomaly_images/<object>/<split>/<name>.tiff                float16 [h, w], higher is worse
    S/anomaly_images_thresholded/<object>/<split>/<name>.png     uint8 [h, w], 255 where defective

for every image of the splits `test_private` and `test_private_mixed`, at the image's own size.
Names and folders are those of the dataset class in MVTec's public code for the set, types those of
published submissions. `check_and_prepare_data_for_upload.py` of that code checks and packs S before
it is uploaded. Masks are as thresholded, whatever the verdict, as for every pixel figure.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from recon_ad.data.listing import images_below
from recon_ad.detector.inference import Prediction
from recon_ad.errors import UserError
from recon_ad.runtime import files

SPLITS = ("test_private", "test_private_mixed")
_LARGEST = float(np.finfo(np.float16).max)


class Submission(NamedTuple):
    """The folders for the maps of an object.

    Attributes:
      folder: Folder of the whole submission, which all objects share.
      root: Folder of the object's images.
    """

    folder: Path
    root: Path

    def images(self) -> list[Path]:
        """Return the private images of the object.

        Raises:
          UserError: If one of the splits is missing.
        """
        missing = [split for split in SPLITS if not (self.root / split).is_dir()]
        if missing:
            raise UserError(
                f"--submission: {self.root} has no folder {missing[0]}: give the folder of an "
                "object of MVTec AD 2 as --input."
            )
        return [file for split in SPLITS for file in images_below(self.root / split)]

    def write(self, file: Path, prediction: Prediction) -> None:
        """Write the map and the mask of an image."""
        place = Path(self.root.resolve().name) / file.relative_to(self.root)
        # Values beyond float16's range are equally anomalous.
        values = np.clip(prediction.anomaly_map, -_LARGEST, _LARGEST).astype(np.float16)
        tiff, png = io.BytesIO(), io.BytesIO()
        tifffile.imwrite(tiff, values, photometric="minisblack", metadata=None)
        Image.fromarray(prediction.mask.astype(np.uint8) * np.uint8(255)).save(png, "PNG")
        for part, suffix, buffer in (
            ("anomaly_images", ".tiff", tiff),
            ("anomaly_images_thresholded", ".png", png),
        ):
            files.write_bytes(self.folder / part / place.with_suffix(suffix), buffer.getvalue())

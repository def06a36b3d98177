"""Maps and masks of MVTec AD 2's private images in the format of the benchmark's server."""

import numpy as np
import pytest
import tifffile
from helpers import layouts
from helpers.detectors import make_detector
from PIL import Image

from recon_ad.data.decode import decode_image
from recon_ad.detector.inference import Prediction, Thresholds
from recon_ad.detector.predictions import predict_files
from recon_ad.detector.submission import Submission
from recon_ad.errors import UserError

PRIVATE = ("test_private/000_regular", "test_private_mixed/000_shift_1")


def read(folder, name):
    """Read the map and the mask of an image of the object can."""
    tiff = folder / "anomaly_images" / "can" / f"{name}.tiff"
    png = folder / "anomaly_images_thresholded" / "can" / f"{name}.png"
    with Image.open(png) as mask:
        assert mask.mode == "L"
        return tifffile.imread(tiff), np.asarray(mask)


def test_every_private_image_has_its_map_and_mask_and_no_other_is_judged(tmp_path):
    root = layouts.mvtec_ad_2(tmp_path) / "can"
    detector = make_detector(channels=3)
    found = {name: detector(decode_image(root / f"{name}.png")) for name in PRIVATE}
    pixel = float(np.median(found[PRIVATE[0]].anomaly_map))
    # Masks are thresholded even though no image is rejected.
    detector = detector.with_thresholds(Thresholds(1e6, pixel), {})
    sent, output = tmp_path / "S", tmp_path / "out"
    judged = predict_files(detector, root, output, identity="one", submission=sent)
    assert [one.row["path"] for one in judged] == [f"{name}.png" for name in PRIVATE]
    assert all(one.prediction is None and one.row["regions"] == 0 for one in judged)
    for name, said in found.items():
        values, mask = read(sent, name)
        expected = said.anomaly_map.astype(np.float16)
        np.testing.assert_array_equal(values, expected, strict=True)
        np.testing.assert_array_equal(mask, 255 * (said.anomaly_map > pixel).astype(np.uint8))
        assert mask.any() and not mask.all()
    assert sum(path.is_file() for path in sent.rglob("*")) == 2 * len(PRIVATE)


def test_what_float16_cannot_hold_stays_a_number(tmp_path):
    values = np.array([[1e9, -1e9, 0.5]], np.float32)
    said = Prediction(np.float32(1e9), np.bool_(True), values, values > 1, None)
    Submission(tmp_path / "S", tmp_path / "can").write(tmp_path / f"can/{PRIVATE[0]}.png", said)
    written, _ = read(tmp_path / "S", PRIVATE[0])
    np.testing.assert_array_equal(written, np.array([[65504, -65504, 0.5]], np.float16))


def test_a_folder_of_something_else_is_refused(tmp_path):
    root = layouts.mvtec_ad(tmp_path) / "bottle"
    with pytest.raises(UserError, match="has no folder test_private: give the folder of an object"):
        predict_files(make_detector(), root, tmp_path / "out", identity="", submission=tmp_path)

"""Export a detector to ONNX and check that the model decides as the detector does.

    python -m recon_ad.export --detector D/detector --output M.onnx [--data FOLDER]

This writes M.onnx, M.tail.onnx and M.parity.json and, if the detector aligns images,
M.part.safetensors. The model and the detector are compared on images of the data set that the
detector was made with, or on those of `--data`. If they differ by more than rounding, only
M.parity.json is written and the exit status is 1.
"""

from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.detector.directory import load
from recon_ad.detector.onnx_detector import DTYPES
from recon_ad.detector.onnx_export import OPSET, export, folder_images, own_images, worst
from recon_ad.detector.open import methods_flag
from recon_ad.errors import UserError
from recon_ad.runtime.compilation import keep_compiled

FAILED = 1  # exit status when the model does not match the detector


def main() -> int:
    """Run the command."""
    keep_compiled()
    _ADD_METHODS()
    detector = load(_DETECTOR.value)
    output = Path(_OUTPUT.value)
    batch = _BATCH.value
    if batch != "dynamic" and not (batch.isdecimal() and int(batch) > 0):
        raise UserError(f"--batch {batch}: give a whole number of 1 or more, or dynamic.")
    images = folder_images(Path(_DATA.value), detector) if _DATA.value else own_images(detector)
    result = export(
        detector,
        output,
        images,
        opset=_OPSET.value,
        batch=None if batch == "dynamic" else int(batch),
        layout=_LAYOUT.value,
        dtype=_DTYPE.value or "",
    )
    if not result["passed"]:
        print(
            f"the exported model does not match the detector: {worst(result)}. It was deleted; "
            f"see {output.with_suffix('.parity.json')}."
        )
        return FAILED
    print(
        f"{output}: matches the detector on {result['compared_images']} images; see "
        f"{output.with_suffix('.parity.json')}"
    )
    return 0


if __name__ == "__main__":
    _DETECTOR = flags.DEFINE_string("detector", None, "Detector directory.", required=True)
    _OUTPUT = flags.DEFINE_string("output", None, "Model to write, M.onnx.", required=True)
    _DATA = flags.DEFINE_string(
        "data", "", "Image or folder to compare on; by default the detector's own images."
    )
    _OPSET = flags.DEFINE_integer("opset", OPSET, "Version of the ONNX operator set.")
    _BATCH = flags.DEFINE_string("batch", "dynamic", "Tiles per call: a number, or dynamic.")
    _LAYOUT = flags.DEFINE_enum("layout", "nhwc", ["nhwc", "nchw"], "Axis order of the input.")
    _DTYPE = flags.DEFINE_enum(
        "dtype", None, DTYPES, "Type of the input; by default that of the compared images."
    )
    _ADD_METHODS = methods_flag()
    cli.run(main)

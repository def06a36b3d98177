"""Certify a detector: sizes of defect that it finds, how often it errs, if it repeats.

    python -m recon_ad.certify --detector D/detector --normals FOLDER --output O [--mm_per_px .05]
    python -m recon_ad.certify --onnx M.onnx [--runtime openvino] --normals … --output …

writes O/certificate.html for the person who releases the line, O/certificate.json with the same
figures, and O/trials.jsonl with every trial. The model card in a detector directory, and the report
of its run, then link the certificate. FOLDER holds good images that the detector has never
seen: neither trained on nor calibrated with. Defects of several kinds, sizes and contrasts are
inserted into them (`recon_ad.certification.defects`), and the detector judges all of these images
as `recon_ad.predict` does.

The same part is judged again in pictures that are shifted, turned, brighter or noisier within small
tolerances. With `--repeats REGEX` the good images are themselves repeated pictures: the first group
of the expression names the part, as in `--repeats "(part[0-9]+)_"`.

With `--defects`, a folder with a folder for each kind of real defect (masks in `ground_truth`,
inside it or beside it), it counts how many of them are missed and compares that with the inserted
ones.

The same command goes on where it was interrupted, also with `--defects` added later; a folder with
the trials of another detector or of other images is rejected. With `--roi`,
one image or a folder laid out as FOLDER is, only pixels that are white in it count, and defects are
inserted there alone.
"""

import logging
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.certification import run
from recon_ad.certification.page import page
from recon_ad.detector.certificate import link_certificate
from recon_ad.detector.open import detector_flags
from recon_ad.errors import UserError
from recon_ad.runtime.files import write_json, write_text

logger = logging.getLogger("recon_ad")


def main() -> int:
    """Run the command."""
    output = Path(_OUTPUT.value)
    mm_per_px = _MM_PER_PX.value
    if mm_per_px is not None and not 0 < mm_per_px < 1e6:
        raise UserError(f"--mm_per_px {mm_per_px:g}: give the size of a pixel in mm, above 0.")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: give a folder for the certificate.")
    detector = _DETECTOR.open()
    certificate = run.certify(
        detector,
        Path(_NORMALS.value),
        output,
        identity=_DETECTOR.identity(),
        defects=Path(_DEFECTS.value) if _DEFECTS.value else None,
        roi=Path(_ROI.value) if _ROI.value else None,
        mm_per_px=mm_per_px,
        repeats=_REPEATS.value,
        seed=_SEED.value,
    )
    write_json(output / "certificate.json", certificate.figures)
    write_text(output / "certificate.html", page(certificate))
    if directory := _DETECTOR.directory():
        link_certificate(directory, output / "certificate.html")
    logger.info("the certificate is in %s", output / "certificate.html")
    return 0


if __name__ == "__main__":
    _DETECTOR = detector_flags()
    _NORMALS = flags.DEFINE_string(
        "normals", None, "Folder of good images that the detector has never seen.", required=True
    )
    _DEFECTS = flags.DEFINE_string("defects", "", "Folder with a folder for each kind of defect.")
    _OUTPUT = flags.DEFINE_string("output", None, "Folder for the certificate.", required=True)
    _ROI = flags.DEFINE_string("roi", "", "Region of interest: an image, or a folder of them.")
    _MM_PER_PX = flags.DEFINE_float("mm_per_px", None, "Size of a pixel in mm.")
    _REPEATS = flags.DEFINE_string(
        "repeats", "", "Regular expression whose first group (or all of it) names an image's part."
    )
    _SEED = flags.DEFINE_integer("seed", 0, "Seed of sizes and places.", lower_bound=0)
    cli.run(main)

"""The trials of a certificate in their order, and its figures."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from recon_ad.certification import cases
from recon_ad.certification.cases import (
    Case,
    bases_of,
    cases_of,
    inserted,
    near_threshold,
    one_of_each,
)
from recon_ad.certification.defects import KINDS
from recon_ad.certification.detection import Detection, detection
from recon_ad.certification.disturbed_trials import judge_disturbed
from recon_ad.certification.images import Good, GoodImages
from recon_ad.certification.real import defective_images, judge_real, real_defects
from recon_ad.certification.rejects import images_for, rate_of
from recon_ad.certification.repeats import (
    ANGLE,
    BRIGHTNESS,
    NOISE,
    PARTS,
    PICTURES,
    SHIFT,
    parts_of,
    repeatability,
    vary,
)
from recon_ad.certification.trials import FILE, Row, Trials, generator, judge, row_of
from recon_ad.detector.inference import Inference
from recon_ad.errors import UserError
from recon_ad.metrics.conformal import surprising
from recon_ad.metrics.promise import LEVEL
from recon_ad.runtime.files import sha256
from recon_ad.runtime.packages import installed
from recon_ad.runtime.progress import progress
from recon_ad.runtime.waiting import exclusive_lock

BOUNDS = (0.05, 0.02, 0.01)  # for which the page says how many images they need
PACKAGES = (
    "recon_ad",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "jax",
    "onnxruntime",
    "openvino",
)


logger = logging.getLogger("recon_ad")


class Example(NamedTuple):
    """An inserted defect for the page.

    Attributes:
      case: Case of the defect.
      image: Image with the defect.
      defect: True at the pixels of the defect.
      marks: Marks of the detector.
      row: Row of its trial.
    """

    case: Case
    image: Shaped[np.ndarray, "h w c"]
    defect: Bool[np.ndarray, "h w"]
    marks: Bool[np.ndarray, "h w"]
    row: Row


class Certificate(NamedTuple):
    """All that the trials give.

    Attributes:
      figures: The content of certificate.json.
      smallest: Smallest defects that were found.
      largest: Largest ones that were missed.
    """

    figures: dict[str, Any]
    smallest: Sequence[Example]
    largest: Sequence[Example]


def certify(
    detector: Inference,
    normals: Path,
    output: Path,
    *,
    identity: str,
    defects: Path | None = None,
    roi: Path | None = None,
    mm_per_px: float | None = None,
    repeats: str = "",
    seed: int = 0,
) -> Certificate:
    """Run the trials of a certificate, or those that an interrupted run left.

    Args:
      detector: Calibrated.
      normals: Folder of good images that the detector has never seen.
      output: Folder of the certificate and its trials.
      identity: Identity of the detector, see `recon_ad.detector.open.identity`.
      defects: Folder with a folder for each kind of real defect. None uses no real defects.
      roi: Region of interest, one image or a folder laid out as `normals` is.
      mm_per_px: Size of a pixel; None gives sizes in px alone.
      repeats: Regular expression whose first group names the part that a good image shows, where
        parts have several pictures; "" makes such pictures.
      seed: Seed of everything random.

    Raises:
      UserError: The images do not suffice, or another process works in `output`.
    """
    real = [] if defects is None else defective_images(defects)
    good = GoodImages(detector, normals, roi=roi)
    digests = {image.name: image.digest for image in good.images}
    parts = parts_of(list(digests), repeats) if repeats else {}
    # Pictures of one part are no independent good images: the first of each counts.
    further = {name for pictures in parts.values() for name in pictures[1:]}
    run = {
        "detector": identity,
        "images": sha256(repr([(name, digests[name]) for name in digests]).encode()),
        "regions": sha256(b"".join(_region_bytes(good, image) for image in good.images)),
        "seed": seed,
        "trials": cases.TRIALS,
    }
    with exclusive_lock(output / ".certify.lock", leave=False):
        trials = Trials(output / FILE, run)
        if trials.kept:
            logger.info("%d trials were made before", trials.kept)
        try:
            rows = _judge_good(detector, good, trials)
            bases = bases_of(good, rows)
            drawn = cases_of(bases, seed)
            outcomes = {
                case.name: trials.run(case.name, partial(_try, detector, good, case, seed))
                for case in progress(drawn, "inserted defects")
            }
            entries = _detection(drawn, outcomes, mm_per_px=mm_per_px)
            disturbed = judge_disturbed(detector, good, rows, bases, entries, trials, seed)
            repeated = _repeats(detector, good, rows, drawn, outcomes, trials, parts, seed)
            found_real = None
            if defects is not None:
                judged = judge_real(detector, defects, real, trials, roi=roi)
                pairs = [(case.size, outcomes[case.name]["stopped"]) for case in drawn]
                found_real = real_defects(real, judged, pairs)
        finally:
            trials.close()
    figures = {
        "images": {
            "folder": normals.name,
            "count": len(good.images),
            "copies_left_out": good.copies,
            "not_registered": [n for n, row in rows.items() if not row["registered"]],
            "digests": digests,
        },
        "detector": {
            "identity": identity,
            "image_threshold": float(detector.thresholds.image),
            "pixel_threshold": float(detector.thresholds.pixel),
            "seen_known": bool(detector.seen),
        },
        "false_rejects": false_rejects(
            detector, {name: row for name, row in rows.items() if name not in further}
        ),
        "detection": entries,
        "repeatability": repeated,
        "envelope": disturbed,
        "real_defects": found_real,
        "seed": seed,
        "mm_per_px": mm_per_px,
        "versions": installed(*PACKAGES),
    }
    found = [case for case in drawn if outcomes[case.name]["stopped"]]
    missed = [case for case in drawn if not outcomes[case.name]["stopped"]]
    return Certificate(
        figures,
        _examples(detector, good, one_of_each(found, smallest=True), outcomes, seed),
        _examples(detector, good, one_of_each(missed, smallest=False), outcomes, seed),
    )


def _region_bytes(good: GoodImages, image: Good) -> bytes:
    region = good.roi(image)
    return b"" if region is None else region.tobytes()


def _judge_good(detector: Inference, good: GoodImages, trials: Trials) -> dict[str, Row]:
    def make(image: Good) -> Row:
        return row_of(judge(detector, good.load(image), good.roi(image)))

    return {
        image.name: trials.run(f"good/{image.name}", partial(make, image))
        for image in progress(good.images, "good images")
    }


def false_rejects(detector: Inference, rows: dict[str, Row]) -> dict[str, Any]:
    """Return how often good images are stopped, and what bounds would need.

    Images in which the part is not found are left out: the detector says nothing of them.

    Raises:
      UserError: The part is found in none of them.
    """
    judged = {name: row for name, row in rows.items() if row["registered"]}
    if not judged:
        raise UserError("the detector finds its part in none of the good images: check --normals.")
    stopped = sorted(name for name, row in judged.items() if row["stopped"])
    rate = rate_of(len(stopped), len(judged))
    found: dict[str, Any] = {**rate._asdict(), "stopped": stopped, "promised": None}
    wanted = list(BOUNDS)
    if detector.promise is not None:
        promised, units = detector.promise
        p = surprising(rate.count, rate.total, promised=promised, units=units)
        found |= {"promised": promised, "units": units, "p_value": p, "promise_broken": p < LEVEL}
        wanted.append(promised)
    found["images_needed"] = {
        f"{bound:.3g}": images_for(bound, count=rate.count)
        for bound in sorted(set(wanted), reverse=True)
    }
    return found


def _try(detector: Inference, good: GoodImages, case: Case, seed: int) -> Row:
    image, mask = inserted(good, case, seed)
    return row_of(judge(detector, image, good.roi(case.base)), mask)


def _repeats(
    detector: Inference,
    good: GoodImages,
    rows: dict[str, Row],
    drawn: Sequence[Case],
    outcomes: dict[str, Row],
    trials: Trials,
    parts: dict[str, list[str]],
    seed: int,
) -> dict[str, Any]:
    """Return the repeatability, of the user's own pictures or of made ones."""
    threshold = float(detector.thresholds.image)
    if parts:
        own = {part: [rows[name] for name in names] for part, names in parts.items()}
        found = repeatability(own, {}, threshold=threshold)
        return {"source": "own pictures", "tolerances": None, **found}

    def make(name: str, base: Good, case: Case | None) -> Row:
        image = good.load(base) if case is None else inserted(good, case, seed).image
        return row_of(judge(detector, vary(image, generator(seed, name)), good.roi(base)))

    registered = [image for image in good.images if rows[image.name]["registered"]][:PARTS]
    wanted: list[tuple[str, Good, Case | None]] = [(i.name, i, None) for i in registered]
    wanted += [
        (case.name, case.base, case) for case in near_threshold(drawn, outcomes, count=PARTS)
    ]
    made = {
        part: [
            trials.run(name, partial(make, name, base, case))
            for name in (f"repeat/{part}/{i}" for i in range(PICTURES))
        ]
        for part, base, case in progress(wanted, "repeated pictures")
    }
    plain = {image.name for image in registered}
    found = repeatability(
        {part: said for part, said in made.items() if part in plain},
        {part: said for part, said in made.items() if part not in plain},
        threshold=threshold,
    )
    tolerances = {
        "shift_px": SHIFT, "angle_degrees": ANGLE, "brightness": BRIGHTNESS, "noise": NOISE,
    }  # fmt: skip
    return {"source": "made pictures", "tolerances": tolerances, **found}


def _detection(
    drawn: Sequence[Case], rows: dict[str, Row], *, mm_per_px: float | None
) -> list[dict[str, Any]]:
    """Return the probability of detection of each kind and contrast."""
    found = []
    for kind, contrast in dict.fromkeys((case.kind, case.contrast) for case in drawn):
        mine = [case for case in drawn if (case.kind, case.contrast) == (kind, contrast)]
        sizes = np.array([case.size for case in mine])
        stopped = [rows[case.name]["stopped"] for case in mine]
        located = [rows[case.name]["stopped"] and rows[case.name]["located"] for case in mine]
        found.append(
            {
                "kind": kind,
                "label": KINDS[kind].label,
                "contrast": contrast,
                "trials": len(mine),
                "sizes_px": [round(size, 3) for size in sizes.tolist()],
                "found": stopped,
                "located": located,
                "image": _described(_fitted(sizes, stopped), mm_per_px),
                "localised": _described(_fitted(sizes, located), mm_per_px),
            }
        )
    return found


def _fitted(sizes: np.ndarray, hits: Sequence[bool]) -> Detection:
    return detection(sizes, np.array(hits, int))


def _described(fitted: Detection, mm_per_px: float | None) -> dict[str, Any]:
    content: dict[str, Any] = fitted._asdict()
    for name in ("a50", "a90", "a90_95"):
        estimate = content[name]._asdict()
        if mm_per_px is not None:
            estimate["mm"] = estimate["px"] * mm_per_px
        content[name] = estimate
    return content


def _examples(
    detector: Inference,
    good: GoodImages,
    cases: Sequence[Case],
    rows: dict[str, Row],
    seed: int,
) -> list[Example]:
    made = []
    for case in cases:
        image, mask = inserted(good, case, seed)
        prediction = judge(detector, image, good.roi(case.base))
        marks = np.zeros_like(mask) if prediction is None else prediction.marks
        made.append(Example(case, image, mask, marks, rows[case.name]))
    return made

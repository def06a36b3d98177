"""Images of an evaluation: which are opened, which count, and whether they are still the same."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from recon_ad.data import Source
from recon_ad.data.build import build_source
from recon_ad.data.several import EVERY
from recon_ad.data.source import fingerprint
from recon_ad.detector.jax_detector import Detector
from recon_ad.errors import UserError

TEST_IMAGES = "test_images_sha256"  # in the protocol

logger = logging.getLogger("recon_ad")


def data_name(config: ConfigDict) -> str:
    """Return the name of the data, for headings."""
    data = config.data
    if data.source in ("synthetic", "csv"):
        return data.name
    if data.source == "tfds":
        return " ".join(filter(None, (data.name, data.category)))
    return " ".join(filter(None, (Path(data.path).resolve().name, data.category)))


def open_images(detector: Detector, data: str) -> tuple[ConfigDict, Source]:
    """Open the images to inspect, the run's own or those of `data`, and return their config."""
    config = detector.config.copy_and_resolve_references()
    if data:
        config.data.source, config.data.path = "folder", data
        several = config.data.category == EVERY or "+" in config.data.category
        if not several or any((Path(data) / part).is_dir() for part in ("train", "test")):
            config.data.category = ""  # the folder is itself a single category
        config.data.channels = detector.channels
    source = build_source(config)
    name = Path(data).resolve().name
    if data and not config.data.category and name in detector.categories:
        train, test = (
            tuple(record._replace(category=name) for record in part)
            for part in (source.train, source.test)
        )
        source = source._replace(train=train, test=test)
    if data and not source.test:
        raise UserError(
            f"{data} has no test images; give a folder with test/good or test/<defect> beside "
            "train/good."
        )
    for note in source.notes if data else ():  # training logged those of the run's own images
        logger.warning("%s", note)
    return config, source


def without_unregistered(source: Source, lost: Sequence[str]) -> Source:
    """Return the source without the test images in which the part was not found, with a note.

    Raises:
      UserError: If the part was found in no image.
    """
    if not lost:
        return source
    kept = tuple(record for record in source.test if record.name not in set(lost))
    if not kept:
        raise UserError(
            f"the part was found in none of the {len(lost)} test images; check that it is the part "
            "that the detector was trained on, or try another template (config.part.template) or a "
            "wider search."
        )
    defective = sum(record.anomalous for record in source.test) - sum(r.anomalous for r in kept)
    note = (
        f"The part was not found in {len(lost)} of {len(source.test)} test images ({defective} of "
        f"them defective), which are excluded from all figures: {', '.join(sorted(lost)[:5])}"
        f"{'…' if len(lost) > 5 else ''}."
    )
    return source._replace(test=kept, notes=(*source.notes, note))


def warn_of_other_test_images(workdir: Path, source: Source) -> None:
    """Warn if a run's figures were computed on other test images than the present ones."""
    try:
        protocol = json.loads((workdir / "metrics.json").read_text())["protocol"]
        before = protocol.get(TEST_IMAGES, "")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        before = ""
        logger.warning("%s cannot be read (%s)", workdir / "metrics.json", error)
    now = fingerprint(source.test) if source.test else None
    if before != "" and before != now:
        logger.warning(
            "the test images differ from those of the figures in %s; to compute the figures again, "
            "run python -m recon_ad.evaluate --workdir %s", workdir, workdir,
        )  # fmt: skip

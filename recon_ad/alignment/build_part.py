"""The construction of a config's part from good images: template and foreground."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Shaped
from ml_collections import ConfigDict

from recon_ad.alignment.background import grown, part_of
from recon_ad.alignment.coarse_search import Search
from recon_ad.alignment.geometry import TooLittle, size_text
from recon_ad.alignment.part import Part
from recon_ad.alignment.registration import gray_of, make_template, register
from recon_ad.data.arrays import given_range
from recon_ad.data.decode import decode_image, decode_mask
from recon_ad.data.source import Record, Source, roi_of, spread
from recon_ad.errors import UserError
from recon_ad.runtime.files import sha256

AUTO = "auto"
ALIGNED = "aligned"  # key in data.json (see `found_in`)
CANDIDATES = 5  # number of images from which the template is chosen
AVERAGED = 20  # number of aligned images whose mean separates the part from the background
AROUND = 0.02  # width of background that shows the part's outline, as a share of the longer side

logger = logging.getLogger("recon_ad")

_Read = TypeVar("_Read")


def find_part(config: ConfigDict, records: Sequence[Record]) -> Part | None:
    """Return the part that the config describes, from good images, or None if it describes none.

    Raises:
      UserError: If the template or mask does not exist, they do not fit, or the images are of
        several categories.
    """
    c = config.part
    if not (c.align or c.background):
        return None
    if len({record.category for record in records}) > 1:
        raise UserError(
            "config.part describes one part, but the images are of several categories: train a "
            "model for each, or leave out config.part."
        )
    mask, given = None, None
    range_ = given_range(config.data.input_range)
    if c.background not in ("", AUTO):  # read before anything that takes long
        given = _of_field("background", lambda: decode_mask(Path(c.background)))
    search = Search(c.angle, c.scale, c.overlap, c.confidence)
    if c.template:
        image = _of_field("template", lambda: decode_image(Path(c.template), input_range=range_))
        logger.info("template: %s", c.template)
    elif c.align:
        image, mask = _typical(records, search)
    else:
        image = records[0].load()
    template = make_template(image, mask=mask)
    if not c.background:
        return Part(search, template, np.ones(template.gray.shape, bool))
    if given is None:
        whole = Part(search if c.align else None, template, np.ones(template.gray.shape, bool))
        chosen, _ = whole.aligned(spread(records, AVERAGED))
        seen = [record.load_roi() for record in chosen if record.load_roi]
        foreground = part_of([gray_of(record.load()) for record in chosen], seen)
    else:
        foreground = given
        if foreground.shape != template.gray.shape:
            raise UserError(
                f"config.part.background {c.background} has {size_text(foreground.shape)} px, the "
                f"template {size_text(template.gray.shape)}: give a mask of the template's size."
            )
    logger.info("part: %.0f %% of the image, the rest is background", 100 * foreground.mean())
    if not c.align:
        return Part(None, template, foreground)
    # The part's outline helps to find it, so some background around it is used.
    around = grown(foreground, round(AROUND * max(foreground.shape)))
    return Part(search, make_template(image, mask=around & template.mask), foreground)


def _of_field(name: str, read: Callable[[], _Read]) -> _Read:
    """Read a file that the config names; errors name the field."""
    try:
        return read()
    except UserError as error:
        raise UserError(f"config.part.{name}: {error}") from None


def _typical(
    records: Sequence[Record], search: Search
) -> tuple[Shaped[np.ndarray, "h w c"], Bool[np.ndarray, "h w"] | None]:
    """Return the image to which others are registered best, and its region of interest.

    It is chosen among a few images spread over all records.
    """
    chosen = spread(records, CANDIDATES)
    images = [(record.load(), roi_of(record)) for record in chosen]

    def agreement(k: int) -> float:
        try:
            template = make_template(images[k][0], mask=images[k][1])
            others = [pair for i, pair in enumerate(images) if i != k]
            found = [register(x, template, search, valid=roi).confidence for x, roi in others]
        except TooLittle:  # for example an image taken too early; another one may do
            return -np.inf
        return float(np.median(found)) if found else 1.0

    best = max(range(len(images)), key=agreement)
    logger.info("template: %s", chosen[best].name)
    return images[best]


def identity(part: Part | None, config: ConfigDict) -> dict[str, Any]:
    """Return the entries of data.json that distinguish a run's part from others; {} without a part.

    Args:
      part: Part of the run.
      config: Config of the run.
    """
    if part is None:
        return {}
    # Rounding on another machine could change a pixel of an automatic background.
    given = config.part.background not in ("", AUTO)
    return {
        "template": sha256(part.template.gray.tobytes()),
        "foreground": sha256(part.foreground.tobytes()) if given else config.part.background,
    }


def found_in(part: Part | None, records: Sequence[Record]) -> dict[str, Any]:
    """Return the digest, for data.json, of the good images in which the part was found.

    The images have to be registered for that.
    """
    if part is None:
        return {}
    return {ALIGNED: sha256(json.dumps([record.name for record in records]).encode())}


def aligned_source(source: Source, part: Part | None) -> Source:
    """Return the source with its good images aligned; test images are unchanged."""
    if part is None:
        return source
    kept, notes = part.aligned(source.train)
    return source._replace(train=tuple(kept), notes=(*source.notes, *notes))

"""Links to a detector's certificate, in its model card and in the report of its run.

The card is where the link is kept: evaluating a run writes the report anew and takes it from there.
A detector that is saved anew, as after a calibration, has a new card without it.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from recon_ad.report.markup import text
from recon_ad.runtime import files

CARD = "MODEL_CARD.md"  # in a detector directory, for people
REPORT = "report.html"  # beside it, in a run
HEAD = "## Certificate"
_SECTION = re.compile(rf"\n{HEAD}\n.*?(?=\n## |\Z)", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MARKED = re.compile(r'<p class="note" id="certificate">.*?</p>\n?', re.DOTALL)


def link_certificate(detector: Path, page: Path) -> list[Path]:
    """Link a certificate from the model card, and from the report of the run if there is one.

    Args:
      detector: Detector directory.
      page: certificate.html of this detector.

    Returns:
      The files that were changed.
    """
    card = detector / CARD
    if not card.is_file():
        return []
    to = quote(Path(os.path.relpath(page, detector)).as_posix())
    words = f"How often it errs and which sizes of defect it finds: [certificate.html]({to})."
    kept = _SECTION.sub("", card.read_text(encoding="utf-8")).rstrip()
    files.write_text(card, f"{kept}\n\n{HEAD}\n\n{words}\n")
    return [card, *link_report(detector)]


def section_of(card: Path) -> str:
    """Return the section of a model card that links a certificate; "" if it has none."""
    if not card.is_file():
        return ""
    found = _SECTION.search(card.read_text(encoding="utf-8"))
    return found[0] if found else ""


def link_report(detector: Path) -> list[Path]:
    """Link the certificate of a detector's model card from the report beside the detector.

    Returns:
      The report, if there is one and the card has a link; else nothing.
    """
    report, link = detector.parent / REPORT, _LINK.search(section_of(detector / CARD))
    if not report.is_file() or not link:
        return []
    page = detector / unquote(link[1])
    to = quote(Path(os.path.relpath(page, report.parent)).as_posix())
    line = (
        f'<p class="note" id="certificate"><a href="{text(to)}">Certificate</a>: how often it errs '
        "and which sizes of defect it finds.</p>"
    )
    content = _MARKED.sub("", report.read_text(encoding="utf-8"))
    files.write_text(report, content.replace("<main>\n", f"<main>\n{line}\n", 1))
    return [report]

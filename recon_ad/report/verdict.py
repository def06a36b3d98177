"""Counts of the detector's decisions on the test images, shown first on the page."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from recon_ad.report import wording
from recon_ad.report.content import GOOD, Score
from recon_ad.report.distribution import threshold_text
from recon_ad.report.markup import paragraph, text


def verdict(scores: Sequence[Score], metrics: Mapping[str, Any], threshold: Real | None) -> str:
    """Return the markup of the counts of decisions, the threshold and the promised rate."""
    good = [bool(row.anomalous) for row in scores if row.defect == GOOD]
    bad = [bool(row.anomalous) for row in scores if row.defect != GOOD]
    decided = metrics.get("decisions", {})
    promised = decided.get("promised")
    counts, words = [], []
    if bad:
        counts.append(_count(sum(bad), len(bad), "defective images found", fine=all(bad)))
    if good:
        kept = wording.is_number(promised) and not decided.get("promise_broken")
        fine = kept or not any(good)
        counts.append(_count(sum(good), len(good), "good images stopped", fine=fine))
    if threshold is not None:
        at = text(threshold_text(scores, threshold))
        words.append(f"An image is called defective, and stopped, if its score is above {at}.")
    if wording.is_number(promised):
        words.append(
            f"Promised: on average at most {wording.percent(promised)} of new good images are "
            "stopped, if they are like the good images that set the threshold."
        )
    if not scores:
        words.append("Without test images this page cannot show how well the detector works.")
    elif not bad:
        words.append(
            "No test image is defective, so this page cannot show whether defects are found."
        )
    elif not good:
        words.append(
            "No test image is good, so this page cannot show how many good images are stopped."
        )
    shown = f'<div class="verdict">{"".join(counts)}</div>' * bool(counts)
    return shown + paragraph(" ".join(words), kind="note" if counts else "lead")


def _count(part: int, whole: int, what: str, *, fine: bool) -> str:
    kind = "count fine" if fine else "count short"
    share = f'<div class="share"><div style="width:{100 * part / whole:.1f}%"></div></div>'
    return f'<div class="{kind}"><p><b>{part:,} of {whole:,}</b> {what}</p>{share}</div>'

"""What the detector decided on the test images, in counts: the first thing on the page."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from recon_ad.report import wording
from recon_ad.report.content import GOOD, Score
from recon_ad.report.distribution import threshold_text
from recon_ad.report.markup import paragraph, text


def verdict(scores: Sequence[Score], metrics: Mapping[str, Any], threshold: Real | None) -> str:
    """The markup: how many defects are found and how many good ones stopped, and the threshold."""
    good = [bool(row.anomalous) for row in scores if row.defect == GOOD]
    bad = [bool(row.anomalous) for row in scores if row.defect != GOOD]
    decided = metrics.get("decisions", {})
    promised = decided.get("promised")
    counts, words = [], []
    if bad:
        counts.append(_count(sum(bad), len(bad), "defects found", fine=all(bad)))
    if good:
        kept = wording.is_number(promised) and not decided.get("promise_broken")
        counts.append(_count(sum(good), len(good), "good stopped", fine=kept or not any(good)))
    if threshold is not None:
        at = text(threshold_text(scores, threshold))
        words.append(f"An image is called defective, and stopped, where its score is above {at}.")
    if wording.is_number(promised):
        words.append(
            f"Promised: at most {wording.percent(promised)} of good ones that are like those that "
            "the threshold rests on are stopped."
        )
    if not scores:
        words.append("There are no test images, so nothing below tells how well it works.")
    elif not bad:
        words.append(
            "No test image is defective, so nothing below tells whether defects are found."
        )
    elif not good:
        words.append(
            "No test image is good, so nothing below tells how many good ones are stopped."
        )
    shown = f'<div class="verdict">{"".join(counts)}</div>' * bool(counts)
    return shown + paragraph(" ".join(words), kind="note" if counts else "lead")


def _count(part: int, whole: int, what: str, *, fine: bool) -> str:
    kind = "count fine" if fine else "count short"
    share = f'<div class="share"><div style="width:{100 * part / whole:.1f}%"></div></div>'
    return f'<div class="{kind}"><p><b>{part:,} of {whole:,}</b> {what}</p>{share}</div>'

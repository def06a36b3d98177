"""Measure how soon control charts detect a drift, and how often they raise false alarms.

    python -m benchmarks.studies.drifts --onnx M.onnx --images FOLDER

FOLDER is in the MVTec layout. The detector judges its good images, from training and test, three
times: unchanged, 5 % darker, and blurred by a Gaussian. It judges the defective images once.
Streams are drawn from these judgements with replacement, where an image's score, brightness,
sharpness and verdict stay together. Unlike those of a real line, the images of a stream are
therefore independent of each other. The first images of each stream are its reference period.

False alarms are counted in streams without drift, with the charts' own limits and with limits that
treat the reference as exact. Delays are measured after 200 images without drift; if a chart is in
alarm at their end, the stream does not count for that chart. Score creep is added to the scores;
all other drifts are judgements of changed images. "no change" shows what chance finds in as many
images. The result is written to results/drifts.json and results/drifts.md.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from scipy import ndimage

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.data.exposure import brightness, sharpness
from recon_ad.data.listing import images_below, images_in
from recon_ad.detector.image_files import decoded
from recon_ad.detector.inference import Inference
from recon_ad.detector.open import detector_flags
from recon_ad.errors import UserError
from recon_ad.line.alarms import STATISTICS
from recon_ad.line.chart_limits import events_limit
from recon_ad.line.charts import KINDS, Chart, State, advance, make_chart, standardised
from recon_ad.runtime import files

REFERENCES = (200, 500, 2_000)  # images
RUN_LENGTH = 10_000.0
QUIET, QUIET_LENGTH = 400, 2_500  # streams without drift and their lengths, a million images
STREAMS, WITHIN, BEFORE = 200, 2_000, 200  # streams with drift, images after it, images before it
DARKER = 0.05  # reduction of the brightness
BLUR = 0.7  # px, σ
CREEP = 0.1  # growth per 1,000 images, as a fraction of the median score
BURST, SHARE = 100, 0.2  # images, fraction of them that are defective and rejected
WATCHED = ("score", "brightness", "sharpness", "rejected")
CHARTS = [(s.name, kind) for s in STATISTICS if s.name in WATCHED for kind in s.charts]

Values = dict[str, np.ndarray]  # one value per image, by statistic


class Population(NamedTuple):
    """Judgements to draw from. `defective` has only images that the detector rejects."""

    good: Values
    darker: Values
    blurred: Values
    defective: Values
    threshold: float


def dimmed(image: np.ndarray) -> np.ndarray:
    """Darken the image, in its own levels."""
    return np.rint(image * (1 - DARKER)).astype(image.dtype)


def blurred(image: np.ndarray) -> np.ndarray:
    """Blur the image by a Gaussian, in its own levels."""
    smooth = ndimage.gaussian_filter(image.astype(np.float64), (BLUR, BLUR, 0))
    return np.rint(smooth).astype(image.dtype)


def judged(
    detector: Inference, paths: Sequence[Path], change: Callable[[np.ndarray], np.ndarray]
) -> Values:
    """Judge each image after a change."""
    rows = []
    for path in paths:
        image = change(decoded(detector, path))
        prediction = detector.predict(image, reconstruct=False)
        rows.append(
            (float(prediction.score), brightness(image), sharpness(image), bool(prediction.label))
        )
    return dict(zip(WATCHED, np.array(rows, float).T, strict=True))


def population(detector: Inference, folder: Path) -> Population:
    """Judge all images under all conditions.

    Raises:
      UserError: If the folder has no good images, or the detector rejects no defective one.
    """
    good = [p for part in ("train", "test") for p in images_in(folder / part / "good")]
    bad = [p for p in images_below(folder / "test") if p.parent.name != "good"]
    found = judged(detector, bad, lambda image: image)
    rejects = found["rejected"] > 0
    if not good or not rejects.any():
        raise UserError(
            f"{folder} has {len(good)} good images and {rejects.sum()} defective ones that the "
            "detector rejects: give a folder with both kinds."
        )
    return Population(
        judged(detector, good, lambda image: image),
        judged(detector, good, dimmed),
        judged(detector, good, blurred),
        {name: values[rejects] for name, values in found.items()},
        float(detector.thresholds.image),
    )


def draw(random: np.random.Generator, values: Values, count: int) -> Values:
    """Draw images with replacement."""
    index = random.integers(len(values["score"]), size=count)
    return {name: v[index] for name, v in values.items()}


def creeping(random: np.random.Generator, people: Population, count: int) -> Values:
    """Draw a stream whose scores, and thus the rejects, grow with each image."""
    found = draw(random, people.good, count)
    growth = CREEP * np.median(people.good["score"]) * np.arange(1, count + 1) / 1_000
    score = found["score"] + growth
    return found | {"score": score, "rejected": (score > people.threshold).astype(float)}


def bursting(random: np.random.Generator, people: Population, count: int) -> Values:
    """Draw a stream whose first images include defective ones."""
    found, defective = (draw(random, v, count) for v in (people.good, people.defective))
    which = (random.random(count) < SHARE) & (np.arange(count) < BURST)
    return {name: np.where(which, defective[name], v) for name, v in found.items()}


DRIFTS: Mapping[str, Callable[[np.random.Generator, Population, int], Values]] = {
    f"brightness −{DARKER:.0%}": lambda r, p, n: draw(r, p.darker, n),
    f"blur, σ {BLUR} px": lambda r, p, n: draw(r, p.blurred, n),
    f"score creep, {CREEP:.0%} of the median by 1,000 images": creeping,
    f"burst: {SHARE:.0%} rejects in {BURST} images": bursting,
    "no change": lambda r, p, n: draw(r, p.good, n),
}


def naive(chart: Chart, *, rejects: float) -> Chart:
    """Return the chart with a limit that treats the reference as exact.

    Args:
      chart: The chart.
      rejects: Rate of events, (r + 1)/(n + 2).
    """
    if chart.kind == "events":
        return chart._replace(
            reference=np.array([rejects]), limit=events_limit(rejects, RUN_LENGTH)
        )
    return chart._replace(limit=KINDS[chart.kind].limit(None, RUN_LENGTH))


def run(chart: Chart, values: np.ndarray) -> tuple[State, int]:
    """Return the state after all images and the number of alarms."""
    state, count = State(), 0
    for z in np.asarray(standardised(chart, values)).tolist():
        state, event = advance(chart, state, z)
        count += bool(event) and event != "end"
    return state, count


def delay(chart: Chart, before: np.ndarray, after: np.ndarray) -> float | None:
    """Return the images until an alarm, infinity if there is none, or None if one was active."""
    state, _ = run(chart, before)
    if state.alarm:
        return None
    for i, z in enumerate(np.asarray(standardised(chart, after)).tolist()):
        state, event = advance(chart, state, z)
        if event and event != "end":
            return float(i + 1)
    return float("inf")


def summary(delays: Sequence[float | None]) -> dict[str, Any]:
    """Summarise the streams' delays; a percentile is None if so many streams have no alarm."""
    known = np.array([d for d in delays if d is not None])
    median, late = (float(np.percentile(known, q, method="inverted_cdf")) for q in (50, 95))
    return {
        "streams": len(known),
        "median": median if np.isfinite(median) else None,
        "p95": late if np.isfinite(late) else None,
        "never": float(np.isinf(known).mean()),
    }


def measured(people: Population, reference: int) -> dict[str, Any]:
    """Measure false alarms and delays for one length of the reference period."""
    alarms = {key: {"as_it_is": 0, "reference_taken_for_the_truth": 0} for key in CHARTS}
    delays: dict[tuple[str, str], dict[str, list]] = {k: {d: [] for d in DRIFTS} for k in CHARTS}
    for s in range(QUIET):
        random = np.random.default_rng((reference, s))
        first, quiet = (draw(random, people.good, n) for n in (reference, QUIET_LENGTH))
        streams = {}
        if s < STREAMS:
            for name, drift in DRIFTS.items():
                before = draw(random, people.good, BEFORE)
                streams[name] = before, drift(random, people, WITHIN)
        for key in CHARTS:
            statistic, kind = key
            chart = make_chart(statistic, kind, first[statistic], run_length=RUN_LENGTH)
            rejects = float((first["rejected"].sum() + 1) / (reference + 2))
            for name, used in (
                ("as_it_is", chart),
                ("reference_taken_for_the_truth", naive(chart, rejects=rejects)),
            ):
                alarms[key][name] += run(used, quiet[statistic])[1]
            for name, (before, after) in streams.items():
                delays[key][name].append(delay(chart, before[statistic], after[statistic]))
    per = 10_000 / (QUIET * QUIET_LENGTH)
    return {
        f"{statistic}, {kind}": {
            "false_alarms_per_10000": {k: v * per for k, v in alarms[statistic, kind].items()},
            "delay": {name: summary(d) for name, d in delays[statistic, kind].items()},
        }
        for statistic, kind in CHARTS
    }


def cell(delays: Mapping[str, Any]) -> str:
    """Return the median, the 95th percentile, and the share of streams without an alarm."""
    median, late = (
        f"> {WITHIN:,}" if delays[k] is None else f"{delays[k]:,.0f}" for k in ("median", "p95")
    )
    return f"{median}; {late}; {delays['never']:.0%}"


def page(result: Mapping[str, Any]) -> str:
    """Return the tables in Markdown."""
    lines = ["# Drifts of a line", "", result["of"], ""]
    for reference, rows in result["references"].items():
        lines += [f"## A reference period of {int(reference):,} images", ""]
        heads = ["chart", "false alarms in 10,000 images", "with limits for an exact reference"]
        heads += list(DRIFTS)
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for name, row in rows.items():
            false = row["false_alarms_per_10000"]
            cells = [name, *(f"{v:.2f}" for v in false.values())]
            cells += [cell(row["delay"][drift]) for drift in DRIFTS]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Judge the images, measure and write the result."""
    folder = Path(_IMAGES.value)
    people = population(_OPENED(), folder)
    kinds = {k: len(v["score"]) for k, v in people._asdict().items() if k != "threshold"}
    result = {
        "command": f"python -m benchmarks.studies.drifts, images of {folder.name}",
        "of": (
            f"`python -m benchmarks.studies.drifts` on {folder.name}: {kinds['good']} good images, "
            f"{people.good['rejected'].mean():.1%} of them rejected, and {kinds['defective']} "
            "rejected defective ones were judged once under each condition, and streams are drawn "
            "from these judgements with replacement. The limits are set for one false alarm in "
            f"{RUN_LENGTH:,.0f} images; false alarms are counted in {QUIET * QUIET_LENGTH:,} "
            "images without drift. Delays in images are given as median; 95th percentile; share "
            f"of {STREAMS} streams without an alarm in {WITHIN:,} images."
        ),
        "images": kinds,
        "statistics": {
            k: {n: [float(v[n].mean()), float(v[n].std())] for n in v}
            for k, v in people._asdict().items()
            if k != "threshold"
        },
        "references": {str(n): measured(people, n) for n in REFERENCES},
    }
    record.write("drifts", result, "scipy")
    files.write_text(Path("results/drifts.md"), page(result))
    print(page(result))


if __name__ == "__main__":
    _OPENED = detector_flags()
    _IMAGES = flags.DEFINE_string("images", None, "Folder in the MVTec layout.", required=True)
    cli.run(main)

"""Made-up reports for the tests, and a parser of the pages."""

import base64
import io
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from recon_ad.evaluation.run import FIGURES as KEYS
from recon_ad.report import (
    Panel,
    Report,
    Scale,
    Score,
    SmallPanel,
    pixel_scale,
    render_report,
    shrink_panel,
)

VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}
EVIL = "\"><script>alert(1)</script>'&$x_{$ \u202e\udcff\x00.png"


class Page(HTMLParser):
    """A parsed page with the parts that tests check. It rejects tags that do not balance."""

    def __init__(self, source: str):
        super().__init__()
        self.source, self.style, self.broken = source, "", False
        self.open, self.tags, self.links, self.images, self.words, self.ids = ([] for _ in range(6))
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.links += [attrs[key] for key in ("src", "href") if key in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "img":
            self.images.append(attrs)
        self.style += attrs.get("style", "")
        self.broken = tag == "wbr"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        elif self.broken:  # a line break within a name
            self.words[-1] += data
        else:
            self.words.append(data)
        self.broken = False

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def shown(metrics: Mapping[str, Any] = MappingProxyType({}), **fields: Any) -> Page:
    """Return the page of a report that has only these metrics and fields."""
    return Page(render_report(Report("t", metrics, **fields)))


def decoded(source: str) -> np.ndarray:
    """Decode a picture from its data URL, uint8 [h, w, 3]."""
    data = io.BytesIO(base64.b64decode(source.split(",", 1)[1]))
    return np.asarray(Image.open(data).convert("RGB"))


def panel(name="a.png", *, height=40, width=60, channels=3, reconstructs=True, **fields) -> Panel:
    """Return a panel of noise with some fields replaced."""
    rng = np.random.default_rng(0)
    image = rng.random((height, width, channels), dtype=np.float32)
    truth = np.zeros((height, width), bool)
    truth[5:12, 6:20] = True
    made = Panel(
        name=name, defect="scratch", score=1.234, threshold=0.987, image=image,
        reconstruction=image[::-1] if reconstructs else None,
        residual=rng.random((height, width), dtype=np.float32),
        truth=truth, mask=np.roll(truth, 2, 0),
    )  # fmt: skip
    return made._replace(**fields)


def figures() -> dict:
    """Return the content of a metrics.json with a different value for each key."""
    values = {key: 0.801 + 0.007 * i for i, key in enumerate(KEYS)}
    speed = {"train_seconds": 3725.0, "patches_per_second": 64.31, "images_per_second": 5.5}
    return values | speed


def scores(count: int) -> list[Score]:
    """Return scores of images of several kinds with odd names."""
    rng = np.random.default_rng(1)
    kinds = ["good", "scratch", "$\\frac{$", "_hidden", "漢字 " * 20]
    values = enumerate(rng.gamma(3, 1, count))
    return [Score(f"{i}.png", kinds[i % 5], float(v), bool(v > 3)) for i, v in values]


def full_report() -> Report:
    """Return a report with content in each section."""
    line = np.linspace(0, 1, 50)
    return Report(
        title="a run",
        metrics=figures()
        | {
            "intervals": {"image_auroc": [0.111, 0.222]},
            "bounds": {"pixel_auroc": 0.0006, "aupro_30": 0.0004},
            "per_defect": {"scratch": {"n": 1234, "image_auroc": 0.333, "aupro_30": None}},
            "no_model": {"mean_brightness": {"image_auroc": 0.6}},
            "truths": {"A": {"pixel_auroc": 0.444}},
            "missing": {"per_defect.scratch.aupro_30": "scratch has no masks"},
            "protocol": {"seed": 7, "versions": {"numpy": "2.4"}, "resolution": [64, 48]},
        },
        threshold=3.0,
        messages=["the model learned only the mean image"],
        curves={"roc": (line, line**0.2), "pixel_roc": (line, line), "pro": (line, line**0.1)},
        scores=scores(40),
        training=[{"step": s, "train_loss": 5 / s, "heldout_loss": None} for s in (10, 20)],
        panels={"Worst misses": [panel()], "Worst false alarms": "none: no good image is above"},
        patches={"normal": line + 0.1, "defective": line + 0.5},
    )


def without_specks(mask: np.ndarray) -> np.ndarray:
    """Keep regions of 12 pixels and more, as a detector's rule for masks does."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    return np.isin(labels, 1 + np.flatnonzero(np.bincount(labels.ravel())[1:] >= 12))


def inspected(index: int, *, defect: str, size: tuple[int, int], threshold: float) -> Panel:
    """Return a panel of a woven texture with a scratch or dent, and a decent model's residual."""
    rng = np.random.default_rng(index)
    y, x = np.indices(size)
    weave = 0.5 + 0.12 * np.sin(x / 3 + y / 40) * np.cos(y / 4) + 0.04 * rng.standard_normal(size)
    along = y + (0.4 * x if index % 2 else -0.3 * x)
    strip = np.abs(along - np.median(along)) < max(2, size[0] / 60)
    truth = strip & (np.abs(x - size[1] * rng.uniform(0.3, 0.7)) < size[1] / 8)
    if defect == "good":
        truth[:] = False
    strength = rng.uniform(0.3, 1.3)
    image = np.clip(weave + 0.35 * strength * truth, 0, 1)[..., None].astype(np.float32)
    noise = ndimage.gaussian_filter(np.abs(rng.standard_normal(size)), 1.5)
    residual = 0.02 * noise**3 + 0.12 * strength * ndimage.gaussian_filter(truth.astype(float), 2)
    residual = residual.astype(np.float32)
    reconstruction = ndimage.gaussian_filter(weave, 2)[..., None].astype(np.float32)
    return Panel(
        name=f"{defect}/{index:03d}.png", defect=defect, score=float(residual.max()),
        threshold=0.0, image=image, reconstruction=reconstruction, residual=residual,
        truth=truth, mask=without_specks(residual > threshold),
    )  # fmt: skip


def shrunk(panel: Panel, scale: Scale) -> SmallPanel:
    """Return the small panel with everything that the slider needs."""
    return shrink_panel(panel, scale=scale, mask_at=lambda t: without_specks(panel.residual > t))


def realistic_report(*, rows: int = 60, size: tuple[int, int] = (300, 420)) -> Report:
    """Return a typical report: most defects found, some mistakes, masks with a minimum area."""
    kinds = ["good", "good", "good", "scratch", "dent"]
    made = [inspected(i, defect=kinds[i % 5], size=size, threshold=0.03) for i in range(rows)]
    pixels = np.concatenate([p.residual.ravel()[::7] for p in made])
    scale = pixel_scale(0.03, lambda share: float(np.quantile(pixels, share)))
    good = sorted(p.score for p in made if p.defect == "good")
    threshold = good[-2]
    made = [p._replace(threshold=threshold) for p in made]
    scores = [Score(p.name, p.defect, p.score, p.score > threshold) for p in made]
    ranked = sorted(made, key=lambda p: p.score)
    bad = [p for p in ranked if p.defect != "good"]
    report = full_report()
    rates = {
        "image_tpr_calibrated": np.mean([p.score > threshold for p in bad]),
        "image_fpr_calibrated": 1 / len(good),
    }
    random = (np.random.default_rng(seed) for seed in (0, 1))
    alarms = [p for p in ranked[::-1] if p.score > threshold]
    typical = [bad[len(bad) // 2], bad[len(bad) // 3], ranked[rows // 6]]
    panels = {
        "Worst false alarms": [p for p in alarms if p.defect == "good"],
        "Worst misses": [p for p in bad if p.score <= threshold][:3],
        "Clearest hits": typical,
    }
    return report._replace(
        title="cae on woven cloth", metrics=report.metrics | rates, threshold=threshold,
        messages=["The image threshold rests on 40 held-out normal images."], scores=scores,
        patches={
            "normal": 0.004 * next(random).gamma(9, 1, 4000),
            "defective": 0.008 * next(random).gamma(7, 1, 300),
        },
        panels={title: [shrunk(p, scale) for p in group] for title, group in panels.items()},
    )  # fmt: skip

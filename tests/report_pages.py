"""Made-up reports for the tests, and reading a page back."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from matplotlib.image import imread

from recon_ad.report import (
    Panel,
    Report,
    Score,
)

KEYS = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "aupro_30",
    "iou_max_oracle",
    "recall_at_iou_max_oracle",
    "iou_calibrated",
    "iou_mean_calibrated",
    "image_fpr_calibrated",
    "image_tpr_calibrated",
    "train_seconds",
    "patches_per_second",
    "images_per_second",
)
VOID = {"meta", "img", "br", "link", "input", "hr"}
EVIL = "\"><script>alert(1)</script>'&$x_{$ \u202e\udcff\x00.png"


class Page(HTMLParser):
    """Collects what the tests ask for and fails on tags that do not balance."""

    def __init__(self, source: str):
        super().__init__()
        self.open, self.tags, self.links, self.images, self.words = [], [], [], [], []
        self.ids, self.style = [], ""
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
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def decoded(source: str) -> np.ndarray:
    """A picture from its data address: uint8 [h, w, 3]."""
    head, data = source.split(",", 1)
    pixels = imread(io.BytesIO(base64.b64decode(data)), format=head.split("/")[1].split(";")[0])
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    return pixels[..., :3]


def panel(name="a.png", *, height=40, width=60, channels=3, reconstructs=True, **fields) -> Panel:
    rng = np.random.default_rng(0)
    image = rng.random((height, width, channels), dtype=np.float32)
    truth = np.zeros((height, width), bool)
    truth[5:12, 6:20] = True
    made = Panel(
        name=name,
        defect="scratch",
        score=1.234,
        threshold=0.987,
        image=image,
        reconstruction=image[::-1] if reconstructs else None,
        residual=rng.random((height, width), dtype=np.float32),
        truth=truth,
        mask=np.roll(truth, 2, 0),
    )
    return made._replace(**fields)


def figures() -> dict:
    """metrics.json with a different value for each key."""
    values = {key: 0.801 + 0.007 * i for i, key in enumerate(KEYS)}
    speed = {"train_seconds": 3725.0, "patches_per_second": 64.31, "images_per_second": 5.5}
    return values | speed


def scores(count: int) -> list[Score]:
    rng = np.random.default_rng(1)
    kinds = ["good", "scratch", "$\\frac{$", "_hidden", "漢字 " * 20]
    names = [kinds[i % len(kinds)] for i in range(count)]
    values = rng.gamma(3, 1, count)
    return [
        Score(f"{i}.png", kind, float(v), bool(v > 3))
        for i, (kind, v) in enumerate(zip(names, values, strict=True))
    ]


def full_report() -> Report:
    line = np.linspace(0, 1, 50)
    return Report(
        title="a run",
        metrics=figures()
        | {
            "intervals": {"image_auroc": [0.111, 0.222]},
            "bounds": {"pixel_auroc": 0.0004},
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
        training=[{"step": 10, "train_loss": 0.5, "heldout_loss": None}],
        panels={"Worst misses": [panel()], "Worst false alarms": "none: no good image is above"},
    )

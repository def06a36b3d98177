"""Hand-made finished runs: the files that a comparison reads, with figures chosen by a test."""

import json
from pathlib import Path

from helpers.small_runs import small_config

PROTOCOL = {
    "evaluated_on": "my_part", "resolution": "native", "crop": [128, 128],
    "score_rule": "max of the smoothed map", "pixel_metrics": "raw", "checkpoint": "last",
    "aupro_fpr_limit": 0.3, "hardware": "a machine", "versions": {"jax": "1"},
}  # fmt: skip


def make_run(
    folder: Path, *, method="cae", seed=0, spec="configs/folder.py", figures=None, fields=None,
    protocol=None, fingerprint="same", tested="test/good/1.png", missing=(),
    judged=(),
):  # fmt: skip
    """Write a run and return its folder.

    `missing` names files to leave out. `judged` has the defect, score and decision of further test
    images.
    """
    config = small_config(f"{spec}:method={method},seed={seed}", **(fields or {}))
    metrics = {
        "image_auroc": 0.9, "pixel_auroc": None, "train_seconds": 60.0, "truths": {},
        **(figures or {}), "protocol": PROTOCOL | (protocol or {}),
    }  # fmt: skip
    log = [{"step": s, "heldout_loss": 0.5 / s, "train_loss": 0.4 / s} for s in (100, 200, 300)]
    files = {
        "config.json": config.to_json(),
        "data.json": json.dumps({"good_images": 7, "fingerprint": fingerprint}),
        "log.jsonl": "".join(json.dumps(line) + "\n" for line in log),
        "scores.csv": f"path,defect,score,threshold,anomalous\n{tested},good,1.0,2.0,0\n"
        + "".join(f"{i}.png,{d},{s!r},2.0,{int(a)}\n" for i, (d, s, a) in enumerate(judged)),
        "report.html": "<p>report</p>",
        "metrics.json": json.dumps(metrics),
    }
    folder.mkdir(parents=True)
    for name, content in files.items():
        if name not in missing:
            (folder / name).write_text(content)
    return folder

"""Trials of damaged detectors, exported models and checkpoints, which must be right or refused."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.robustness.damage import damaged, damaged_json
from benchmarks.robustness.trials import Verdict
from recon_ad.config import load_config
from recon_ad.detector import onnx_detector
from recon_ad.detector.directory import load
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.onnx_export import export
from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.runtime.checkpoints import Checkpoints
from recon_ad.runtime.files import sha256

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 1), np.uint8)


def small_detector() -> Detector:
    """Build an untrained detector with tiles of 32 px."""
    config = load_config("configs/demo.py:smoke").unlock()
    config.data.patch_size = config.inference.stride = 32
    config.method.width = 0.25
    method = build_method(config, channels=1)
    state = jax.jit(method.init)(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))
    return Detector(
        config, channels=1, variables=jax.device_get(method.finish({}, state, ())),
        thresholds=Thresholds(0.3, 0.2),
        record={"training": {}, "notes": [], "pretrained": {}, "learnt_from": []},
    )  # fmt: skip


def folders(folder: Path, seed: int) -> Callable[[int], Verdict]:
    """Make trials of a detector directory with one damaged file, half with a corrected digest."""
    whole, made = folder / "whole", folder / "made"
    small_detector().save(whole)
    described = json.loads((whole / "detector.json").read_text())
    score = load(whole)(IMAGE).score

    def trial(i: int) -> Verdict:
        rng = random.Random(seed * 1_000_003 + i)
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(whole, made)
        text, tensors = made / "detector.json", made / "variables.safetensors"
        kind = rng.choice(("a value", "a value", "bytes", "tensors"))
        what = f"trial {i}: a detector with {kind} changed"
        if kind == "a value":
            text.write_text(json.dumps(damaged_json(described, rng)))
        else:
            file = text if kind == "bytes" else tensors
            file.write_bytes(damaged(file.read_bytes(), rng))
        fits = rng.random() < 0.5
        if fits and kind == "tensors":
            digest = sha256(tensors.read_bytes())
            text.write_text(
                re.sub(r'(?<="variables_sha256": ")[0-9a-f]+', digest, text.read_text())
            )
        try:
            prediction = load(made)(IMAGE)
        except UserError:
            return "refused", what
        if not np.isfinite(prediction.score):  # every command reports it as a broken file
            return "refused", what
        if kind == "tensors" and not fits and prediction.score != score:
            return "wrong", f"{what}: another score"
        return "accepted", what

    return trial


def models(folder: Path, seed: int) -> Callable[[int], Verdict]:
    """Make trials of an exported model with one of its two files damaged."""
    whole, made = folder / "whole", folder / "made"
    export(small_detector(), whole / "m.onnx", [IMAGE])
    made.mkdir()

    def trial(i: int) -> Verdict:
        rng = random.Random(seed * 1_000_003 + i)
        for file in whole.glob("*.onnx"):
            shutil.copy(file, made / file.name)
        file = made / rng.choice(("m.onnx", "m.tail.onnx"))
        content = file.read_bytes()
        if rng.random() < 0.5:  # the metadata, which are at the end
            head = content.index(b"recon_ad_")
            content = content[:head] + damaged(content[head:], rng)
        else:
            content = damaged(content, rng)
        file.write_bytes(content)
        what = f"trial {i}: a damaged {file.name}"
        try:
            prediction = onnx_detector.load(made / "m.onnx")(IMAGE)
        except UserError:
            return "refused", what
        # Every command reports a score that is not finite as a broken file.
        return ("accepted" if np.isfinite(prediction.score) else "refused"), what

    return trial


def checkpoints(folder: Path, seed: int) -> Callable[[int], Verdict]:
    """Make trials of two checkpoints with the newer one damaged; either one or none may be used."""
    whole, made = folder / "whole", folder / "run/checkpoints"
    rng = np.random.default_rng(0)
    states = {
        step: {"w": jax.device_put(rng.random((64, 64), np.float32))} for step in (1, 2)
    }  # fmt: skip
    saved = Checkpoints(whole)
    for step, state in states.items():
        saved.save(step, state, {"seconds": float(step)}, loss=1 / step)
    saved.close()

    def same(found: tuple[int, Any, dict[str, Any]] | None) -> bool:
        if found is None:
            return True
        step, state, book = found
        kept = np.asarray(states[step]["w"]).tobytes() == np.asarray(state["w"]).tobytes()
        return kept and book == {"seconds": float(step)}

    def trial(i: int) -> Verdict:
        rng = random.Random(seed * 1_000_003 + i)
        shutil.rmtree(made.parent, ignore_errors=True)
        shutil.copytree(whole, made)
        files = sorted(f for f in (made / "2").rglob("*") if f.is_file() and f.stat().st_size)
        file = rng.choice(files)
        file.write_bytes(damaged(file.read_bytes(), rng))
        what = f"trial {i}: a damaged {file.relative_to(made)}"
        try:
            opened = Checkpoints(made)
            found = opened.latest(states[1])
            opened.close()
        except UserError:
            return "refused", what
        if not same(found):
            return "wrong", what
        return ("accepted" if found and found[0] == 2 else "refused"), what

    return trial

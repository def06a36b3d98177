"""Runs compared with the first row on the same test images: which are paired, and the page."""

import itertools

import numpy as np
import pytest
from helpers.made_runs import make_run
from helpers.report_pages import Page

from recon_ad.comparing.page import html, markdown
from recon_ad.comparing.pairs import pairs
from recon_ad.comparing.runs import compare, read_run
from recon_ad.errors import UserError
from recon_ad.metrics import delong, mcnemar


@pytest.fixture
def make(tmp_path):
    """Return a function that writes runs to separate folders."""
    count = itertools.count()
    return lambda **fields: make_run(tmp_path / f"run{next(count)}", **fields)


def compared(*folders):
    return compare([read_run(folder) for folder in folders])


def judged(seed, gain):
    """Return 60 images after the first one; every third is defective."""
    scores = np.random.default_rng(seed).normal(size=60) + gain * (np.arange(60) % 3 == 0) + 1
    return [("good" if i % 3 else "hole", float(s), s > 2) for i, s in enumerate(scores)]


def arrays(rows):
    """Return scores, truth and correctness of decisions, including the image that each run has."""
    rows = [("good", 1.0, False), *rows]
    truth = np.array([defect != "good" for defect, _, _ in rows])
    return np.array([s for _, s, _ in rows]), truth, np.array([a for *_, a in rows]) == truth


def test_each_run_is_held_against_the_first_rows_of_its_seed(make):
    names = [(m, s) for m in ("cae", "vae", "l2_ae") for s in (0, 1)]
    rows = {name: judged(i, 1.0 + name[1]) for i, name in enumerate(names)}
    runs = [make(method=m, seed=s, judged=r) for (m, s), r in rows.items() if (m, s) != ("vae", 1)]
    runs.append(make(method="vae", seed=5, judged=rows["vae", 1]))
    comparison = compared(*runs)
    found = pairs(comparison.sets[0])
    seeds = [(pair.row, pair.run.seed, pair.against.seed) for pair in found]
    assert seeds == [(2, 0, 0), (2, 5, 0), (3, 0, 0), (3, 1, 1)]
    first, truth, right = arrays(rows["cae", 0])
    second, _, also_right = arrays(rows["vae", 0])
    assert found[0].auroc == delong(first, second, truth)
    assert found[0].decisions == mcnemar(right, also_right)
    page, sheet = Page(html(comparison, beside=runs[0])).text, markdown(comparison)
    difference, p = found[0].auroc
    for text in (page, sheet):
        assert f"{difference:+.3f}" in text and f"{p:.3f}" in text
        assert "equally good would differ" in text and "DeLong" in text


def test_what_cannot_be_tested_says_why_and_shows_no_nan(make):
    alike = judged(0, 9.0)  # AUROC 1 in both
    runs = [make(method=m, judged=alike) for m in ("cae", "vae")]
    (pair,) = pairs(compared(*runs).sets[0])
    assert "neither detector ranks" in pair.auroc and "same images" in pair.decisions
    few = [make(method=m, tested="test/good/2.png") for m in ("cae", "vae")]
    (pair,) = pairs(compared(*few).sets[0])
    assert pair.auroc == "fewer than two good images"
    text = markdown(compared(*runs, *few))
    assert "neither detector ranks any image better" in text
    assert "nan" not in text.lower().split()
    # With one row there is nothing to test.
    alone = compared(runs[0], make(seed=1, judged=judged(1, 0.5)))
    assert pairs(alone.sets[0]) == [] and "DeLong" not in markdown(alone)


def test_generated_images_are_paired_only_with_themselves(make):
    chess = {"spec": "configs/demo.py"}
    runs = [
        make(**chess, method=m, seed=s, fingerprint=f"drawn by {s}", judged=judged(s, 1.0))
        for m, s in (("cae", 0), ("cae", 1), ("vae", 1), ("vae", 2))
    ]
    found = pairs(compared(*runs).sets[0])
    assert [(pair.run.seed, pair.against.seed) for pair in found] == [(1, 1)]


def test_a_small_p_is_no_zero(make):
    runs = [make(method=m, judged=judged(3, gain)) for m, gain in (("cae", 0.0), ("vae", 6.0))]
    assert "| < 0.001 " in markdown(compared(*runs))


def test_damaged_scores_are_refused(make):
    run = make()
    for content in ("path,defect\n1.png,good\n", "path,defect,score,anomalous\n1,good,x,0\n"):
        (run / "scores.csv").write_text(content)
        with pytest.raises(UserError, match=r"scores\.csv is damaged .* to write it again"):
            read_run(run)

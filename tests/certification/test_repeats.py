"""Repeated pictures: agreement against statsmodels, variances, grouping, tolerances."""

import numpy as np
import pytest
from statsmodels.stats import inter_rater

from recon_ad.certification.repeats import fleiss_kappa, parts_of, repeatability, variances, vary
from recon_ad.errors import UserError


def rows(verdicts, scores):
    return [
        {"stopped": bool(v), "score": float(s), "registered": True}
        for v, s in zip(verdicts, scores, strict=True)
    ]


def test_kappa_is_that_of_statsmodels():
    verdicts = np.random.default_rng(0).random((30, 5)) < np.linspace(0, 1, 30)[:, None]
    table, _ = inter_rater.aggregate_raters(verdicts.astype(int))
    assert fleiss_kappa(verdicts.tolist()) == pytest.approx(inter_rater.fleiss_kappa(table))
    assert fleiss_kappa([[True] * 3, [False] * 3]) == 1
    assert fleiss_kappa([[False, False]] * 4) is None
    # The third picture of the first part has no counterpart.
    assert fleiss_kappa([[True, True, False], [False, False]]) == 1


def test_variances_are_those_that_the_scores_were_drawn_with():
    rng = np.random.default_rng(1)
    groups = [rng.normal(m, 0.5, 6).tolist() for m in rng.normal(10, 2.0, 400)]
    within, between = variances(groups)
    assert within == pytest.approx(0.25, rel=0.1) and between == pytest.approx(4, rel=0.25)
    # Nothing between: by the definition of the mean squares for groups of two sizes.
    within, between = variances([[0.0, 2.0], [1.0, 1.0, 1.0]])
    assert (within, between) == (pytest.approx(2 / 3), 0)
    assert variances([[1.0, 2.0]]) is None


def test_parts_that_agree_are_counted_and_the_gap_is_that_to_the_threshold():
    good = {str(i): rows([0, 0, 0], [5 + i, 6 + i, 7 + i]) for i in range(5)}
    defective = {"a": rows([1, 1, 1], [30, 31, 32]), "b": rows([1, 0, 1], [20, 19, 21])}
    found = repeatability(good, defective, threshold=18.0)
    assert (found["alike"]["count"], found["alike"]["total"], found["pictures"]) == (6, 7, 21)
    assert found["alike"]["at_least"] < 6 / 7
    assert found["score_sd_within"] == pytest.approx(1)
    assert found["share_of_gap"] == pytest.approx(1 / (18 - 8))


def test_names_are_grouped_by_the_first_group_of_the_pattern():
    names = [f"part{p}_{i}.png" for p in range(6) for i in range(1 + (p > 0))]
    parts = parts_of(names, r"(part\d+)_")
    assert len(parts) == 5 and parts["part3"] == ["part3_0.png", "part3_1.png"]
    for pattern, says in ((r"part(\d", "not a valid"), (r"(x\d)", "finds 0 parts")):
        with pytest.raises(UserError, match=says):
            parts_of(names, pattern)


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint16, 3)])
def test_a_varied_picture_differs_little_and_keeps_its_type(dtype, channels):
    top = np.iinfo(dtype).max
    rows_, columns = np.mgrid[:80, :90] / 90
    image = np.repeat((top * (0.3 + 0.4 * rows_ * columns))[..., None], channels, 2).astype(dtype)
    one, other = (vary(image, np.random.default_rng(s)) for s in (0, 1))
    assert one.dtype == dtype and one.shape == image.shape
    for made in (one, other):
        change = (made.astype(float) - image) / top
        # 2 % of a gray level of .5, some px of this slope, and three standard deviations of noise.
        assert 0.003 < change.std() < 0.02 and abs(change.mean()) < 0.012
    assert (one != other).any()

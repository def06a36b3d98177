"""The message about a model that explains little."""

import pytest

from recon_ad.training.diagnosis import ENOUGH, fall, verdict

FLAT = [1.0, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]


@pytest.mark.parametrize(
    ("share", "losses", "patches", "says"),
    [
        (0.05, FLAT, ENOUGH, "learned only the mean"),
        (-0.01, FLAT, ENOUGH, "learned only the mean"),
        (0.05, FALLING, ENOUGH, "not trained long enough"),
        (0.05, FALLING, 10, "not trained long enough"),
        (0.05, FLAT, ENOUGH - 1, "too few to find"),
        (0.05, [1.0, 0.9], ENOUGH, "too few to find"),
        (-3.0, FALLING[::-1], ENOUGH, "rising"),
        (0.1, FLAT, ENOUGH, None),
        (0.9, FALLING, 10, None),
    ],
)
def test_a_model_that_did_not_learn_is_told_why(share, losses, patches, says):
    told = verdict(share, losses, patches=patches)
    assert says in told if says else told == ""


def test_fall_compares_the_last_two_quarters():
    assert fall([9.0, 9.0, 9.0, 9.0, 2.0, 2.0, 1.0, 1.0]) == pytest.approx(0.5)
    assert fall([0.0] * 8) == 0
    assert fall([3.0, 1.0]) == 0

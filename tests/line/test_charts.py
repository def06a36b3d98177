"""Control charts give as few false alarms as promised, and soon detect a change."""

import itertools

import numpy as np
import pytest
from scipy import stats

from recon_ad.errors import UserError
from recon_ad.line import chart_limits as limits
from recon_ad.line.charts import KINDS, Chart, State, advance, make_chart, standardised, step

BOTH = ("ewma", "cusum")
# An independent simulation: the next state by scores, starting at 0.
EITHER_WAY = np.array([[1], [-1]])
SIMULATED = {
    "ewma": lambda s, z: 0.9 * s + 0.1 * EITHER_WAY * z,
    "cusum": lambda s, z: np.maximum(0, s + EITHER_WAY * z - 0.5),
    # Excess of the shares over 0.1.
    "distribution": lambda s, z: 0.99 * s + 0.01 * (np.eye(10)[:, bins_of(z)] - 0.1),
}


def bins_of(scores):
    return (10 * stats.norm.cdf(scores)).astype(int)


def events(chart, values):
    """Return the images at which alarms begin or end."""
    state = State()
    for i, z in enumerate(standardised(chart, np.asarray(values, float)).tolist()):
        state, event = advance(chart, state, z)
        if event:
            yield i, event


def known(kind, run_length):
    """Return a chart with so long a reference that ranks are those of N(0, 1) itself."""
    reference = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    return make_chart("x", kind, reference, run_length=run_length)


def normal(spread=1.0, middle=0.0):
    return lambda random, n: spread * random.standard_normal(n) + middle


def happening(rate):
    return lambda random, n: random.random(n) < rate


def mean_length(chart, draw, *, runs):
    """Return the mean number of images until the first alarm."""
    streams = (draw(np.random.default_rng(seed), 3_000) for seed in range(runs))
    return np.mean([next(events(chart, values))[0] + 1 for values in streams])


@pytest.mark.parametrize(
    ("run_length", "limit", "expected", "rounding"),
    [
        # One-sided, k = 0.5, N(0, 1): Montgomery, Introduction to Statistical Quality Control; two
        # sides have 168 at h = 4 and 465 at h = 5.
        (limits.cusum_run_length, 4.0, 2 * 168, 0.01),
        (limits.cusum_run_length, 5.0, 2 * 465, 0.01),
        # Lucas and Saccucci 1990: λ = 0.1, L = 2.814 gives 500.
        (limits.ewma_run_length, 2.814 * (0.1 / 1.9) ** 0.5, 500, 0.02),
    ],
)
def test_run_lengths_are_the_textbooks(run_length, limit, expected, rounding):
    assert run_length(limit, limits.known)[0] == pytest.approx(expected, rel=rounding)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.3])
def test_an_event_weighs_as_much_as_its_likelihood_says(rate):
    grown = 3 * rate / (1 - rate) / (1 + 3 * rate / (1 - rate))
    ratio = np.log(grown / rate) / np.log((1 - rate) / (1 - grown))
    assert abs(limits.event_weight(rate) - ratio) <= 0.5


@pytest.mark.parametrize("kind", BOTH)
def test_alarms_are_as_rare_as_asked_for_and_a_shift_is_seen_soon(kind):
    length = mean_length(known(kind, 100), normal(), runs=400)
    # The mean of 400 nearly geometric lengths has a standard error of 5 %.
    assert length == pytest.approx(100, rel=0.15)
    for sign in (1, -1):
        length = mean_length(known(kind, 10_000), normal(middle=sign), runs=100)
        # One standard deviation: 10.4 images with CUSUM's h = 5 (Montgomery); h is higher here.
        assert 10 < length < 25


def test_events_are_as_rare_as_asked_for():
    chart = make_chart("rejects", "events", np.arange(1000) < 50, run_length=200)
    rate = float(chart.reference[0])
    # Limits are whole numbers, so the length may be greater; the mean's standard error is 5 %.
    expected = limits.events_run_length(int(chart.limit), rate)
    assert 200 <= expected < 1.3 * 200
    length = mean_length(chart, happening(rate), runs=400)
    assert length == pytest.approx(expected, rel=0.15)
    assert mean_length(chart, happening(0.2), runs=100) < 40


@pytest.mark.parametrize(("events", "count"), [(0, 200), (5, 500), (40, 400)])
def test_a_rate_of_events_is_taken_for_as_high_as_it_may_be(events, count):
    # At this rate so few events or fewer occur in one reference of ten (Clopper and Pearson 1934).
    rate = limits.events_rate(events, count)
    assert stats.binom.cdf(events, count + 1, rate) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", SIMULATED)
def test_alarms_of_short_references_are_as_rare_as_asked_for(kind):
    # All streams run at once; each restarts after an alarm, as the limits assume.
    count, run_length, streams, length = 60, 400.0, 500, 1_500
    reference = np.sort(np.random.default_rng(0).exponential(size=(streams, count)))
    alarms = []
    for taken_for in (count, None):
        limit = KINDS[kind].limit(taken_for, run_length)
        random, state, total = np.random.default_rng(1), 0.0, 0
        for _ in range(length):
            rank = (random.exponential(size=(streams, 1)) > reference).sum(axis=1)
            state = SIMULATED[kind](state, stats.norm.ppf((rank + 0.5) / (count + 1)))
            squares = 199 * 10 * np.square(state).sum(axis=0)
            beyond = (squares if kind == "distribution" else state.max(axis=0)) > limit
            total += beyond.sum()
            state = np.where(beyond, 0.0, state)
        alarms.append(total * run_length / streams / length)
    reckoned_with, taken_for_the_truth = alarms
    assert 0.7 < reckoned_with < 1.3 and taken_for_the_truth > 1.3 * reckoned_with, alarms


@pytest.mark.parametrize(
    ("kind", "limit", "run_length"),
    [("cusum", 3.0, limits.cusum_run_length), ("ewma", 0.45, limits.ewma_run_length)],
)
def test_run_lengths_know_what_values_a_reference_leaves_out(kind, limit, run_length):
    # If all probabilities are equal, a reference of 40 has no score beyond ±2.25. The chain is
    # compared with a simulation by single steps.
    scores = stats.norm.ppf((np.arange(41) + 0.5) / 41)
    drawn = np.random.default_rng(0).choice(scores, (600, 2_000))
    states = itertools.accumulate(drawn, SIMULATED[kind], initial=np.zeros((2, 2_000)))
    beyond = np.abs([state[0] for state in states]) > limit
    lengths = np.where(beyond.any(axis=0), beyond.argmax(axis=0), 600)  # few last that long

    def below(edges):
        return np.searchsorted(scores, edges, side="right")[None] / 41

    # 2,000 nearly geometric lengths have a standard error of 2.2 %.
    assert run_length(limit, below)[0] == pytest.approx(lengths.mean(), rel=0.08)


@pytest.mark.parametrize("kind", BOTH)
def test_what_the_values_mean_does_not_matter(kind):
    random = np.random.default_rng(0)
    reference, later = random.standard_normal(500), random.standard_normal(300) + 0.8
    plain, skewed = (
        list(events(make_chart("x", kind, change(reference), run_length=1_000), change(later)))
        for change in (np.positive, np.exp)
    )
    assert plain and plain == skewed


@pytest.mark.parametrize(
    ("kind", "reference", "calm", "disturbed", "named", "soon", "over"),
    [
        ("ewma", normal(), normal(0.5), normal(0.5, 2.5), "high", 31, 40),
        ("cusum", normal(), normal(0.5), normal(0.5, -2.5), "low", 31, 40),
        ("events", happening(0.02), happening(0), happening(0.5), "high", 31, 300),
        # The distribution widens, and its mean stays.
        ("distribution", normal(), normal(), normal(2), "changed", 100, 300),
    ],
)
def test_one_disturbance_is_one_alarm_and_ends(kind, reference, calm, disturbed, named, soon, over):
    random = np.random.default_rng(1)
    chart = make_chart("x", kind, reference(random, 500), run_length=10_000)
    parts = (calm(random, 99), disturbed(random, 300), calm(random, 400))
    (begun, what), (ended, end) = events(chart, np.concatenate(parts))
    assert (what, end) == (named, "end")
    # The statistic has not piled up, although the disturbance lasted for hundreds of images.
    assert 99 <= begun < 99 + soon and 399 <= ended < 399 + over


def test_normal_scores_are_those_of_ranks():
    chart = Chart("x", "ewma", np.array([1.0, 2.0, 2.0, 3.0]), 1.0)
    # The middle of the tie is rank 2 of 4, plus the usual half and one.
    found = standardised(chart, np.array([2.0, 9.0, -9.0]))
    np.testing.assert_allclose(found, stats.norm.ppf([2.5 / 5, 4.5 / 5, 0.5 / 5]), atol=1e-12)


def test_an_alarm_that_turns_round_is_two_and_a_missing_value_changes_nothing():
    chart, state = known("cusum", 1_000), State(1.0, 0.5, "")
    found = events(chart, [*np.full(60, 2.5), *np.full(60, -2.5)])
    assert [event for _, event in found] == ["high", "end", "low"]
    assert step(chart, state, float("nan")) == (state, "")


@pytest.mark.parametrize(
    ("kind", "reference", "words"),
    [
        ("ewma", [1.0, 2.0, 3.0], "of x has 3 images: give 30 or more"),
        ("events", [1.0, 0.0] * 40, "a period in which they are rare"),
        ("ewma", [np.nan] * 40, "not finite"),
    ],
)
def test_a_reference_that_says_too_little_gets_a_sentence(kind, reference, words):
    with pytest.raises(UserError, match=words):
        make_chart("x", kind, reference, run_length=100)

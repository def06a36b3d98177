"""Control charts alarm as seldom as they say while nothing changes, and soon when it does."""

import numpy as np
import pytest
from scipy import stats

from recon_ad.errors import UserError
from recon_ad.line import chart_limits as limits
from recon_ad.line.charts import KINDS, Chart, State, advance, make_chart, standardised, step

BOTH = ("ewma", "cusum")


def run(chart, values):
    """Where which events are."""
    state, events = State(), []
    for i, value in enumerate(values):
        state, event = step(chart, state, float(value))
        if event:
            events.append((i, event))
    return events


def known(kind, run_length):
    """A chart with so long a reference that ranks are those of N(0, 1) itself."""
    return make_chart(
        "x", kind, stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000), run_length=run_length
    )


def mean_length(chart, draw, *, runs):
    """Images until the first alarm, on average; draw(random, n) gives n values."""
    total = 0
    for seed in range(runs):
        state, event = State(), ""
        values = np.asarray(draw(np.random.default_rng(seed), 3_000), float)
        for z in standardised(chart, values).tolist():
            state, event = advance(chart, state, z)
            total += 1
            if event:
                break
        assert event
    return total / runs


@pytest.mark.parametrize(
    ("run_length", "limit", "expected", "rounding"),
    [
        # One-sided, k = 0.5, N(0, 1): Montgomery, Introduction to Statistical Quality Control, two
        # sides having 168 at h = 4 and 465 at h = 5.
        (limits.cusum_run_length, 4.0, 2 * 168, 0.01),
        (limits.cusum_run_length, 5.0, 2 * 465, 0.01),
        # Lucas and Saccucci 1990: λ = 0.1, L = 2.814 has 500.
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
def test_without_a_change_alarms_are_as_rare_as_asked_for(kind):
    length = mean_length(known(kind, 100), lambda r, n: r.standard_normal(n), runs=400)
    # The mean of 400 nearly geometric lengths: a standard error of 5 %.
    assert length == pytest.approx(100, rel=0.15)


def test_events_are_as_rare_as_asked_for():
    chart = make_chart("rejects", "events", np.arange(1000) < 50, run_length=200)
    rate = float(chart.reference[0])
    # Limits are whole numbers, so that it may be longer; 5 % is the mean's standard error.
    expected = limits.events_run_length(int(chart.limit), rate)
    assert 200 <= expected < 1.3 * 200
    length = mean_length(chart, lambda r, n: r.random(n) < rate, runs=400)
    assert length == pytest.approx(expected, rel=0.15)
    assert mean_length(chart, lambda r, n: r.random(n) < 0.2, runs=100) < 40


@pytest.mark.parametrize(("events", "count"), [(0, 200), (5, 500), (40, 400)])
def test_a_rate_of_events_is_taken_for_as_high_as_it_may_be(events, count):
    # With it so few events or fewer are seen in one reference of ten (Clopper and Pearson 1934).
    rate = limits.events_rate(events, count)
    assert stats.binom.cdf(events, count + 1, rate) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", [*BOTH, "distribution"])
def test_alarms_of_short_references_are_as_rare_as_asked_for(kind):
    # Simulated anew, all streams at once; each begins anew after an alarm, as limits are reckoned.
    count, run_length, streams, length = 60, 400.0, 500, 1_500
    find = KINDS[kind].limit
    random = np.random.default_rng(0)
    reference = np.sort(random.exponential(size=(streams, count)))
    alarms = []
    for limit in (find(count, run_length), find(None, run_length)):
        random, total = np.random.default_rng(1), 0
        up, down, shares = np.zeros(streams), np.zeros(streams), np.full((streams, 10), 0.1)
        for _ in range(length):
            rank = (random.exponential(size=(streams, 1)) > reference).sum(axis=1)
            z = stats.norm.ppf((rank + 0.5) / (count + 1))
            if kind == "ewma":
                up = 0.9 * up + 0.1 * z
                beyond = np.abs(up) > limit
            elif kind == "cusum":
                up, down = np.maximum(0, up + z - 0.5), np.maximum(0, down - z - 0.5)
                beyond = np.maximum(up, down) > limit
            else:
                drawn = np.floor(10 * (rank + 0.5) / (count + 1)).astype(int)
                shares = 0.99 * shares + 0.01 * np.eye(10)[drawn]
                beyond = 199 * 10 * np.square(shares - 0.1).sum(axis=1) > limit
            total += beyond.sum()
            up, down = np.where(beyond, 0, up), np.where(beyond, 0, down)
            shares = np.where(beyond[:, None], 0.1, shares)
        alarms.append(total * run_length / streams / length)
    reckoned_with, taken_for_the_truth = alarms
    assert 0.7 < reckoned_with < 1.3 and taken_for_the_truth > 1.3 * reckoned_with, alarms


def test_run_lengths_know_what_values_a_reference_leaves_out():
    # All chances equal, the ranks of a reference of 40 have no score beyond ±2.25; beside it, the
    # chain by single steps of simulation.
    scores = stats.norm.ppf((np.arange(41) + 0.5) / 41)
    total = np.arange(42) / 41

    def below(edges):
        return total[np.searchsorted(scores, edges, side="right")][None]

    random = np.random.default_rng(0)
    drawn = random.choice(scores, (2_000, 600))
    for limit, run_length, advanced in (
        (3.0, limits.cusum_run_length, lambda s, z: np.maximum(0, s + z - 0.5)),
        (0.45, limits.ewma_run_length, lambda s, z: 0.9 * s + 0.1 * z),
    ):
        state, lengths = np.zeros(2_000), np.full(2_000, 600.0)
        for i in range(600):
            state = advanced(state, drawn[:, i])
            beyond = np.abs(state) > limit
            lengths = np.where(beyond & (lengths == 600), i + 1, lengths)
        # Few last so long; 2,000 nearly geometric lengths have a standard error of 2.2 %.
        assert run_length(limit, below)[0] == pytest.approx(lengths.mean(), rel=0.08)


def test_a_distribution_that_widens_is_seen_though_its_middle_stays():
    random = np.random.default_rng(3)
    chart = make_chart("x", "distribution", random.standard_normal(500), run_length=10_000)
    wide, same = 2 * random.standard_normal(400), random.standard_normal(600)
    events = run(chart, [*random.standard_normal(200), *wide, *same])
    assert [event for _, event in events] == ["changed", "end"]
    assert 200 < events[0][0] < 300 and 600 < events[1][0] < 900


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_shift_is_seen_soon_and_named_by_its_direction(kind, sign):
    chart = known(kind, 10_000)
    # One standard deviation: 10.4 images by CUSUM's h = 5 (Montgomery); the limit is higher here.
    assert 10 < mean_length(chart, lambda r, n: r.standard_normal(n) + sign, runs=100) < 25
    assert run(chart, [3.0 * sign] * 40)[0][1] == ("high" if sign > 0 else "low")


@pytest.mark.parametrize("kind", BOTH)
def test_what_the_values_mean_does_not_matter(kind):
    random = np.random.default_rng(0)
    reference, later = random.standard_normal(500), random.standard_normal(300) + 0.8
    plain = run(make_chart("x", kind, reference, run_length=1_000), later)
    skewed = run(make_chart("x", kind, np.exp(reference), run_length=1_000), np.exp(later))
    assert plain and plain == skewed


@pytest.mark.parametrize("kind", [*BOTH, "events"])
def test_one_disturbance_is_one_alarm_and_ends(kind):
    random = np.random.default_rng(1)
    if kind == "events":
        reference = random.random(500) < 0.02
        before, during, after = (random.random(n) < p for n, p in ((99, 0), (300, 0.5), (400, 0)))
    else:
        reference = random.standard_normal(500)
        before, during, after = (
            random.standard_normal(n) * 0.5 + shift for n, shift in ((99, 0), (300, 2.5), (400, 0))
        )
    chart = make_chart("x", kind, reference, run_length=10_000)
    events = run(chart, [*before, *during, *after])
    assert [event for _, event in events] == ["high", "end"]
    assert 99 <= events[0][0] < 130
    # Though it lasted for hundreds of images, the statistic has not piled up.
    assert 399 <= events[1][0] < 399 + (300 if kind == "events" else 40)


def test_normal_scores_are_those_of_ranks():
    chart = Chart("x", "ewma", np.array([1.0, 2.0, 2.0, 3.0]), 1.0)
    # In the middle of a tie: rank 2 of 4, with a half and one more as usual.
    assert standardised(chart, 2.0) == pytest.approx(0.0)
    assert standardised(chart, 9.0) == pytest.approx(stats.norm.ppf(4.5 / 5))
    assert standardised(chart, -9.0) == pytest.approx(stats.norm.ppf(0.5 / 5))


def test_an_alarm_that_turns_round_is_two_and_a_missing_value_changes_nothing():
    chart, state = known("cusum", 1_000), State(1.0, 0.5, "")
    events = run(chart, [*np.full(60, 2.5), *np.full(60, -2.5)])
    assert [event for _, event in events] == ["high", "end", "low"]
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

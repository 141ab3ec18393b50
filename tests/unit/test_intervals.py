from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats
from scipy.stats import mstats

from harness.budget import parse_budget
from harness.errors import MeasurementError
from harness.measurement import intervals
from harness.measurement.intervals import judged, log_interval, summarise
from harness.measurement.types import Block, LatencySample

if TYPE_CHECKING:
    from numpy.typing import NDArray

NS = 1e6
"""A made-up call takes a millisecond, and noise."""
SAME = parse_budget("100%", "p50")


def sample(wall_ns: Any, switches: Any = None, per_sitting: int = 1) -> LatencySample:
    wall = np.round(np.asarray(wall_ns)).astype(np.int64)
    nivcsw = np.zeros_like(wall) if switches is None else np.asarray(switches, np.int64)
    return LatencySample(wall, wall, nivcsw, np.arange(len(wall)) // per_sitting)


def noisy(seed: int, rounds: int = 12, calls: int = 51, scale: float = NS) -> LatencySample:
    rng = np.random.default_rng(seed)
    return sample(scale * rng.lognormal(0.0, 0.02, (rounds, calls)), per_sitting=2)


def calls_of(n: int) -> LatencySample:
    """Return a sample with n calls that count, in two sittings and a round each."""
    rng = np.random.default_rng(n)
    return sample(NS * rng.lognormal(0.0, 0.02, (2, n // 2 + 1)))


def test_blocks_become_rounds_and_sittings() -> None:
    blocks = [Block(*(np.full(3, 10 * i + j) for j in range(3))) for i in range(5)]
    made = LatencySample.from_blocks(blocks, 2)
    assert made.wall_ns.shape == (5, 3)
    assert [int(rows[0]) for rows in made.cpu_ns] == [1, 11, 21, 31, 41]
    assert [rounds.tolist() for rounds in made.sittings()] == [[0, 1], [2, 3], [4]]


# Intervals over log values.


def test_the_interval_of_two_values_is_the_textbook_one() -> None:
    estimate = log_interval([math.log(1.0), math.log(4.0)], 0.95, trim=True)
    half = 12.706204736 * math.log(4.0) / 2  # t(0.975, 1) times s / sqrt(2)
    assert math.isclose(estimate.value, 2.0)
    assert math.isclose(estimate.lo, 2.0 * math.exp(-half))
    assert math.isclose(estimate.hi, 2.0 * math.exp(half))


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_interval(values: list[float], trim: bool) -> None:
    with pytest.raises(MeasurementError, match="2 values"):
        log_interval(values, 0.95, trim)


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_below_ten_values_the_interval_is_students(n: int) -> None:
    logs = np.random.default_rng(n).normal(0.0, 0.1, n)
    estimate = log_interval(logs, 0.9, trim=True)
    low, high = stats.t.interval(0.9, n - 1, logs.mean(), stats.sem(logs))
    assert math.isclose(estimate.value, math.exp(logs.mean()))
    assert math.isclose(estimate.lo, math.exp(low))
    assert math.isclose(estimate.hi, math.exp(high))


@pytest.mark.parametrize("n", [10, 20, 40])
def test_from_ten_values_the_interval_is_yuens(n: int) -> None:
    drawn = np.sort(np.random.default_rng(1).normal(0.0, 0.1, n))
    logs = np.stack([drawn[: n // 2], drawn[n // 2 :]], 1).ravel()  # in turns: never alike in a row
    estimate = log_interval(logs, 0.9875, trim=True)
    low, high = mstats.trimmed_mean_ci(logs, limits=(0.2, 0.2), alpha=0.0125)
    kept = n - 2 * int(0.2 * n)  # scipy divides by n and h, Yuen by n - 1 and h - 1
    wider = math.sqrt(kept / (kept - 1) * (n - 1) / n)
    centre = float(stats.trim_mean(logs, 0.2))
    low, high = centre + (low - centre) * wider, centre + (high - centre) * wider
    assert math.isclose(estimate.value, math.exp(centre))
    assert math.isclose(estimate.lo, math.exp(low))
    assert math.isclose(estimate.hi, math.exp(high))
    assert log_interval(logs, 0.9875, trim=False).value == pytest.approx(math.exp(logs.mean()))


def test_two_wild_values_of_twenty_hardly_move_a_trimmed_interval() -> None:
    logs = np.random.default_rng(2).normal(0.0, 0.01, 20)
    wild = logs.copy()
    wild[[4, 11]] = 1.0, 2.0
    calm, shaken = log_interval(logs, 0.95, trim=True), log_interval(wild, 0.95, trim=True)
    assert abs(math.log(shaken.value)) < 0.01
    assert shaken.half_width < 2 * calm.half_width
    assert log_interval(wild, 0.95, trim=False).half_width > 20 * calm.half_width


def test_the_order_of_independent_values_does_not_matter() -> None:
    logs = np.random.default_rng(3).normal(0.0, 0.1, 12)
    once, turned = log_interval(logs, 0.95, trim=True), log_interval(logs[::-1], 0.95, trim=True)
    assert math.isclose(once.lo, turned.lo)
    assert math.isclose(once.hi, turned.hi)


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("n", [6, 10, 15, 30])
def test_intervals_cover_independent_values_as_often_as_they_say(n: int, trim: bool) -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1000):
        estimate = log_interval(rng.normal(0.0, 0.1, n), 0.95, trim)
        hits += estimate.lo <= 1.0 <= estimate.hi
    assert 0.92 <= hits / 1000 <= 0.98


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("n", [10, 12, 20])
def test_no_interval_of_independent_values_is_wild(n: int, trim: bool) -> None:
    rng = np.random.default_rng(6)
    drawn = [log_interval(rng.normal(0.0, 0.1, n), 0.95, trim) for _ in range(1000)]
    widths = sorted(math.log(one.hi / one.lo) for one in drawn)
    assert widths[-1] < 5 * widths[500]


def test_intervals_of_dependent_values_are_widened_so_that_they_still_cover() -> None:
    rng = np.random.default_rng(5)
    hits = naive = 0
    for _ in range(300):
        logs = [0.1 * rng.normal()]
        for _ in range(79):
            logs.append(0.5 * logs[-1] + math.sqrt(0.75) * 0.1 * rng.normal())
        estimate = log_interval(logs, 0.95, trim=False)
        hits += estimate.lo <= 1.0 <= estimate.hi
        naive += abs(np.mean(logs)) <= 1.99 * np.std(logs, ddof=1) / math.sqrt(80)
    assert hits / 300 >= 0.9
    assert naive / 300 < 0.85


def test_looks_share_the_five_per_cent() -> None:
    assert intervals.per_look_confidence(0.95, 1) == 0.95
    assert intervals.per_look_confidence(0.95, 4) == 0.9875
    assert intervals.per_look_confidence(0.99, 2) == 0.995


@pytest.mark.parametrize(("quantile", "calls"), [(0.9, 64), (0.99, 662), (0.999, 6636)])
def test_a_quantile_needs_so_many_calls(quantile: float, calls: int) -> None:
    assert intervals.least_calls(quantile) == calls
    assert stats.binom.cdf(1, calls, 1 - quantile) <= 0.01
    assert stats.binom.cdf(1, calls - 1, 1 - quantile) > 0.01


# Identical models whose sessions differ.


def identical(rng: np.random.Generator, sittings: int, rounds: int) -> LatencySample:
    """Return calls of a session that is lucky or not by 1 %, made anew for every sitting."""
    luck = rng.normal(0.0, 0.01, sittings).repeat(rounds)[:, None]
    noise = rng.normal(0.0, 0.003, (sittings * rounds, 1)) + rng.normal(
        0.0, 0.01, (sittings * rounds, 6)
    )
    return sample(NS * np.exp(luck + noise), per_sitting=rounds)


def by_round(one: LatencySample) -> LatencySample:
    """Return a sample whose rounds are taken for sittings of their own."""
    return LatencySample(one.wall_ns, one.cpu_ns, one.nivcsw, np.arange(len(one.wall_ns)))


def called_different(pairs: list[tuple[LatencySample, LatencySample]]) -> float:
    """Return in which share of pairs the 95 % interval of the ratio excludes 1."""
    wrong = 0
    for ours, theirs in pairs:
        ratio = judged([ours], [theirs], SAME, 0.95)
        assert ratio is not None
        wrong += not ratio.lo <= 1.0 <= ratio.hi
    return wrong / len(pairs)


def test_identical_models_are_not_called_different_by_the_luck_of_their_sessions() -> None:
    rng = np.random.default_rng(6)
    for sittings in (6, 8, 12):
        fresh = [(identical(rng, sittings, 4), identical(rng, sittings, 4)) for _ in range(200)]
        assert called_different(fresh) < 0.1
    # The same number of rounds of one pair of sessions: as precise, and wrong.
    kept = [(identical(rng, 1, 32), identical(rng, 1, 32)) for _ in range(200)]
    assert called_different([(by_round(ours), by_round(theirs)) for ours, theirs in kept]) > 0.5


def test_an_interval_over_rounds_would_call_identical_models_different_too_often() -> None:
    rng = np.random.default_rng(7)
    pairs = [(identical(rng, 6, 10), identical(rng, 6, 10)) for _ in range(200)]
    over_rounds = called_different([(by_round(ours), by_round(theirs)) for ours, theirs in pairs])
    assert called_different(pairs) < 0.1 < 0.12 < over_rounds


def test_models_that_do_differ_are_told_apart() -> None:
    rng = np.random.default_rng(8)
    slower = []
    for _ in range(50):
        ours, theirs = identical(rng, 12, 3), identical(rng, 12, 3)
        wall = np.round(ours.wall_ns * 1.05).astype(np.int64)
        slower.append((LatencySample(wall, wall, ours.nivcsw, ours.sitting), theirs))
    assert called_different(slower) > 0.9


# What was disturbed.


def test_clean_needs_half_of_the_calls_and_two_hundred() -> None:
    def with_clean(rounds: int, calls: int, clean: int) -> LatencySample:
        switches = np.ones((rounds, calls + 1), np.int64)
        switches[:, 1 : 1 + clean] = 0
        return sample(np.full((rounds, calls + 1), 1000), switches)

    assert intervals.clean_available([with_clean(10, 40, 20)])
    assert not intervals.clean_available([with_clean(10, 40, 19)])
    assert not intervals.clean_available([with_clean(10, 20, 19)])
    assert intervals.clean_available([with_clean(10, 5, 5)])  # nothing was disturbed
    assert intervals.clean_available([with_clean(10, 10, 10), with_clean(10, 10, 10)])
    assert not intervals.clean_available([with_clean(10, 40, 40), with_clean(1, 40, 0)])


def test_a_round_without_a_clean_call_has_no_median() -> None:
    calls = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan]])
    logs = intervals.round_log_medians(calls)
    assert math.isclose(logs[0], math.log(2.0))
    assert math.isnan(logs[1])


def test_preempted_calls_are_left_out_of_clean_figures_and_kept_in_raw_ones() -> None:
    wall = np.full((10, 51), 1000)
    wall[:, -10:] = 50_000
    figures = summarise([sample(wall, wall > 1000)], None, 0.95)
    assert figures.p90 is not None
    assert figures.p90_raw is not None
    assert math.isclose(figures.p90.value, 1e-6)
    assert math.isclose(figures.p90_raw, 50e-6)
    assert math.isclose(figures.contended, 0.2)
    assert figures.n_clean == 400


def test_raw_figures_are_used_where_hardly_a_call_was_undisturbed() -> None:
    wall = np.full((10, 51), 3000)
    wall[:, 1:5] = 1000
    figures = summarise([sample(wall, wall == 3000)], None, 0.95)
    assert math.isclose(figures.p50.value, 3e-6)


def test_a_sitting_that_was_disturbed_throughout_is_left_out_of_both_sides() -> None:
    wall = np.full((8, 101), 1000.0)
    wall[2:4] *= 10
    ours = sample(0.5 * wall, wall > 1000, per_sitting=2)
    theirs = sample(np.full((8, 101), 1000.0), per_sitting=2)
    figures = summarise([ours], [theirs], 0.95)
    for statistic in ("p50", "p90"):
        ratio = figures.ratio(statistic)
        assert (ratio.value, ratio.lo, ratio.hi) == pytest.approx((0.5, 0.5, 0.5))
        latency = figures.figure(statistic)
        assert (latency.lo, latency.hi) == pytest.approx((0.5e-6, 0.5e-6))


# The figures of a model.


def test_one_process_gives_the_mean_of_its_sittings_log_medians() -> None:
    rounds = [[9, 1000, 1000, 8000], [9, 4000, 4000, 100], [9, 16_000, 16_000, 16_000]]
    taken = sample(np.repeat(rounds, [1, 2, 2, 2], axis=1))
    taken = LatencySample(taken.wall_ns, taken.cpu_ns, taken.nivcsw, np.array([0, 0, 1]))
    figures = summarise([taken], None, 0.95)
    assert math.isclose(figures.p50.value, math.sqrt(2e-6 * 16e-6))
    assert (figures.n_rounds, figures.n_sittings, figures.n_processes) == (3, 2, 1)
    assert figures.n_calls == 18
    assert math.isclose(figures.least, 100e-9)


def test_several_processes_count_one_each_however_many_sittings_they_had() -> None:
    short, long = sample(np.full((2, 6), 1000)), sample(np.full((40, 6), 4000))
    figures = summarise([short, long], None, 0.95)
    assert math.isclose(figures.p50.value, 2e-6)
    assert (figures.n_processes, figures.n_sittings) == (2, 42)
    assert figures.p50.lo < 1e-6
    assert figures.p50.hi > 4e-6


def test_a_burst_in_two_sittings_of_twenty_hardly_moves_a_median() -> None:
    calm = noisy(30, rounds=40)
    wall = calm.wall_ns.copy()
    wall[[8, 9, 22, 23]] *= 3
    shaken = LatencySample(wall, wall, calm.nivcsw, calm.sitting)
    quiet, burst = (summarise([one], None, 0.95).p50 for one in (calm, shaken))
    assert abs(burst.value / quiet.value - 1) < 0.005
    assert burst.half_width < 3 * quiet.half_width


def test_no_process_is_left_out() -> None:
    taken = [noisy(40 + i, rounds=4) for i in range(9)] + [noisy(49, rounds=4, scale=3 * NS)]
    assert summarise(taken, None, 0.95).p50.value > 1.05e-3


@pytest.mark.parametrize("rounds", [1, 5])
def test_one_sitting_alone_has_no_interval(rounds: int) -> None:
    alone = sample(np.full((rounds, 65), 1000), per_sitting=rounds)
    assert judged([alone], None, None, 0.95) is None
    with pytest.raises(MeasurementError, match="Too few"):
        summarise([alone], None, 0.95)
    two = summarise([alone, alone], None, 0.95)
    assert (two.n_sittings, two.n_processes) == (2, 2)
    assert judged([alone], None, parse_budget("1ms", "p90"), 0.95) is None


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("name", "calls"), [("p90", 64), ("p99", 662), ("p999", 6636)])
def test_a_quantile_of_too_few_calls_is_unknown(name: str, calls: int, processes: int) -> None:
    def figures(n: int) -> Any:
        return summarise([calls_of(n // processes)] * processes, None, 0.95)

    few, enough = figures(calls - 2 * processes), figures(calls + 2)
    assert getattr(few, name) is None
    assert getattr(few, f"{name}_raw") is None
    assert getattr(enough, name).value > enough.p50.value
    assert getattr(enough, f"{name}_raw") > enough.p50_raw


def test_a_p90_that_is_unknown_decides_nothing() -> None:
    few = [calls_of(62)]
    assert judged(few, few, parse_budget("1ms", "p90"), 0.95) is None
    assert judged(few, [calls_of(70)], parse_budget("50%", "p90"), 0.95) is None
    with pytest.raises(MeasurementError, match="too few calls"):
        summarise(few, None, 0.95).judged(parse_budget("1ms", "p90"))


def test_the_references_ratio_to_itself_is_one() -> None:
    taken = [noisy(2)]
    figures = summarise(taken, taken, 0.95)
    for statistic in ("p50", "p90"):
        ratio = figures.ratio(statistic)
        assert (ratio.value, ratio.lo, ratio.hi) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("processes", [1, 5])
def test_ratios_are_paired_so_that_common_moods_cancel(processes: int) -> None:
    rng = np.random.default_rng(3)
    ours, theirs = [], []
    for _ in range(processes):
        mood = np.exp(rng.normal(0.0, 0.3, (10, 1)))
        theirs.append(sample(NS * mood * rng.lognormal(0.0, 0.005, (10, 51))))
        ours.append(sample(0.4 * NS * mood * rng.lognormal(0.0, 0.005, (10, 51))))
    figures = summarise(ours, theirs, 0.95)
    ratio = figures.ratio("p50")
    assert ratio.lo < 0.4 < ratio.hi
    assert ratio.half_width < 0.01 < figures.p50.half_width


def test_without_a_reference_there_is_no_ratio() -> None:
    figures = summarise([noisy(4)], None, 0.95)
    assert figures.ratio_p50 is None
    assert figures.ratio_p90 is None


@pytest.mark.parametrize("statistic", ["p50", "p90"])
@pytest.mark.parametrize("text", ["50%", "1ms"])
@pytest.mark.parametrize("processes", [1, 3])
def test_what_a_look_judges_is_what_the_summary_reports(
    processes: int, text: str, statistic: str
) -> None:
    ours = [noisy(10 + i, scale=0.5 * NS) for i in range(processes)]
    theirs = [noisy(20 + i) for i in range(processes)]
    budget = parse_budget(text, statistic)
    reported = summarise(ours, theirs, 0.9875).judged(budget)
    assert judged(ours, theirs, budget, 0.9875) == reported


# The bootstrap over sittings.


def test_the_bootstrap_brackets_a_quantile_and_repeats_itself() -> None:
    calls = np.random.default_rng(5).lognormal(0.0, 0.1, (20, 51))
    first = summarise([sample(NS * calls)], None, 0.95).figure("p90")
    assert math.isclose(first.value, 1e-3 * float(np.quantile(calls[:, 1:], 0.9)), rel_tol=1e-5)
    assert first.lo < 1e-3 * math.exp(0.1 * 1.2815515) < first.hi
    assert summarise([sample(NS * calls)], None, 0.95).figure("p90") == first


def test_the_bootstrap_takes_whole_sittings() -> None:
    rng = np.random.default_rng(6)
    luck = rng.normal(0.0, 0.2, 8).repeat(10)[:, None]
    taken = sample(NS * np.exp(luck + rng.normal(0.0, 0.01, (80, 11))), per_sitting=10)
    by_sitting = summarise([taken], None, 0.95).figure("p90")
    over_rounds = summarise([by_round(taken)], None, 0.95).figure("p90")
    assert math.isclose(by_sitting.value, over_rounds.value)
    assert by_sitting.half_width > 1.5 * over_rounds.half_width


def test_the_bootstrap_of_a_ratio_is_paired_by_sitting() -> None:
    rng = np.random.default_rng(7)
    mood = np.exp(rng.normal(0.0, 0.3, (20, 1)))
    wall = np.round(NS * mood * rng.lognormal(0.0, 0.01, (20, 51))) * 2
    figures = summarise([sample(wall / 2)], [sample(wall)], 0.95)
    ratio = figures.ratio("p90")
    assert math.isclose(ratio.value, 0.5)
    assert ratio.half_width < 1e-9 < figures.figure("p90").half_width


# Tails.


def test_a_tail_of_several_small_processes_is_that_of_all_calls() -> None:
    """A mean of quantiles of 14 calls each would lie near the 85th percentile."""
    rng = np.random.default_rng(8)
    found = []
    for _ in range(200):
        taken = [sample(NS * rng.lognormal(0.0, 0.2, (7, 3))) for _ in range(5)]
        found.append(math.log(summarise(taken, None, 0.95).figure("p90").value / 1e-3))
    assert np.mean(found) == pytest.approx(0.2 * 1.2815515, abs=0.02)


@pytest.mark.parametrize(("processes", "sittings"), [(5, 6), (10, 6), (1, 6), (1, 12), (1, 48)])
def test_tail_intervals_cover_the_truth(processes: int, sittings: int) -> None:
    truth, covered, tries = 1e-3 * math.exp(0.2 * 1.2815515), 0, 150
    rng = np.random.default_rng(9)
    for _ in range(tries):
        taken = [sample(NS * rng.lognormal(0.0, 0.2, (sittings, 21))) for _ in range(processes)]
        estimate = summarise(taken, None, 0.95).figure("p90")
        covered += estimate.lo <= truth <= estimate.hi
    assert covered / tries > 0.88


# What the order of time is looked for in.


def logs_of(values: list[NDArray[np.floating[Any]]]) -> list[list[float]]:
    return [one.tolist() for one in values]


def test_time_budgets_are_decided_by_sittings_and_shares_by_their_ratios() -> None:
    ours = sample([[9, 1000, 1000], [9, 4000, 4000], [9, 8000, 8000]])
    theirs = sample([[9, 2000, 2000], [9, 8000, 8000], [9, 16_000, 16_000]])
    alone = [pytest.approx(np.log([1e-6, 4e-6, 8e-6]))]
    share = parse_budget("50%")
    assert logs_of(intervals.decisive_logs([ours], [theirs], None)) == alone
    assert logs_of(intervals.decisive_logs([ours], [theirs], parse_budget("1ms"))) == alone
    assert logs_of(intervals.decisive_logs([ours], None, share)) == alone
    own = [ours]
    assert logs_of(intervals.decisive_logs(own, own, share)) == alone  # the reference itself
    paired = intervals.decisive_logs([ours, theirs], [theirs, ours], share)
    assert logs_of(paired) == [
        pytest.approx(np.log([0.5, 0.5, 0.5])),
        pytest.approx(np.log([2.0, 2.0, 2.0])),
    ]

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.measurement import statistics
from harness.measurement.types import LatencySample

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sample(wall_ns: NDArray[np.int64], switches: NDArray[np.int64] | None = None) -> LatencySample:
    none = np.zeros_like(wall_ns)
    return LatencySample(wall_ns, wall_ns, none if switches is None else switches)


def walk(rng: np.random.Generator, n: int, r: float) -> NDArray[np.float64]:
    values = [rng.normal()]
    for _ in range(n - 1):
        values.append(r * values[-1] + math.sqrt(1 - r * r) * rng.normal())
    return np.array(values)


def test_the_interval_of_two_values_is_the_textbook_one() -> None:
    estimate = statistics.log_t_interval([math.log(1.0), math.log(4.0)], 0.95)
    half = 12.706204736 * math.log(4.0) / 2  # t(0.975, 1) times s / sqrt(2)
    assert math.isclose(estimate.value, 2.0)
    assert math.isclose(estimate.lo, 2.0 * math.exp(-half))
    assert math.isclose(estimate.hi, 2.0 * math.exp(half))


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_interval(values: list[float]) -> None:
    with pytest.raises(MeasurementError, match="2 values"):
        statistics.log_t_interval(values, 0.95)


def test_four_looks_share_the_five_per_cent() -> None:
    assert statistics.per_look_confidence(1) == 0.95
    assert statistics.per_look_confidence(4) == 0.9875


def test_intervals_cover_independent_values_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(600):
        estimate = statistics.log_t_interval(rng.normal(0.0, 0.1, 15), 0.95)
        hits += estimate.lo <= 1.0 <= estimate.hi
    assert 0.92 <= hits / 600 <= 0.98


def test_intervals_of_dependent_rounds_are_widened_so_that_they_still_cover() -> None:
    rng = np.random.default_rng(2)
    hits = naive = 0
    for _ in range(300):
        logs = 0.1 * walk(rng, 80, 0.5)
        estimate = statistics.log_t_interval(logs, 0.95)
        hits += estimate.lo <= 1.0 <= estimate.hi
        naive += abs(logs.mean()) <= 1.99 * logs.std(ddof=1) / math.sqrt(80)
    assert hits / 300 >= 0.9
    assert naive / 300 < 0.85


def test_dependence_is_seen_in_ten_values_or_more_and_not_in_independent_ones() -> None:
    rng = np.random.default_rng(3)
    assert statistics.is_autocorrelated(walk(rng, 80, 0.8))
    assert not statistics.is_autocorrelated(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert sum(statistics.is_autocorrelated(rng.normal(size=40)) for _ in range(400)) < 40


def test_the_effective_size_is_n_only_for_independent_values() -> None:
    rng = np.random.default_rng(4)
    assert statistics.effective_size(np.array([1.0, -1.0] * 20)) == 40.0
    assert 2.0 <= statistics.effective_size(walk(rng, 80, 0.8)) < 40.0
    assert statistics.effective_size(np.full(20, 3.0)) == 20.0


def test_clean_needs_half_of_the_calls_and_two_hundred() -> None:
    def with_clean(rounds: int, calls: int, clean: int) -> LatencySample:
        switches = np.ones((rounds, calls + 1), np.int64)
        switches[:, 1 : 1 + clean] = 0
        return sample(np.full((rounds, calls + 1), 1000), switches)

    assert statistics.clean_available([with_clean(10, 40, 20)])
    assert not statistics.clean_available([with_clean(10, 40, 19)])
    assert not statistics.clean_available([with_clean(10, 20, 19)])
    assert statistics.clean_available([with_clean(10, 5, 5)])  # nothing was disturbed
    assert statistics.clean_available([with_clean(10, 10, 10), with_clean(10, 10, 10)])


def test_preempted_calls_are_masked_and_the_first_of_a_block_is_left_out() -> None:
    taken = sample(np.array([[9000, 1000, 5000, 3000]]), np.array([[0, 0, 1, 0]]))
    np.testing.assert_allclose(statistics.calls_s(taken, clean=False), [[1e-6, 5e-6, 3e-6]])
    np.testing.assert_allclose(statistics.calls_s(taken, clean=True), [[1e-6, np.nan, 3e-6]])


def test_a_round_without_a_clean_call_has_no_median() -> None:
    calls = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan]])
    logs = statistics.round_log_medians(calls)
    assert math.isclose(logs[0], math.log(2.0))
    assert math.isnan(logs[1])


def test_the_bootstrap_brackets_a_quantile_and_repeats_itself() -> None:
    calls = np.random.default_rng(5).lognormal(0.0, 0.1, (20, 50))
    first = statistics.bootstrap_quantile(calls, 0.9, 0.95)
    assert math.isclose(first.value, float(np.quantile(calls, 0.9)))
    assert first.lo < math.exp(0.1 * 1.2815515) < first.hi
    assert statistics.bootstrap_quantile(calls, 0.9, 0.95) == first


def test_the_bootstrap_of_a_ratio_is_paired_by_round() -> None:
    rng = np.random.default_rng(6)
    mood = np.exp(rng.normal(0.0, 0.3, (20, 1)))
    reference = mood * rng.lognormal(0.0, 0.01, (20, 50))
    ratio = statistics.bootstrap_quantile(0.5 * reference, 0.9, 0.95, reference)
    alone = statistics.bootstrap_quantile(0.5 * reference, 0.9, 0.95)
    assert math.isclose(ratio.value, 0.5)
    assert ratio.half_width < 1e-9 < alone.half_width


def test_a_drift_is_a_trend_and_noise_is_none() -> None:
    rng = np.random.default_rng(7)
    steady = rng.normal(0.0, 0.01, 10)
    assert not statistics.has_trend(steady)
    assert statistics.has_trend(steady + 0.02 * np.arange(10))
    assert statistics.has_trend(steady - 0.02 * np.arange(10))


def test_a_drift_too_small_to_matter_is_none() -> None:
    assert not statistics.has_trend(1e-4 * np.arange(10))


def test_too_few_values_are_not_called_steady() -> None:
    assert statistics.has_trend(np.array([0.0, np.nan, np.nan, np.nan, 0.0, 0.0, 0.0]))

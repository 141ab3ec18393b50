from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.measurement import series

if TYPE_CHECKING:
    from numpy.typing import NDArray


def walk(rng: np.random.Generator, n: int, r: float) -> NDArray[np.float64]:
    """Return n values of unit variance, each `r` of the one before."""
    values = [rng.normal()]
    for _ in range(n - 1):
        values.append(r * values[-1] + math.sqrt(1 - r * r) * rng.normal())
    return np.array(values)


def test_the_lag_1_autocorrelation_is_the_textbook_one() -> None:
    assert math.isclose(series.lag1_autocorrelation(np.array([1.0, 2, 3, 4, 5])), 0.4)
    assert series.lag1_autocorrelation(np.array([1.0, -1.0] * 20)) < -0.9
    assert series.lag1_autocorrelation(np.full(20, 3.0)) == 0.0


def test_dependence_is_seen_in_ten_values_or_more_and_not_in_independent_ones() -> None:
    rng = np.random.default_rng(3)
    assert series.is_autocorrelated(walk(rng, 80, 0.8))
    assert not series.is_autocorrelated(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert sum(series.is_autocorrelated(rng.normal(size=40)) for _ in range(400)) < 40


def test_the_effective_size_is_n_only_for_independent_values() -> None:
    rng = np.random.default_rng(4)
    assert series.effective_size(np.array([1.0, -1.0] * 20)) == 40.0
    assert 2.0 <= series.effective_size(walk(rng, 80, 0.8)) < 40.0
    assert series.effective_size(np.full(20, 3.0)) == 20.0
    assert series.effective_size(np.arange(2000.0)) >= 2.0


def test_the_effective_size_is_what_the_means_of_dependent_values_show() -> None:
    rng = np.random.default_rng(5)
    walks = [walk(rng, 100, 0.5) for _ in range(300)]
    shown = 1.0 / float(np.var([one.mean() for one in walks]))  # the variance of a value is 1
    told = float(np.mean([series.effective_size(one) for one in walks]))
    assert 0.7 < told / shown < 1.4


def test_a_trend_is_seen_and_noise_is_none() -> None:
    rng = np.random.default_rng(7)
    steady = rng.normal(0.0, 0.01, 10)
    assert not series.has_trend(steady)
    assert series.has_trend(steady + 0.02 * np.arange(10))
    assert series.has_trend(steady - 0.02 * np.arange(10))


def test_a_trend_too_small_to_matter_is_none() -> None:
    assert not series.has_trend(1e-4 * np.arange(10))
    assert series.has_trend(1e-4 * np.arange(10), material=1e-4)


def test_one_wild_value_is_no_trend() -> None:
    assert not series.has_trend(np.array([0.0] * 9 + [1.0]))


def test_too_few_values_are_not_called_steady() -> None:
    assert series.has_trend(np.array([0.0, np.nan, np.nan, np.nan, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("change", [0.05, -0.05])
@pytest.mark.parametrize("n", [9, 10, 48])
def test_a_last_third_that_differs_from_the_first_is_a_drift(n: int, change: float) -> None:
    steady = np.random.default_rng(8).normal(0.0, 0.003, n)
    later = np.arange(n) >= n - n // 3
    assert not series.drifted(steady)
    assert series.drifted(steady + change * later)
    assert series.drifted(steady + 1.5 * change * np.arange(n) / n)


def test_what_comes_and_goes_in_the_middle_is_no_drift() -> None:
    bump = 0.2 * (np.abs(np.arange(30) - 14.5) < 4)
    assert not series.drifted(bump + np.random.default_rng(9).normal(0.0, 0.003, 30))


def test_a_drift_is_more_than_three_per_cent_and_more_than_chance() -> None:
    ends = np.repeat([0.0, 0.5, 1.0], 5)
    assert not series.drifted(0.02 * ends)
    assert series.drifted(0.04 * ends)
    rng = np.random.default_rng(10)
    assert sum(series.drifted(rng.normal(0.0, 0.1, 30)) for _ in range(300)) < 15


def test_a_drift_outlives_one_wild_value() -> None:
    ends = 0.08 * np.repeat([0.0, 0.5, 1.0], 10) + np.random.default_rng(11).normal(0, 0.003, 30)
    ends[3] -= 0.03
    assert series.drifted(ends)


def test_fewer_than_nine_values_say_nothing_of_a_drift() -> None:
    assert not series.drifted(np.arange(8.0))
    assert not series.drifted(np.array([]))

"""Intervals for latencies: units are rounds or processes, never single calls.

Calls are not independent (lag-1 autocorrelation near 0.5), so an interval over calls covers far
less than it says; one over rounds or over fresh processes holds.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from harness.errors import MeasurementError
from harness.measurement.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.measurement.types import LatencySample

    Values = NDArray[np.floating[Any]]

P99_CALLS = 662
"""Calls that a 99th percentile needs: binomial bound at 99 % confidence (MLPerf LoadGen)."""
CLEAN_SHARE, CLEAN_CALLS = 0.5, 200
"""A clean figure needs this share of the calls, and this many."""


def per_look_confidence(looks: int) -> float:
    """Return the confidence of each of `looks` looks that keeps 95 % overall (Bonferroni)."""
    return 1 - 0.05 / looks


def log_t_interval(logs: Sequence[float] | Values, confidence: float) -> Estimate:
    """Return exp(mean) of log values with a t interval over them.

    Args:
        logs: Natural logarithms, one per round or process; at least 2, finite.
        confidence: Of the two-sided interval, such as 0.9875.

    Raises:
        MeasurementError: If fewer than 2 values are given.
    """
    values = np.asarray(logs, dtype=np.float64)
    if values.size < 2:
        raise MeasurementError(f"An interval needs 2 values or more. Received: {values.size}.")
    mean = float(values.mean())
    n_eff = effective_size(values)
    spread = float(values.std(ddof=1)) / math.sqrt(n_eff)
    half = float(stats.t.ppf((1 + confidence) / 2, max(1.0, n_eff - 1))) * spread
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def lag1_autocorrelation(values: Values) -> float:
    """Return the lag-1 autocorrelation of `values`; 0.0 where it is undefined."""
    centred = values - values.mean()
    power = float(centred @ centred)
    return float(centred[:-1] @ centred[1:]) / power if power > 0 else 0.0


def is_autocorrelated(values: Values) -> bool:
    """Whether 10 or more values are positively autocorrelated beyond chance (one-sided 97.5 %)."""
    return values.size >= 10 and lag1_autocorrelation(values) > 1.96 / math.sqrt(values.size)


def effective_size(values: Values) -> float:
    """Return how many independent values `values` are worth: n (1 - r) / (1 + r) for AR(1).

    References:
        Bayley & Hammersley (1946), "The effective number of independent observations".
    """
    if not is_autocorrelated(values):
        return float(values.size)
    r = min(lag1_autocorrelation(values), 0.95)
    return max(2.0, values.size * (1 - r) / (1 + r))


def calls_s(sample: LatencySample, clean: bool) -> Values:
    """Return call times in seconds, `[rounds, calls]`; preempted ones NaN where `clean`."""
    raw = sample.raw_s()
    return np.where(sample.preempted(), np.nan, raw) if clean else raw


def clean_available(samples: Sequence[LatencySample]) -> bool:
    """Whether enough calls were not preempted to speak of clean figures; all of them always are."""
    kept = sum(int((~sample.preempted()).sum()) for sample in samples)
    total = sum(sample.preempted().size for sample in samples)
    everywhere = all(bool((~sample.preempted()).any()) for sample in samples)
    enough = kept >= CLEAN_CALLS and kept >= CLEAN_SHARE * total
    return kept == total or (everywhere and enough)


def round_log_medians(calls: Values) -> Values:
    """Return the log of each round's median, `[rounds]`; NaN for a round without a clean call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN rounds are meant to be NaN
        return np.asarray(np.log(np.nanmedian(calls, axis=1)))


def log_quantile(calls: Values, q: float) -> float:
    """Return the log of the pooled quantile `q` (0 to 1) of all calls, NaNs left out."""
    return float(np.log(np.nanquantile(calls, q)))


def bootstrap_quantile(
    calls: Values, q: float, confidence: float, reference: Values | None = None
) -> Estimate:
    """Return a pooled quantile, or its ratio to a reference's, by bootstrap over rounds.

    Args:
        calls: Seconds, `[rounds, calls]`, NaN where masked.
        q: Quantile, 0 to 1.
        confidence: Of the two-sided percentile interval.
        reference: The reference's calls in the same rounds, resampled together.
    """

    def statistic(rows: NDArray[np.int64]) -> float:
        value = log_quantile(calls[rows], q)
        return value if reference is None else value - log_quantile(reference[rows], q)

    rows = np.arange(calls.shape[0])
    result = stats.bootstrap(
        (rows,), statistic, vectorized=False, n_resamples=2000, method="percentile",
        confidence_level=confidence, rng=np.random.default_rng(0),
    )  # fmt: skip
    low, high = result.confidence_interval
    return Estimate(math.exp(statistic(rows)), math.exp(float(low)), math.exp(float(high)))


def has_trend(logs: Values, material: float = 0.01) -> bool:
    """Whether values drift over time: the Theil-Sen slope's 95 % interval excludes 0.

    Args:
        logs: Log latencies in order of time, `[rounds]`; NaNs are left out.
        material: A drift over the whole window smaller than this fraction is none.
    """
    values = logs[np.isfinite(logs)]
    if values.size < 5:
        return True
    slope, _, low, high = stats.theilslopes(values)
    return bool((low > 0 or high < 0) and abs(slope) * values.size > material)

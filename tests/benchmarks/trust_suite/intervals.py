"""Intervals, each formed from what a tool reports the way its user would form it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True)
class Ratio:
    """How much slower the second model is than the first.

    Attributes:
        value: Time of the second over time of the first; in the `loadgen` benchmark, which times
            one model at a time, its p50 in seconds.
        lo, hi: Its interval; None where the tool gives nothing to form one from.
    """

    value: float
    lo: float | None = None
    hi: float | None = None


def ratio_of_means(a: Sequence[float], b: Sequence[float], confidence: float) -> Ratio:
    """Return mean(b) / mean(a) with Welch's t interval, on the log scale (delta method).

    A mean's log has the standard error s / (mean sqrt(n)); degrees of freedom after
    Welch and Satterthwaite. Like the tools' own tests it takes values for independent.
    """
    variances = [stats.sem(x) ** 2 / np.mean(x) ** 2 for x in (a, b)]
    total = sum(variances)
    log = math.log(np.mean(b) / np.mean(a))
    freedom = total**2 / sum(v**2 / (len(x) - 1) for v, x in zip(variances, (a, b), strict=True))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(total)
    return Ratio(math.exp(log), math.exp(log - half), math.exp(log + half))


def ratio_of_medians(
    p50s: tuple[float, float], calls: tuple[Sequence[float], Sequence[float]], confidence: float
) -> Ratio:
    """Return the ratio of two reported medians with an interval from the calls' order statistics.

    Each median's distribution-free interval, between two order statistics of its calls, is turned
    into a standard error of its log (width over twice the normal quantile); the two are combined
    as independent.
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))
    errors = []
    for one in calls:
        bounds = median_interval(one, confidence)
        if bounds is None:
            raise ValueError(f"{len(one)} calls are too few for an interval of their median")
        errors.append(math.log(bounds[1] / bounds[0]) / (2 * z))
    log, half = math.log(p50s[1] / p50s[0]), z * math.hypot(*errors)
    return Ratio(math.exp(log), math.exp(log - half), math.exp(log + half))


def median_interval(values: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """Return the two order statistics that enclose the median with at least `confidence`.

    None where there are too few values: six for 95 %.
    """
    ordered, n = np.sort(values), len(values)
    # The k smallest value exceeds the median with the probability of fewer than k heads in n.
    k = int(stats.binom.ppf((1 - confidence) / 2, n, 0.5))
    return (float(ordered[k - 1]), float(ordered[n - k])) if k >= 1 else None


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """Return the exact two-sided 95 % bounds of a share."""
    bounds = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    return float(bounds.low), float(bounds.high)


def deviation_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the standard deviation of normal values with its 95 % interval (chi-square)."""
    freedom, deviation = len(values) - 1, float(np.std(values, ddof=1))
    low, high = (float(stats.chi2.ppf(q, freedom)) for q in (0.975, 0.025))
    return deviation, deviation * math.sqrt(freedom / low), deviation * math.sqrt(freedom / high)

"""From timed calls to figures with their intervals: the only place where that is done.

Calls are not independent (lag-1 autocorrelation near 0.5), so an interval over calls covers far
less than it says. And a session, once made, is a little faster or slower than its twin for as long
as it lives, by where it lies in memory: an interval over the rounds of one pair of sessions calls
identical models different. So the unit of an interval is the sitting, which begins with fresh
sessions, or the process where there are several; never the call.

A call's way: masked if preempted (`_calls`), part of its round's median, of its sitting's mean
(`_sitting_logs`), and of the interval over sittings or processes (`log_interval`). Tails are those
of all calls together (`_tail`).
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from harness.errors import MeasurementError
from harness.measurement import series
from harness.measurement.types import Estimate, LatencySample, LatencyStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.budget import Budget

    Values = NDArray[np.floating[Any]]
    _Sittings = list[Values]
    """One process: figures per call, `[rounds, calls]` per sitting, NaN where masked."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
CLEAN_SHARE, CLEAN_CALLS = 0.5, 200
"""A clean figure needs this share of the calls, and this many."""
_RESAMPLES = 400
_TRIM, _TRIM_FROM = 0.2, 10
"""Share of the sittings left out at either end, where there are at least so many."""


@cache
def least_calls(quantile: float) -> int:
    """Return how many calls a quantile needs: 64 for p90, 662 for p99, 6636 for p99.9.

    The smallest n of which at most one call lies beyond the true quantile with a probability of
    no more than 1 %: binomial bound at 99 % confidence.

    References:
        MLPerf LoadGen, early stopping.
    """
    n = 2
    while stats.binom.cdf(1, n, 1 - quantile) > 0.01:
        n += 1
    return n


def per_look_confidence(confidence: float, looks: int) -> float:
    """Return each look's confidence so that all together keep `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / looks


def log_interval(logs: Sequence[float] | Values, confidence: float, trim: bool) -> Estimate:
    """Return exp(mean) of log values with an interval over them.

    Args:
        logs: Natural logarithms, one per sitting or process; at least 2, finite.
        confidence: Of the two-sided interval, such as 0.9875.
        trim: Whether to use the 20 % trimmed mean, which a neighbour's burst doesn't move, where
            there are 10 values or more; else the mean with Student's t.

    Raises:
        MeasurementError: If fewer than 2 values are given.

    References:
        Yuen (1974), "The two-sample trimmed t for unequal population variances": with h of n
        values kept, the trimmed mean's squared error is (n - 1) s_w^2 / (h (h - 1)), s_w being the
        winsorised values' deviation, with h - 1 degrees of freedom.

    Where values depend on each other the squared error grows (see `series.effective_size`), but the
    degrees of freedom stay: how much they depend is itself only guessed from these few values, and
    taken into Student's t as well, a bad guess made one interval in thirty twice as wide as its
    neighbours, and some of them ten times.
    """
    values = np.asarray(logs, dtype=np.float64)
    n = values.size
    if n < 2:
        raise MeasurementError(f"An interval needs 2 values or more. Received: {n}.")
    gone = int(_TRIM * n) if trim and n >= _TRIM_FROM else 0
    ordered = np.sort(values)
    mean = float(ordered[gone : n - gone].mean())
    winsorised = np.clip(values, ordered[gone], ordered[n - 1 - gone])
    worth = series.effective_size(winsorised) / n  # below 1 where values depend on each other
    kept = n - 2 * gone
    spread = float(winsorised.std(ddof=1)) * math.sqrt((n - 1) / (kept * (kept - 1) * worth))
    half = float(stats.t.ppf((1 + confidence) / 2, kept - 1)) * spread
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def judged(
    samples: Sequence[LatencySample],
    reference: Sequence[LatencySample] | None,
    budget: Budget | None,
    confidence: float,
) -> Estimate | None:
    """Return only the estimate that decides: cheap enough for every look.

    Args:
        samples: One per process.
        reference: The reference's, as in `summarise`.
        budget: What is asked; None for the p50.
        confidence: Of the interval.
    """
    name = "p50" if budget is None else budget.statistic
    if budget is not None and budget.kind == "share":
        return _ratio(samples, reference, name, confidence)
    return _estimate(_taken(samples), name, confidence)


def summarise(
    samples: Sequence[LatencySample], reference: Sequence[LatencySample] | None, confidence: float
) -> LatencyStats:
    """Return the figures of one model.

    Args:
        samples: Its calls, one per process.
        reference: The reference's in the same processes; `samples` itself for the reference,
            whose ratio is 1 by definition; None where there is none.
        confidence: Of every interval.
    """
    taken = _taken(samples)
    raw = np.concatenate([per_call(sample).ravel() for sample in samples])
    n_clean = sum(int((~preempted(sample)).sum()) for sample in samples)
    p50 = _estimate(taken, "p50", confidence)
    if p50 is None:
        raise MeasurementError("Too few calls were timed for an interval of the median.")
    return LatencyStats(
        p50=p50,
        p90=_estimate(taken, "p90", confidence),
        p99=_estimate(taken, "p99", confidence),
        p999=_estimate(taken, "p999", confidence),
        p50_raw=float(np.quantile(raw, 0.5)),
        p90_raw=_raw_quantile(raw, "p90"),
        p99_raw=_raw_quantile(raw, "p99"),
        p999_raw=_raw_quantile(raw, "p999"),
        least=float(raw.min()),
        ratio_p50=_ratio(samples, reference, "p50", confidence),
        ratio_p90=_ratio(samples, reference, "p90", confidence),
        n_calls=raw.size,
        n_clean=n_clean,
        n_rounds=sum(sample.wall_ns.shape[0] for sample in samples),
        n_sittings=sum(len(sample.sittings()) for sample in samples),
        n_processes=len(samples),
        contended=1 - n_clean / raw.size,
        quantity=samples[0].quantity,
    )


def decisive_logs(
    samples: Sequence[LatencySample],
    reference: Sequence[LatencySample] | None,
    budget: Budget | None,
) -> list[Values]:
    """Return, per process, the sittings' log medians, or log ratios where those decide."""
    paired = budget is not None and budget.kind == "share"
    if not paired or reference is None or reference is samples:
        return [_sitting_logs(one, None) for one in _taken(samples)]
    ours, theirs = _paired(samples, reference)
    return [_sitting_logs(own, base) for own, base in zip(ours, theirs, strict=True)]


def round_log_medians(calls: Values) -> Values:
    """Return the log of each round's median, `[rounds]`; NaN for a round without a clean call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN rounds are meant to be NaN
        return np.asarray(np.log(np.nanmedian(calls, axis=1)))


def per_call(sample: LatencySample) -> NDArray[np.float64]:
    """Return each call's seconds, or instructions, float64 `[rounds, calls - 1]`.

    The first call of each block pays for switching models (up to 20 %) and is left out.
    """
    return np.asarray(sample.wall_ns[:, 1:] * sample.quantity.per_raw, dtype=np.float64)


def preempted(sample: LatencySample) -> NDArray[np.bool_]:
    """Return which of the calls in `per_call` another process interrupted."""
    return np.asarray(sample.nivcsw[:, 1:] > 0)


def pooled_quantile(
    processes: Sequence[Sequence[Values]], quantile: float, confidence: float
) -> Estimate:
    """Return a quantile of all calls together, with an interval over processes.

    The quantile is that of the pooled calls: a mean of small processes' quantiles would lie below
    it. How far processes' own quantiles scatter tells how well it is known.

    Args:
        processes: Per process its calls, in parts; none masked.
        quantile: 0 to 1.
        confidence: Of the two-sided interval.
    """
    own = [_log_quantile(parts, quantile) for parts in processes]
    pooled = _log_quantile([part for parts in processes for part in parts], quantile)
    return _student(pooled, own, confidence)


def clean_available(samples: Sequence[LatencySample]) -> bool:
    """Whether enough calls were not preempted to speak of clean figures; all of them always are."""
    kept = sum(int((~preempted(sample)).sum()) for sample in samples)
    total = sum(preempted(sample).size for sample in samples)
    everywhere = all(bool((~preempted(sample)).any()) for sample in samples)
    enough = kept >= CLEAN_CALLS and kept >= CLEAN_SHARE * total
    return kept == total or (everywhere and enough)


def _calls(sample: LatencySample, clean: bool) -> _Sittings:
    """Return calls by sitting; preempted ones NaN where `clean`."""
    calls = per_call(sample)
    masked = np.where(preempted(sample), np.nan, calls) if clean else calls
    return [masked[rounds] for rounds in sample.sittings()]


def _taken(samples: Sequence[LatencySample]) -> list[_Sittings]:
    """Return calls by process, preempted ones masked where enough others are left."""
    clean = clean_available(samples)
    return [_calls(sample, clean) for sample in samples]


def _paired(
    samples: Sequence[LatencySample], reference: Sequence[LatencySample]
) -> tuple[list[_Sittings], list[_Sittings]]:
    """Return calls of both, masked in both or in neither."""
    clean = clean_available(samples) and clean_available(reference)
    return [_calls(one, clean) for one in samples], [_calls(one, clean) for one in reference]


def _sitting_logs(own: _Sittings, base: _Sittings | None) -> Values:
    """Return per sitting the mean over rounds of log medians, or of their log ratios."""
    means = []
    for i, calls in enumerate(own):
        logs = round_log_medians(calls)
        if base is not None:
            logs = logs - round_log_medians(base[i])
        logs = logs[np.isfinite(logs)]
        if logs.size:
            means.append(float(logs.mean()))
    return np.array(means)


def _ratio(
    samples: Sequence[LatencySample],
    reference: Sequence[LatencySample] | None,
    name: str,
    confidence: float,
) -> Estimate | None:
    if reference is None:
        return None
    if reference is samples:
        return Estimate(1.0, 1.0, 1.0)
    ours, theirs = _paired(samples, reference)
    return _estimate(ours, name, confidence, theirs)


def _estimate(
    taken: Sequence[_Sittings],
    name: str,
    confidence: float,
    base: Sequence[_Sittings] | None = None,
) -> Estimate | None:
    """Return one statistic, or its ratio to `base`; None below its least number of calls."""
    sides = [taken] if base is None else [taken, base]
    for side in sides:
        per_process = [sum(int(np.isfinite(calls).sum()) for calls in one) for one in side]
        if min(per_process) == 0 or sum(per_process) < least_calls(QUANTILES[name]):
            return None
    bases = base if base is not None else [None] * len(taken)
    if name != "p50":
        return _tail(taken, base, QUANTILES[name], confidence)
    sittings = [_sitting_logs(own, b) for own, b in zip(taken, bases, strict=True)]
    if len(taken) == 1:
        return log_interval(sittings[0], confidence, trim=True) if sittings[0].size >= 2 else None
    if min(logs.size for logs in sittings) == 0:
        return None
    return log_interval([float(logs.mean()) for logs in sittings], confidence, trim=False)


def _tail(
    taken: Sequence[_Sittings], base: Sequence[_Sittings] | None, quantile: float, confidence: float
) -> Estimate | None:
    """Return a quantile of all calls, or its ratio to the reference's.

    The interval is over processes as in `pooled_quantile`; in one process it is a bootstrap over
    its sittings.
    """
    sides = [[_unmasked(one) for one in side] for side in (taken, base) if side is not None]
    pooled = [_log_quantile([part for parts in side for part in parts], quantile) for side in sides]
    centre = pooled[0] - sum(pooled[1:])
    if len(taken) == 1:
        return _bootstrap(centre, [side[0] for side in sides], quantile, confidence)
    own = [[_log_quantile(parts, quantile) for parts in side] for side in sides]
    logs = own[0] if base is None else [a - b for a, b in zip(*own, strict=True)]
    return _student(centre, logs, confidence)


def _student(centre: float, logs: Sequence[float], confidence: float) -> Estimate:
    """Return exp(centre) with Student's interval from values that scatter about it."""
    n = len(logs)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * float(np.std(logs, ddof=1))
    half /= math.sqrt(n)
    return Estimate(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def _log_quantile(sittings: Sequence[Values], quantile: float) -> float:
    """Return the log of a quantile of all calls."""
    return float(np.log(np.quantile(np.concatenate(sittings), quantile)))


def _unmasked(sittings: _Sittings) -> list[Values]:
    """Return the calls of each sitting that aren't masked, in one row."""
    return [calls[np.isfinite(calls)] for calls in sittings]


def _bootstrap(
    centre: float, sides: Sequence[Sequence[Values]], quantile: float, confidence: float
) -> Estimate | None:
    """Return exp(centre) with an interval by bootstrap over sittings.

    Few sittings make percentiles of the bootstrap too narrow: its deviation is used with Student's
    t instead, widened by sqrt(n / (n - 1)), as it would be for a mean.

    Args:
        centre: Log of the quantile of all calls, or of its ratio.
        sides: Calls per sitting, of the model, and of the reference for a ratio.
        quantile: 0 to 1.
        confidence: Of the two-sided interval.
    """
    able = [i for i in range(len(sides[0])) if all(side[i].size for side in sides)]
    n = len(able)
    if n < 2:
        return None

    def statistic(chosen: NDArray[np.int64]) -> float:
        logs = [_log_quantile([side[i] for i in chosen], quantile) for side in sides]
        return logs[0] - sum(logs[1:])

    rng = np.random.default_rng(0)
    drawn = [statistic(rng.choice(able, n)) for _ in range(_RESAMPLES)]
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * float(np.std(drawn, ddof=1))
    half *= math.sqrt(n / (n - 1))
    return Estimate(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def _raw_quantile(raw: Values, name: str) -> float | None:
    enough = raw.size >= least_calls(QUANTILES[name])
    return float(np.quantile(raw, QUANTILES[name])) if enough else None

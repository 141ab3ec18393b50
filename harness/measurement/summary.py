"""From raw samples to figures: one process gives intervals over rounds, several over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import MeasurementError
from harness.measurement import statistics
from harness.measurement.types import Estimate, LatencySample, LatencyStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.budget import Budget
    from harness.measurement.types import TimedSession

    Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """One model in one process.

    Attributes:
        session: Start-up times.
        sample: Its calls.
    """

    session: TimedSession
    sample: LatencySample


def judged(
    runs: Sequence[Run], reference: Sequence[Run] | None, budget: Budget | None, confidence: float
) -> Estimate | None:
    """Return only the estimate that a budget bounds: cheap enough for every look.

    Args:
        runs: One per process.
        reference: The dense model's runs, as in `summarise`.
        budget: What is asked; None for the p50.
        confidence: Of the interval.
    """
    name = "p50" if budget is None else budget.statistic
    if budget is None or budget.kind == "time":
        return _estimate(_seconds(runs), name, confidence)
    return _ratio(runs, reference, name, confidence)


_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def summarise(
    runs: Sequence[Run], reference: Sequence[Run] | None, confidence: float
) -> LatencyStats:
    """Return the figures of one model.

    Args:
        runs: One per process.
        reference: The dense model's runs in the same processes; `runs` itself for the dense
            model, whose ratio is 1 by definition; None where there is no reference.
        confidence: Of every interval.
    """
    samples = [run.sample for run in runs]
    calls = _seconds(runs)
    raw = np.concatenate([sample.raw_s().ravel() for sample in samples])
    n_clean = sum(int((~sample.preempted()).sum()) for sample in samples)
    p50 = _estimate(calls, "p50", confidence)
    if p50 is None:
        raise MeasurementError("Too few rounds were timed for an interval of the median.")
    return LatencyStats(
        p50=p50,
        p90=_estimate(calls, "p90", confidence),
        p99=_estimate(calls, "p99", confidence),
        p50_raw_s=float(np.quantile(raw, 0.5)),
        p90_raw_s=float(np.quantile(raw, 0.9)),
        p99_raw_s=float(np.quantile(raw, 0.99)) if raw.size >= statistics.P99_CALLS else None,
        min_s=float(raw.min()),
        ratio_p50=_ratio(runs, reference, "p50", confidence),
        ratio_p90=_ratio(runs, reference, "p90", confidence),
        n_calls=raw.size,
        n_clean=n_clean,
        n_rounds=sum(sample.wall_ns.shape[0] for sample in samples),
        n_processes=len(samples),
        contended=1 - n_clean / raw.size,
        session_create_s=float(np.median([run.session.session_create_s for run in runs])),
        first_inference_s=float(np.median([run.session.first_inference_s for run in runs])),
    )


def _seconds(runs: Sequence[Run]) -> list[Values]:
    """Return call times, preempted ones masked where enough others are left."""
    samples = [run.sample for run in runs]
    clean = statistics.clean_available(samples)
    return [statistics.calls_s(sample, clean) for sample in samples]


def _paired_seconds(
    runs: Sequence[Run], reference: Sequence[Run]
) -> tuple[list[Values], list[Values]]:
    """Return call times of both, masked in both or in neither."""
    ours, theirs = [run.sample for run in runs], [run.sample for run in reference]
    clean = statistics.clean_available(ours) and statistics.clean_available(theirs)
    return (
        [statistics.calls_s(sample, clean) for sample in ours],
        [statistics.calls_s(sample, clean) for sample in theirs],
    )


def _ratio(
    runs: Sequence[Run], reference: Sequence[Run] | None, name: str, confidence: float
) -> Estimate | None:
    if reference is None:
        return None
    if reference is runs:
        return Estimate(1.0, 1.0, 1.0)
    ours, theirs = _paired_seconds(runs, reference)
    return _estimate(ours, name, confidence, theirs)


def _estimate(
    calls: Sequence[Values], name: str, confidence: float, base: Sequence[Values] | None = None
) -> Estimate | None:
    """Return one statistic, or its ratio to `base`; None below its minimum of calls."""
    counted = min(int(np.isfinite(one).sum()) for one in (*calls, *(base or ())))
    total = sum(int(np.isfinite(one).sum()) for one in calls)
    if counted == 0 or (name == "p99" and total < statistics.P99_CALLS):
        return None
    if len(calls) > 1:
        bases = base if base is not None else [None] * len(calls)
        units = [_process_log(own, b, name) for own, b in zip(calls, bases, strict=True)]
        return statistics.log_t_interval(units, confidence) if np.isfinite(units).all() else None
    if name != "p50":
        ref = base[0] if base is not None else None
        return statistics.bootstrap_quantile(calls[0], _QUANTILES[name], confidence, ref)
    logs = round_logs(calls[0], base[0] if base is not None else None)
    return statistics.log_t_interval(logs, confidence) if logs.size >= 2 else None


def round_logs(calls: Values, base: Values | None) -> Values:
    """Return rounds' log medians, or log ratios of medians; rounds that lack one are left out."""
    logs = statistics.round_log_medians(calls)
    if base is not None:
        logs = logs - statistics.round_log_medians(base)
    return logs[np.isfinite(logs)]


def _process_log(calls: Values, base: Values | None, name: str) -> float:
    """Return one process's log statistic or log ratio: p50 is the mean over rounds."""
    if name == "p50":
        logs = round_logs(calls, base)
        return float(logs.mean()) if logs.size else float("nan")
    value = statistics.log_quantile(calls, _QUANTILES[name])
    return value if base is None else value - statistics.log_quantile(base, _QUANTILES[name])


def judged_series(
    runs: Sequence[Run], reference: Sequence[Run] | None, budget: Budget | None
) -> Values:
    """Return the values that a p50's interval is made from: rounds, or processes where several."""
    paired = budget is not None and budget.kind == "share" and reference is not runs
    theirs: list[Values] | None = None
    ours = _seconds(runs)
    if paired and reference is not None:
        ours, theirs = _paired_seconds(runs, reference)
    if len(runs) == 1:
        return round_logs(ours[0], theirs[0] if theirs is not None else None)
    bases = theirs if theirs is not None else [None] * len(runs)
    return np.array([_process_log(o, b, "p50") for o, b in zip(ours, bases, strict=True)])

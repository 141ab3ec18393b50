"""From raw samples to figures: one process gives intervals over rounds, several over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
    assert p50 is not None  # the median needs no minimum number of calls
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


def _ratio(
    runs: Sequence[Run], reference: Sequence[Run] | None, name: str, confidence: float
) -> Estimate | None:
    if reference is None:
        return None
    if reference is runs:
        return Estimate(1.0, 1.0, 1.0)
    ours, theirs = [run.sample for run in runs], [run.sample for run in reference]
    clean = statistics.clean_available(ours) and statistics.clean_available(theirs)
    return _estimate(
        [statistics.calls_s(sample, clean) for sample in ours], name, confidence,
        [statistics.calls_s(sample, clean) for sample in theirs],
    )  # fmt: skip


def _estimate(
    calls: Sequence[Values], name: str, confidence: float, base: Sequence[Values] | None = None
) -> Estimate | None:
    """Return one statistic, or its ratio to `base`; None below its minimum of calls."""
    counted = min(int(np.isfinite(one).sum()) for one in (*calls, *(base or ())))
    total = sum(int(np.isfinite(one).sum()) for one in calls)
    if counted == 0 or (name == "p99" and total < statistics.P99_CALLS):
        return None
    if len(calls) > 1:
        units = [_process_log(one, name) for one in calls]
        if base is not None:
            units = [u - _process_log(b, name) for u, b in zip(units, base, strict=True)]
        return statistics.log_t_interval(units, confidence)
    if name != "p50":
        ref = base[0] if base is not None else None
        return statistics.bootstrap_quantile(calls[0], _QUANTILES[name], confidence, ref)
    logs = statistics.round_log_medians(calls[0])
    if base is not None:
        logs = logs - statistics.round_log_medians(base[0])
    logs = logs[np.isfinite(logs)]
    return statistics.log_t_interval(logs, confidence) if logs.size >= 2 else None


def _process_log(calls: Values, name: str) -> float:
    """Return one process's log statistic: p50 is the mean over rounds of log medians."""
    if name == "p50":
        return float(np.nanmean(statistics.round_log_medians(calls)))
    return statistics.log_quantile(calls, _QUANTILES[name])

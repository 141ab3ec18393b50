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
    clean = statistics.clean_available(samples)
    calls = [statistics.calls_s(sample, clean) for sample in samples]
    raw = np.concatenate([sample.raw_s().ravel() for sample in samples])
    ratios: dict[str, Estimate | None] = {"p50": None, "p90": None}
    if reference is runs:
        ratios = dict.fromkeys(ratios, Estimate(1.0, 1.0, 1.0))
    elif reference is not None:
        theirs = [run.sample for run in reference]
        both = clean and statistics.clean_available(theirs)
        ours = [statistics.calls_s(sample, both) for sample in samples]
        base = [statistics.calls_s(sample, both) for sample in theirs]
        ratios = {name: _estimate(ours, name, confidence, base) for name in ratios}
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
        ratio_p50=ratios["p50"],
        ratio_p90=ratios["p90"],
        n_calls=raw.size,
        n_clean=n_clean,
        n_rounds=sum(sample.wall_ns.shape[0] for sample in samples),
        n_processes=len(samples),
        contended=1 - n_clean / raw.size,
        session_create_s=float(np.median([run.session.session_create_s for run in runs])),
        first_inference_s=float(np.median([run.session.first_inference_s for run in runs])),
    )


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

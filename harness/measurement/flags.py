"""Flags say what a measurement suffered; they travel with it to the leaderboard row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.measurement import intervals, series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from harness.measurement.types import Estimate, LatencySample

BLOCKING: Mapping[str, str] = {
    "no_steady_state": "warm-up ended at its time limit with the latency still drifting",
    "precision_not_reached": "the final's interval is wider than +-2 %",
    "reference_drift": "the reference model is off its own history",
    "throttled": "the CPU was held back by heat or by its power supply during the measurement",
    "frequency_changed": "the governor or frequency limit changed during the measurement",
    "power_mode_changed": "the power mode, or which cores are on, changed during the measurement",
    "boards_disagree": "the boards of this target differ by over 2 % in what decides, or over 5 %",
    "overloaded": "requests arrived faster than they could be served: the queue grew",
    "emulated": "instructions counted on an emulated CPU: not a latency",
    "parity_failed": "the exported file does not compute what the network computes",
}
"""Kept, but not ranked."""
NOTES: Mapping[str, str] = {
    "contended": "more than 5 % of the calls were preempted",
    "steal": "the hypervisor took more than 1 % of the CPU time",
    "pressure": "some process waited for a CPU for more than 5 % of the time",
    "drift": "the last third of a process differs from the first by more than 3 %",
    "sensor_absent": "no sensor of frequency or of throttling: it can't be seen",
    "throttled_before": "held back once since the board was started: a short time now isn't seen",
    "frequency_capped": "the frequency limit is below what the CPU can do",
    "cores_offline": "some cores of the machine are off",
    "clocks_unlocked": "GPU clocks are not locked",
    "autocorrelated": "sittings depend on each other; the interval is widened for it",
    "clean_unavailable": "too few undisturbed calls: raw figures are used",
    "runner_up": "a better candidate missed the budget in its final measurement",
}
"""Ranked, and shown."""


FINAL_HALF_WIDTH = 0.02
"""Relative half-width over which a final's interval is `precision_not_reached`."""


BOARDS_APART = 0.05
"""Relative difference of boards of one kind in a latency itself, where a ratio decides."""


def is_blocked(flags: Iterable[str]) -> bool:
    """Whether any of `flags` keeps a row from being ranked."""
    return any(flag in BLOCKING for flag in flags)


def faults(flags: Iterable[str]) -> list[str]:
    """Return those of `flags` that make a measurement one not to be trusted.

    They are the blocking ones but `emulated`: an instruction count is never ranked with a time, but
    it is what it says.
    """
    return [flag for flag in flags if flag in BLOCKING and flag != "emulated"]


def of_samples(samples: Sequence[LatencySample]) -> set[str]:
    """Return the flags that the calls themselves show."""
    flags = set()
    interrupted = np.concatenate([intervals.preempted(one).ravel() for one in samples])
    if interrupted.mean() > 0.05:
        flags.add("contended")
    if not intervals.clean_available(samples):
        flags.add("clean_unavailable")
    return flags


def of_series(processes: Sequence[NDArray[np.floating[Any]]]) -> set[str]:
    """Return the flags that the order of time shows.

    Args:
        processes: Per process the sittings' log values, in order of time.
    """
    flags = {"drift"} if any(series.drifted(logs) for logs in processes) else set()
    if len(processes) == 1 and series.is_autocorrelated(processes[0]):
        flags.add("autocorrelated")
    return flags


def of_places(
    decisive: Sequence[NDArray[np.floating[Any]]],
    own: Sequence[NDArray[np.floating[Any]]],
    places: Sequence[str],
) -> set[str]:
    """Return the flag of machines that are taken for one and differ.

    Args:
        decisive: Per process the sittings' log values of what decides, a ratio perhaps.
        own: The same of the figures themselves.
        places: The machine of each process.
    """
    apart = _apart(decisive, places) > np.log1p(FINAL_HALF_WIDTH)
    return {"boards_disagree"} if apart or _apart(own, places) > np.log1p(BOARDS_APART) else set()


def _apart(processes: Sequence[NDArray[np.floating[Any]]], places: Sequence[str]) -> float:
    """Return how far the machines' means are apart."""
    means = [
        np.mean([logs.mean() for logs, at in zip(processes, places, strict=True) if at == place])
        for place in set(places)
    ]
    return float(max(means) - min(means))


def of_states(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return the flags that the machine's state before and after shows.

    Args:
        before: As `TimingWorker.state` gives it; what is missing or None is unknown, never fine.
        after: Likewise.
    """
    return {
        name
        for name, found in (
            ("sensor_absent", _is_blind(before)),
            ("throttled_before", before.get("throttled_since_start")),
            ("frequency_changed", _frequency_changed(before, after)),
            ("throttled", _throttled(before, after)),
            ("power_mode_changed", any(before.get(k) != after.get(k) for k in _MODE)),
            ("frequency_capped", _is_capped(before)),
            ("cores_offline", before.get("cpus_online") != before.get("cpus_present")),
            ("steal", (stolen_share(before, after) or 0) > 0.01),
            ("pressure", (waiting_share(before, after) or 0) > 0.05),
        )
        if found
    }


_FREQUENCY, _MODE = ("governor", "max_khz"), ("power_mode", "cpus_online")


def _is_blind(state: Mapping[str, Any]) -> bool:
    """Whether the frequency's limit, or whether the CPU is held back, can't be read."""
    if None in (state.get(key) for key in _FREQUENCY):
        return True
    return state.get("throttle_count") is None and state.get("throttled") is None


def _frequency_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether governor or limit changed; what isn't known can't be seen to."""
    known = None not in [before.get(key) for key in _FREQUENCY]
    return known and any(before[key] != after.get(key) for key in _FREQUENCY)


def _is_capped(state: Mapping[str, Any]) -> bool:
    limit, able = state.get("max_khz"), state.get("limit_khz")
    return limit is not None and able is not None and limit < able


def _throttled(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a counter rose, or a board says that it is, or was meanwhile, held back."""
    counts = before.get("throttle_count"), after.get("throttle_count")
    if None not in counts and counts[1] > counts[0]:  # type: ignore[operator]
        return True
    if before.get("throttled") or after.get("throttled"):
        return True
    once = [set(state.get("throttled_since_start") or ()) for state in (before, after)]
    return bool(once[1] - once[0])


def stolen_share(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Return the share of the CPU time that the hypervisor took; None where it isn't told."""
    if None in (before.get("steal_ticks"), after.get("steal_ticks")):
        return None
    total = after["cpu_ticks"] - before["cpu_ticks"]
    return (after["steal_ticks"] - before["steal_ticks"]) / total if total > 0 else None


def waiting_share(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Return the share of the time in which a process waited for a CPU; None where unknown."""
    if None in (before.get("stalled_us"), after.get("stalled_us")):
        return None
    took_s = after["clock_s"] - before["clock_s"]
    return (after["stalled_us"] - before["stalled_us"]) * 1e-6 / took_s if took_s > 0 else None


def of_precision(estimate: Estimate) -> set[str]:
    """Return the flag of a final whose interval is too wide to be trusted."""
    return {"precision_not_reached"} if estimate.half_width > FINAL_HALF_WIDTH else set()

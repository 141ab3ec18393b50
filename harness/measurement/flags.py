"""Flags say what a measurement suffered; they travel with it to the leaderboard row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.measurement import statistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.measurement.types import Estimate, LatencySample

BLOCKING: Mapping[str, str] = {
    "no_steady_state": "warm-up ended at its time limit with the latency still drifting",
    "precision_not_reached": "the final's interval is wider than +-2 %",
    "reference_drift": "the reference model is off its own history",
    "throttled": "the CPU reported thermal throttling during the measurement",
    "frequency_changed": "the governor or frequency limit changed during the measurement",
    "emulated": "timed on an emulator: not a latency",
    "parity_failed": "the exported file does not compute what the network computes",
}
"""Kept, but not ranked."""
NOTES: Mapping[str, str] = {
    "contended": "more than 5 % of the calls were preempted",
    "steal": "the hypervisor took more than 1 % of the CPU time",
    "sensor_absent": "no frequency sensor: throttling can't be seen",
    "clocks_unlocked": "GPU clocks are not locked",
    "autocorrelated": "rounds depend on each other; the interval is widened for it",
    "clean_unavailable": "too few undisturbed calls: raw figures are used",
    "runner_up": "a better candidate missed the budget in its final measurement",
}
"""Ranked, and shown."""


FINAL_HALF_WIDTH = 0.02
"""Relative half-width over which a final's interval is `precision_not_reached`."""


def is_blocked(flags: Iterable[str]) -> bool:
    """Whether any of `flags` keeps a row from being ranked."""
    return any(flag in BLOCKING for flag in flags)


def of_samples(samples: Sequence[LatencySample]) -> set[str]:
    """Return the flags that the calls themselves show."""
    flags = set()
    preempted = np.concatenate([sample.preempted().ravel() for sample in samples])
    if preempted.mean() > 0.05:
        flags.add("contended")
    if not statistics.clean_available(samples):
        flags.add("clean_unavailable")
    return flags


def of_states(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return the flags that the machine's state before and after shows.

    Args:
        before: As `TimingWorker.state` gives it; a missing entry is unknown, never fine.
        after: Likewise.
    """
    flags = set()
    if before.get("governor") is None or before.get("max_khz") is None:
        flags.add("sensor_absent")
    elif any(before[key] != after.get(key) for key in ("governor", "max_khz")):
        flags.add("frequency_changed")
    throttles = before.get("throttle_count"), after.get("throttle_count")
    if None not in throttles and throttles[1] > throttles[0]:  # type: ignore[operator]
        flags.add("throttled")
    if before.get("cpu_ticks") and after.get("cpu_ticks"):
        total = after["cpu_ticks"] - before["cpu_ticks"]
        if total > 0 and (after["steal_ticks"] - before["steal_ticks"]) > 0.01 * total:
            flags.add("steal")
    return flags


def of_precision(estimate: Estimate) -> set[str]:
    """Return the flag of a final whose interval is too wide to be trusted."""
    return {"precision_not_reached"} if estimate.half_width > FINAL_HALF_WIDTH else set()

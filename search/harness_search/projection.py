"""Fitting an idea to the budget: the model picks a rung, measurement corrects it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness_search.ladder import highest_within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.candidate import OnnxModel
    from harness.compression.pruning.prune import History
    from harness.measurement.types import Measurement
    from harness_search.ladder import Ladder, Widths

CORRECTIONS = 3
_CLOSE = 0.96
"""A feasible rung at this share of the aim or more is near enough: the next would not pay."""


@dataclass(frozen=True, slots=True)
class Probe:
    """An untrained network, timed.

    Attributes:
        widths: Channels per group.
        history: Channels removed per group.
        model: Its export.
        measured: Its latency; None where the file was already too large to be timed.
        share: Latency as a share of the dense model's, by the budget's statistic.
        within: Whether latency and size are within their limits.
    """

    widths: Widths
    history: History
    model: OnnxModel
    measured: Measurement | None
    share: float
    within: bool


def fit_to_budget(
    ladder: Ladder,
    measure: Callable[[Widths], Probe],
    predict: Callable[[Widths], float],
    aim: Callable[[bool], float],
) -> tuple[Probe, list[Probe]]:
    """Return the best rung within the budget, or the fastest one tried; and all that were tried.

    Args:
        ladder: Networks, smallest first.
        measure: Times one; up to 1 + 3 calls.
        predict: Share of the dense model's latency, by the model as corrected so far.
        aim: Share to aim at, by what is known so far; told whether a rung within is known, so that
            it may be bolder.
    """
    tried: dict[int, Probe] = {}
    for _ in range(1 + CORRECTIONS):
        within = max((i for i, probe in tried.items() if probe.within), default=-1)
        beyond = min((i for i, probe in tried.items() if not probe.within), default=len(ladder))
        goal = aim(within >= 0)
        if within >= 0 and tried[within].share >= _CLOSE * goal:
            break
        rung = _next_rung([predict(widths) for widths in ladder], goal, within, beyond)
        if rung is None:
            break
        tried[rung] = measure(ladder[rung])
    best = max((i for i, probe in tried.items() if probe.within), default=None)
    chosen = tried[best] if best is not None else min(tried.values(), key=lambda p: p.share)
    return chosen, list(tried.values())


def _next_rung(predicted: Sequence[float], aim: float, within: int, beyond: int) -> int | None:
    """Return the rung to try between the highest known good and the lowest known bad one."""
    low, high = within + 1, beyond - 1
    if low > high:
        return None
    found = highest_within(predicted, aim, low, high)
    if found is not None:
        return found
    if within < 0:
        return 0  # the model knows none that fits: does any?
    # One that fits against the model's word says that the model is wrong: halve what is left.
    return (low + high) // 2 if predicted[within] > aim else None

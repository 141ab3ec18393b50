"""What does a machine resolve? Known answers are measured: no difference, and a planted one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from harness.measurement.compare import Verdict, verdict
from harness.measurement.rounds import measure, quick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from harness.measurement.types import Estimate, OpenWorker, Subject

_PLANTED = (20, 21)
"""Inferences of the two models' calls: 5 % apart, by construction."""
_NINE_IN_TEN = 1 + stats.norm.ppf(0.9) / stats.norm.ppf(0.975)
"""A difference this many half-widths away from none is resolved in nine of ten measurements."""


@dataclass(frozen=True, slots=True)
class Share:
    """How often something happened, with its 95 % Clopper-Pearson interval."""

    count: int
    of: int
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Pairs of measurements whose answer is known.

    Attributes:
        seconds: What one pair took by its plan.
        false_alarms: Identical models called faster or slower.
        planted: Inferences of the candidate's call over the reference's.
        found: Planted slow-downs called slower.
        half_widths: Relative half-width of each identical pair's ratio, 95 %.
        planted_ratios: Ratio measured in each planted pair.
    """

    seconds: float
    false_alarms: Share
    planted: float
    found: Share
    half_widths: tuple[float, ...]
    planted_ratios: tuple[float, ...]

    @property
    def half_width(self) -> float:
        """The median half-width."""
        return float(np.median(self.half_widths))

    @property
    def resolves(self) -> float:
        """The relative difference that nine of ten measurements of `seconds` resolve."""
        return _NINE_IN_TEN * self.half_width

    def seconds_for(self, difference: float) -> float:
        """Return about how long a measurement must be to resolve a relative difference.

        Extrapolated: the interval narrows with the square root of the time.
        """
        return self.seconds * (self.resolves / difference) ** 2


def self_test(
    open_worker: OpenWorker,
    subject: Subject,
    exclusive: Callable[[], AbstractContextManager[None]],
    pairs: int,
    seconds: float,
    on_pair: Callable[[int, int], None],
    seed: int = 0,
) -> SelfTest:
    """Measure pairs of identical models, and half as many with a slow-down planted.

    Args:
        open_worker: Starts a fresh timing process.
        subject: The model.
        exclusive: Gives a context manager that keeps other work off the machine.
        pairs: Identical pairs.
        seconds: About so long for each pair.
        on_pair: Told how many pairs are done, and of how many.
        seed: Of the order of timing.

    Raises:
        BackendError: If the runtime refuses the model, or its process dies.
    """
    n_planted = max(1, pairs // 2)
    total = pairs + n_planted

    def ratio(number: int, one: int, other: int) -> Estimate:
        both = {"a": replace(subject, repeat=one), "b": replace(subject, repeat=other)}
        measured = measure(open_worker, both, "a", quick(seconds), exclusive, seed + number)
        on_pair(number + 1, total)
        return measured["b"].stats.ratio("p50")

    # The same calls in both kinds of pair, or one would not speak for the other.
    same = [ratio(i, _PLANTED[0], _PLANTED[0]) for i in range(pairs)]
    slower = [ratio(pairs + i, *_PLANTED) for i in range(n_planted)]
    return SelfTest(
        seconds=seconds,
        false_alarms=_share([verdict(one) is not Verdict.NOT_RESOLVED for one in same]),
        planted=_PLANTED[1] / _PLANTED[0],
        found=_share([verdict(one) is Verdict.SLOWER for one in slower]),
        half_widths=tuple(math.log(one.hi / one.lo) / 2 for one in same),
        planted_ratios=tuple(one.value for one in slower),
    )


def _share(happened: Sequence[bool]) -> Share:
    bounds = stats.binomtest(sum(happened), len(happened)).proportion_ci(0.95, method="exact")
    return Share(sum(happened), len(happened), float(bounds.low), float(bounds.high))

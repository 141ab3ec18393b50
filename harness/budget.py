"""A latency budget: what it bounds, by which statistic, and the three-valued decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.units import format_latency, parse_latency_s, split_quantity

if TYPE_CHECKING:
    from harness.measurement.types import Estimate, LatencyStats

STATISTICS = ("p50", "p90")


class Decision(StrEnum):
    """What a measurement says about a budget."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Budget:
    """An upper limit for one latency statistic.

    Attributes:
        kind: `"time"` (seconds) or `"share"` (fraction of the dense model, paired).
        value: Seconds for a time, a fraction for a share (0.5 is 50 %).
        statistic: `"p50"` or `"p90"`.
        text: Number and unit, such as `"50%"`; used in names and rows.
    """

    kind: str
    value: float
    statistic: str
    text: str

    def decide(self, stats: LatencyStats) -> Decision:
        """Compare a measurement with this budget: the upper bound decides.

        Raises:
            MeasurementError: If `stats` lacks the statistic that the budget speaks of.
        """
        return self.place(stats.judged(self))

    def place(self, estimate: Estimate) -> Decision:
        """Compare the estimate that this budget bounds with it."""
        if estimate.hi <= self.value:
            return Decision.FEASIBLE
        return Decision.INFEASIBLE if estimate.lo > self.value else Decision.UNDECIDED

    def as_share(self, dense_s: float) -> float:
        """Return the budget as a fraction of the dense model's latency, `dense_s` seconds."""
        return self.value if self.kind == "share" else self.value / dense_s

    def describe(self) -> str:
        """Return the budget in words."""
        if self.kind == "share":
            return f"{self.text} of the dense model's {self.statistic}"
        return f"{self.statistic} within {format_latency(self.value)}"


def parse_budget(text: str, statistic: str | None = None) -> Budget:
    """Return the budget that `text` means.

    Args:
        text: A duration (`"10ms"`) or a share of the dense model (`"50%"`).
        statistic: `"p50"` or `"p90"`; None takes p50 for a share and p90 for a time.

    Raises:
        ConfigError: If `text` is not a positive number with a unit, or the statistic is unknown.
    """
    if statistic is not None and statistic not in STATISTICS:
        raise ConfigError(f"`--statistic` must be 'p50' or 'p90'. Received: {statistic!r}.")
    parts = split_quantity(text)
    if parts is not None and parts[1] == "Minstr":
        raise ConfigError(
            "`--budget` in instructions is for emulated targets, and none is available here. "
            f"Received: {text!r}. Use a duration such as '10ms' or a share such as '50%'."
        )
    if parts is None or parts[1] not in ("%", "ns", "us", "µs", "\u03bcs", "ms", "s"):
        hint = "Add a unit." if parts is not None and not parts[1] else "Use a number and a unit."
        raise ConfigError(
            "`--budget` must be a duration such as '10ms' or a share of the dense model such as "
            f"'50%'. Received: {text!r}. {hint}"
        )
    if parts[0] <= 0:
        raise ConfigError(f"`--budget` must be above zero. Received: {text!r}.")
    name = f"{parts[0]:.12g}{parts[1]}"
    if parts[1] == "%":
        return Budget("share", parts[0] / 100, statistic or "p50", name)
    return Budget("time", parse_latency_s(text), statistic or "p90", name)


def parse_budgets(text: str, statistic: str | None = None) -> tuple[Budget, ...]:
    """Return the budgets of a comma-separated list, without repeats, tightest first.

    Raises:
        ConfigError: As `parse_budget`; also if shares and times are mixed in one list.
    """
    parts = text.split(",")
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise ConfigError(f"`--budget` has an empty entry in its list. Received: {text!r}.")
    budgets = {b.text: b for b in (parse_budget(part, statistic) for part in parts)}
    if len({budget.kind for budget in budgets.values()}) > 1:
        raise ConfigError(
            f"`--budget` takes a list of shares or of durations, not both. Received: {text!r}."
        )
    return tuple(sorted(budgets.values(), key=lambda budget: budget.value))

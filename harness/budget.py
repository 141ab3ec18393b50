"""A budget: what it bounds, by which statistic, and the three-valued decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.units import (
    INSTRUCTIONS_PER,
    format_instructions,
    format_latency,
    parse_instructions,
    parse_latency_s,
    split_quantity,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.measurement.types import Estimate, LatencyStats
    from harness.target import Target

STATISTICS = ("p50", "p90")
_TIMES = ("ns", "us", "µs", "\u03bcs", "ms", "s")


class Decision(StrEnum):
    """What a measurement says about a budget."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Budget:
    """An upper limit for one statistic of latency, or of instructions on an emulated target.

    Attributes:
        kind: `"time"` (seconds), `"share"` (fraction of the dense model, paired) or
            `"instructions"` (emulated targets only).
        value: Seconds for a time, a fraction for a share (0.5 is 50 %), or instructions.
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

    def limit(self, dense: float) -> float:
        """Return the limit in the unit of `dense`, the dense model's figure."""
        return self.value * dense if self.kind == "share" else self.value

    def as_share(self, dense: float) -> float:
        """Return the budget as a fraction of the dense model's figure, seconds or instructions."""
        return self.value if self.kind == "share" else self.value / dense

    def describe(self) -> str:
        """Return the budget in words."""
        if self.kind == "share":
            return f"{self.text} of the dense model's {self.statistic}"
        shown = format_latency if self.kind == "time" else format_instructions
        return f"{self.statistic} within {shown(self.value)}"


def parse_budget(text: str, statistic: str | None = None) -> Budget:
    """Return the budget that `text` means.

    Args:
        text: A duration (`"10ms"`), a share of the dense model (`"50%"`), or instructions
            (`"80Minstr"`).
        statistic: `"p50"` or `"p90"`; None takes p90 for a time, and p50 for all else: shares are
            paired, and instruction counts have hardly a tail.

    Raises:
        ConfigError: If `text` is not a positive number with a unit, or the statistic is unknown.
    """
    if statistic is not None and statistic not in STATISTICS:
        raise ConfigError(f"`--statistic` must be 'p50' or 'p90'. Received: {statistic!r}.")
    parts = split_quantity(text)
    if parts is None or parts[1] not in ("%", *_TIMES, *INSTRUCTIONS_PER):
        hint = "Add a unit." if parts is not None and not parts[1] else "Use a number and a unit."
        raise ConfigError(
            "`--budget` must be a duration such as '10ms' or a share of the dense model such as "
            "'50%'; on an emulated target a share or instructions such as '80Minstr'. Received: "
            f"{text!r}. {hint}"
        )
    if parts[0] <= 0:
        raise ConfigError(f"`--budget` must be above zero. Received: {text!r}.")
    name = f"{parts[0]:.12g}{parts[1]}"
    if parts[1] == "%":
        return Budget("share", parts[0] / 100, statistic or "p50", name)
    if parts[1] in INSTRUCTIONS_PER:
        return Budget("instructions", parse_instructions(text), statistic or "p50", name)
    return Budget("time", parse_latency_s(text), statistic or "p90", name)


def parse_budgets(text: str, statistic: str | None = None) -> tuple[Budget, ...]:
    """Return the budgets of a comma-separated list, without repeats, tightest first.

    Raises:
        ConfigError: As `parse_budget`; also if a list mixes shares, times and instructions.
    """
    parts = text.split(",")
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise ConfigError(f"`--budget` has an empty entry in its list. Received: {text!r}.")
    budgets = {b.text: b for b in (parse_budget(part, statistic) for part in parts)}
    if len({budget.kind for budget in budgets.values()}) > 1:
        raise ConfigError(
            "`--budget` takes a list of shares, of durations or of instructions, not mixed. "
            f"Received: {text!r}."
        )
    return tuple(sorted(budgets.values(), key=lambda budget: budget.value))


def check_budgets(budgets: Sequence[Budget], target: Target) -> None:
    """Check that a target can be held against budgets.

    Raises:
        ConfigError: If one is a time and the target emulated, or instructions and it is not.
    """
    for budget in budgets:
        if budget.kind in ("share", target.quantity.name):
            continue
        if budget.kind == "time":
            raise ConfigError(
                f"`--budget` on target {target.name!r} must be an instruction count such as "
                "'80Minstr' or a share of the dense model such as '50%'. Received: "
                f"{budget.text!r}. The target is an emulated {target.emulated_cpu}: how long that "
                "takes is no latency."
            )
        raise ConfigError(
            f"`--budget` on target {target.name!r} must be a duration such as '10ms' or a share of "
            f"the dense model such as '50%'. Received: {budget.text!r}. Instructions are counted "
            "on emulated targets only, such as 'qemu-arm64'."
        )

"""What a call is measured in: time on a real machine, instructions on an emulated one.

How long an emulator takes says nothing of the CPU that it stands for; how many instructions the
guest executes does, and is repeatable. The arithmetic of a measurement is the same for both. Only
names and units differ, and whatever names or shows a figure asks for them here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.units import INSTRUCTIONS_PER, SECONDS_PER, format_instructions, format_latency

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that calls are measured in.

    Attributes:
        name: `"time"` or `"instructions"`.
        per_raw: What one unit of a worker's raw figures is: 1e-9 s, or 1 instruction.
        suffix: Ends the keys of figures in records: `p50_s`, `p50_instructions`.
        noun: For people: `"latency"`.
        doing: How it is measured: `"timing"`.
        less, more: Than another model's, for people: `"faster"`.
        unit: Of axes and tables; `per_unit` is one of it in seconds or instructions.
        show: Returns a figure with its unit.
        sizes: By unit, one of it in seconds or instructions.
    """

    name: str
    per_raw: float
    suffix: str
    noun: str
    doing: str
    less: str
    more: str
    unit: str
    show: Callable[[float], str]
    sizes: Mapping[str, float]

    @property
    def per_unit(self) -> float:
        """One `unit` in seconds or instructions."""
        return self.sizes[self.unit]

    def key(self, statistic: str) -> str:
        """Return the key of a statistic in a record's figures."""
        return f"{statistic}_{self.suffix}"

    def of(self, figures: Mapping[str, Any], statistic: str) -> Any:
        """Return a statistic from a record's figures: `[value, low, high]`, or None."""
        return figures[self.key(statistic)]

    def interval(self, triple: Sequence[float]) -> str:
        """Return `[value, low, high]` for people: `"0.538 ms (0.530 ms to 0.547 ms)"`."""
        value, low, high = map(self.show, triple)
        return f"{value} ({low} to {high})"

    def span(self, triple: Sequence[float]) -> str:
        """Return the interval of `[value, low, high]` in the value's unit, without it."""
        size = self.sizes[self.show(triple[0]).split()[1]]
        low, high = (f"{value / size:#.3g}".rstrip(".") for value in triple[1:])
        return f"{low} to {high}"

    def scaled(self, value: float) -> float:
        """Return a figure in `unit`."""
        return value / self.per_unit


TIME = Quantity(
    "time", 1e-9, "s", "latency", "timing", "faster", "slower", "ms", format_latency, SECONDS_PER
)
INSTRUCTIONS = Quantity(
    "instructions", 1.0, "instructions", "instructions", "counting the instructions of",
    "fewer instructions", "more instructions", "Minstr", format_instructions, INSTRUCTIONS_PER,
)  # fmt: skip


def emulation_note(emulated_cpu: str) -> str:
    """Return what is to be known of counts from an emulated CPU; empty for a real machine."""
    if not emulated_cpu:
        return ""
    return (
        f"Instructions counted on an emulated {emulated_cpu}, not latencies: they know no caches, "
        "bandwidth or clocks, and are never ranked."
    )


def quantity_on(emulated_cpu: str) -> Quantity:
    """Return what calls are measured in on a target.

    Args:
        emulated_cpu: The target's; empty for a real machine.
    """
    return INSTRUCTIONS if emulated_cpu else TIME

"""How long to measure on a target: until a time is known, or a count of instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.measurement.rounds import FINAL, PROBE, Plan
from harness.quantity import INSTRUCTIONS

if TYPE_CHECKING:
    from harness.target import Target

COUNT_PROBE = Plan(processes=(1,), sittings=(3, 6), half_width=0.03, quantity=INSTRUCTIONS)
"""As `PROBE`. Three sittings, the fewest that give an interval: counts repeat to 0.1 %, and calls
take ten to a hundred times as long as on a real machine. Three more at the edge of a budget."""
COUNT_FINAL = Plan(processes=(3, 5), sittings=(2,), half_width=0.01, quantity=INSTRUCTIONS)
"""As `FINAL`. Three fresh processes, the fewest that give an interval, and two more at the edge of
a budget; none to time a start: how long that takes emulated is no latency."""


def probe_plan(target: Target) -> Plan:
    """Return how a candidate is measured while a search steers."""
    return COUNT_PROBE if target.quantity is INSTRUCTIONS else PROBE


def final_plan(target: Target) -> Plan:
    """Return how that is measured which is reported."""
    return COUNT_FINAL if target.quantity is INSTRUCTIONS else FINAL

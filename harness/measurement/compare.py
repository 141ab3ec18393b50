"""Does one model take less than another? A paired answer in one of three words."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from harness.budget import Budget
from harness.quantity import INSTRUCTIONS, TIME

if TYPE_CHECKING:
    from harness.measurement.types import Estimate
    from harness.quantity import Quantity

AS_FAST = Budget("share", 1.0, "p50", "100%")
"""Held against this, a measurement goes on until a difference is resolved or its plan ends."""


class Verdict(StrEnum):
    """What a ratio's interval says: of times, or of instructions."""

    FASTER = TIME.less
    SLOWER = TIME.more
    FEWER = INSTRUCTIONS.less
    MORE = INSTRUCTIONS.more
    NOT_RESOLVED = "not resolved"


def verdict(ratio: Estimate, quantity: Quantity = TIME) -> Verdict:
    """Return what the interval of a ratio says: its side of 1, if it excludes 1."""
    if ratio.hi < 1:
        return Verdict(quantity.less)
    return Verdict(quantity.more) if ratio.lo > 1 else Verdict.NOT_RESOLVED

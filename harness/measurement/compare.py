"""Is one model faster than another? A paired answer in one of three words."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from harness.budget import Budget

if TYPE_CHECKING:
    from harness.measurement.types import Estimate

AS_FAST = Budget("share", 1.0, "p50", "100%")
"""Held against this, a measurement goes on until a difference is resolved or its plan ends."""


class Verdict(StrEnum):
    """What a ratio's interval says."""

    FASTER = "faster"
    SLOWER = "slower"
    NOT_RESOLVED = "not resolved"


def verdict(ratio: Estimate) -> Verdict:
    """Return what the interval of a latency ratio says: its side of 1, if it excludes 1."""
    if ratio.hi < 1:
        return Verdict.FASTER
    return Verdict.SLOWER if ratio.lo > 1 else Verdict.NOT_RESOLVED

"""What a record's figures are in a table: milliseconds, or millions of instructions.

Times and counts have columns of their own, so that nobody takes the one for the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.quantity import INSTRUCTIONS, TIME

if TYPE_CHECKING:
    from harness.quantity import Quantity
    from harness_results.record import RunRecord

TIME_COLUMNS = ("latency_ms", "latency_lo_ms", "latency_hi_ms")
COUNT_COLUMNS = ("guest_minstr", "guest_minstr_lo", "guest_minstr_hi")


def time_cells(record: RunRecord) -> dict[str, float | None]:
    """Return the latency that a record's budget bounds, with its interval; empty for a count."""
    return _cells(record, TIME, TIME_COLUMNS)


def count_cells(record: RunRecord) -> dict[str, float | None]:
    """Return the instructions that a record's budget bounds, likewise; empty for a time."""
    return _cells(record, INSTRUCTIONS, COUNT_COLUMNS)


def _cells(
    record: RunRecord, quantity: Quantity, columns: tuple[str, ...]
) -> dict[str, float | None]:
    figures = record.figures()
    if figures is None or record.quantity is not quantity:
        return dict.fromkeys(columns)
    triple = quantity.of(figures, record.budget["statistic"])
    if triple is None:
        return dict.fromkeys(columns)
    return {name: quantity.scaled(one) for name, one in zip(columns, triple, strict=True)}

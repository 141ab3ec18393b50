"""What the cells of sensitivity.csv may say: a table is also edited by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.quantity import INSTRUCTIONS, TIME
from harness_results.csvfile import uncell

if TYPE_CHECKING:
    from harness_results.sensitivity_table import SensitivityRow

_WHOLE = ("width", "kept", "n", "params_saved", "macs_saved")
_WORDS = ("kind", "name", "criterion", "metric", "target", "fingerprint", "reason")
_NEEDED = ("kind", "name", "ratio", "metric", "n")
_JUDGED = ("val_acc", "val_acc_change", "val_acc_change_lo", "val_acc_change_hi", "val_loss",
           "val_loss_change", "params_saved", "macs_saved")  # fmt: skip
_MEASURED = ("dense", "saved", "saved_lo", "saved_hi")
_ROUNDING = 1e-5
"""Of a share in the table: it has six digits."""


def read_cell(column: str, text: str) -> Any:
    """Return what a cell says; None for an empty one.

    Raises:
        ValueError: With what was expected, where it says something else.
    """
    if column == "flags":
        return tuple(text.split())
    if not text:
        if column in _NEEDED:
            raise ValueError("given")
        return None
    if column in _WORDS:
        return uncell(text)
    kind, expected = (int, "a whole number") if column in _WHOLE else (float, "a finite number")
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(expected) from None
    if not math.isfinite(value):
        raise ValueError(expected)
    return value


def row_fault(row: SensitivityRow) -> str | None:
    """Return what no analysis writes about a row, in words; None where nothing is wrong.

    Args:
        row: As its cells say.
    """
    return _cut_fault(row) or _figures_fault(row)


def _cut_fault(row: SensitivityRow) -> str | None:
    width, kept = row.width, row.kept
    if row.kind == "block":
        if width is not None or kept is not None or row.ratio != 1:
            return "a block must have no width and nothing kept, and the ratio 1"
    elif row.kind != "group":
        return f"kind must be 'group' or 'block'. Received: {row.kind!r}"
    elif width is None or kept is None or not 0 < kept < width:
        return f"kept must be from 1 to below width. Received: {kept} of {width}"
    elif abs(row.ratio - (1 - kept / width)) > _ROUNDING:
        return f"ratio must be {1 - kept / width:.6g}, 1 - kept / width. Received: {row.ratio:g}"
    return None if row.n > 0 else f"n must be at least 1. Received: {row.n}"


def _figures_fault(row: SensitivityRow) -> str | None:
    quantity = row.quantity
    other = TIME if quantity is INSTRUCTIONS else INSTRUCTIONS
    if any(getattr(row, other.key(name)) is not None for name in _MEASURED):
        return "it must be timed or have its instructions counted, not both"
    for columns in (_JUDGED, (*map(quantity.key, _MEASURED), "target", "fingerprint")):
        missing = [column for column in columns if getattr(row, column) is None]
        if missing and len(missing) < len(columns):
            return f"{', '.join(columns)} must be all given or all empty. Empty: {missing[0]}"
    saved = [quantity.key("saved_lo"), quantity.key("saved_hi")]
    for name, ends in (
        ("val_acc_change", ["val_acc_change_lo", "val_acc_change_hi"]), ("saved", saved),
    ):  # fmt: skip
        low, high = (getattr(row, end) for end in ends)
        if low is not None and low > high:
            return f"the interval of {name} must not end below its start. Received: {low} to {high}"
    if row.dense is not None and row.dense <= 0:
        return f"{quantity.key('dense')} must be above 0. Received: {row.dense}"
    return None

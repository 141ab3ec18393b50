"""sensitivity.csv: what pruning each group alone costs and saves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness.errors import ConfigError
from harness.measurement.flags import faults
from harness.quantity import INSTRUCTIONS, TIME
from harness_results.csvfile import read_csv, to_csv
from harness_results.files import disk_errors
from harness_results.sensitivity_cells import read_cell, row_fault
from harness_results.store import StudyFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.quantity import Quantity

FILE, PICTURE = "sensitivity.csv", "sensitivity.png"
_REMEDY = "`harness sensitivity` makes such a table; a corrupt one is made anew once it is deleted."


class SensitivityFolder(StudyFolder):
    """`<results>/sensitivity/<study>`: a sensitivity analysis."""

    __slots__ = ()

    @property
    def path(self) -> Path:
        """The analysis's own folder."""
        return self.results / "sensitivity" / self.study

    @property
    def table(self) -> Path:
        """The rows, as CSV."""
        return self.path / FILE

    @property
    def picture(self) -> Path:
        """The plot of the rows."""
        return self.path / PICTURE

    def create(self) -> None:
        """Make the folders: there are no records.

        Raises:
            ConfigError: If they can't be written.
        """
        with disk_errors(self.results):
            self.models.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """What was found when one thing alone was removed from the trained dense network.

    None is unknown. The fields are the columns of the table, in their order.

    Attributes:
        kind: `"group"`: some channels of a group; `"block"`: a whole residual block.
        name: The group's or the block's.
        width: Channels of the group in the dense network; None for a block.
        kept: Channels that stayed.
        ratio: Share of channels removed; 1 for a block.
        criterion: Importance criterion that chose the channels; None for a block.
        metric: What is judged by; higher is better.
        n: Validation samples.
        val_acc: The metric without retraining of anything, batch norms included.
        val_acc_change: Its change from the dense network on the same samples, with the paired 95 %
            interval `val_acc_change_lo` to `val_acc_change_hi`.
        val_loss: Mean loss; `val_loss_change` is its rise from the dense network's.
        dense_s: The dense network's p50 beside this one, seconds; None where nothing was timed.
        saved_s: By how much this one's p50 is shorter, seconds, with its 95 % interval `saved_lo_s`
            to `saved_hi_s`.
        dense_instructions: The same in instructions, where the target is emulated: in place of
            `dense_s`; likewise `saved_instructions`, `saved_lo_instructions` and
            `saved_hi_instructions`.
        target: On which it was timed; None where nothing was.
        fingerprint: Of that machine, its runtime and the target's options.
        params_saved: Parameters fewer than in the dense network.
        macs_saved: Multiply-accumulates fewer, for one sample.
        reason: What failed.
        flags: Of the measurement.
    """

    kind: str
    name: str
    width: int | None
    kept: int | None
    ratio: float
    criterion: str | None
    metric: str
    n: int
    val_acc: float | None = None
    val_acc_change: float | None = None
    val_acc_change_lo: float | None = None
    val_acc_change_hi: float | None = None
    val_loss: float | None = None
    val_loss_change: float | None = None
    dense_s: float | None = None
    saved_s: float | None = None
    saved_lo_s: float | None = None
    saved_hi_s: float | None = None
    dense_instructions: float | None = None
    saved_instructions: float | None = None
    saved_lo_instructions: float | None = None
    saved_hi_instructions: float | None = None
    target: str | None = None
    fingerprint: str | None = None
    params_saved: int | None = None
    macs_saved: int | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, int | None]:
        """What tells rows of one table apart."""
        return self.kind, self.name, self.kept

    @property
    def quantity(self) -> Quantity:
        """What it was measured in, where it was."""
        return TIME if self.dense_instructions is None else INSTRUCTIONS

    @property
    def dense(self) -> float | None:
        """The dense network's p50 beside this one, in seconds or instructions."""
        return self.dense_s if self.quantity is TIME else self.dense_instructions

    @property
    def saved(self) -> tuple[float, float, float] | None:
        """By how much this one's p50 is less, in seconds or instructions, with its interval."""
        value, low, high = (getattr(self, name) for name in saved_names(self.quantity))
        return None if value is None else (value, low, high)

    @property
    def cost(self) -> float | None:
        """Rise of the loss per second or instruction saved; None where nothing was, or unknown."""
        if self.val_loss_change is None or self.saved is None or self.saved[0] <= 0:
            return None
        return self.val_loss_change / self.saved[0]


def saved_names(quantity: Quantity) -> tuple[str, str, str]:
    """Return the fields of what is saved, in a quantity: the value and its interval's ends."""
    return quantity.key("saved"), quantity.key("saved_lo"), quantity.key("saved_hi")


def measured_fields(
    quantity: Quantity, dense: float, ratio: tuple[float, float, float]
) -> dict[str, float]:
    """Return a row's fields from a measurement: saved = dense * (1 - ratio of the p50s).

    Args:
        quantity: What was measured.
        dense: The dense network's p50.
        ratio: To it, with its interval.
    """
    value, low, high = ratio
    saved = (dense * (1 - value), dense * (1 - high), dense * (1 - low))
    fields = dict(zip(saved_names(quantity), saved, strict=True))
    return {quantity.key("dense"): dense, **fields}


def untimed(row: SensitivityRow) -> SensitivityRow:
    """Return a row without what was measured on a target, and without the flags of that."""
    names = [quantity.key("dense") for quantity in (TIME, INSTRUCTIONS)]
    names += [name for quantity in (TIME, INSTRUCTIONS) for name in saved_names(quantity)]
    nothing: dict[str, Any] = dict.fromkeys((*names, "target", "fingerprint"))
    return replace(row, **nothing, flags=())


def has_time(row: SensitivityRow) -> bool:
    """Whether a row has a time, or instructions, and no flag that says not to trust it."""
    return row.saved is not None and not faults(row.flags)


COLUMNS = tuple(field.name for field in fields(SensitivityRow))


def write_sensitivity(path: Path, rows: Sequence[SensitivityRow]) -> None:
    """Write a table, whole or not at all."""
    write_atomic(path, to_csv(COLUMNS, [asdict(row) | {"flags": " ".join(row.flags)}
                                        for row in rows]))  # fmt: skip


def read_sensitivity(path: Path) -> list[SensitivityRow]:
    """Return the rows of a table, in its order.

    Raises:
        ConfigError: If the file is missing, or is no such table.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is no file. Expected a {FILE}. {_REMEDY}")
    cells = read_csv(path, COLUMNS, "a sensitivity analysis", _REMEDY)
    rows: dict[Any, SensitivityRow] = {}
    for number, row in enumerate(cells, start=2):
        found = _row(path, number, row)
        if found.key in rows:
            raise _faulty(path, number, f"{found.name!r} must be there once with {found.kept} kept")
        rows[found.key] = found
    return list(rows.values())


def _row(path: Path, number: int, cells: dict[str, str]) -> SensitivityRow:
    values: dict[str, Any] = {}
    for name, text in cells.items():
        try:
            values[name] = read_cell(name, text)
        except ValueError as exc:
            raise _faulty(path, number, f"{name} must be {exc}. Received: {text!r}") from exc
    row = SensitivityRow(**values)
    fault = row_fault(row)
    if fault is not None:
        raise _faulty(path, number, fault)
    return row


def _faulty(path: Path, number: int, fault: str) -> ConfigError:
    return ConfigError(f"{path}, line {number}: {fault}. {_REMEDY}")

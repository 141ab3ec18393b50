"""A sensitivity analysis, for a person to read: while it runs, and its table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.cli.progress import SearchProgress
from harness.measurement.flags import BLOCKING, NOTES, faults
from harness.quantity import TIME
from harness.units import SHARES, format_count, format_metric, format_wall, metric_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from harness.quantity import Quantity
    from harness_results.sensitivity_table import SensitivityRow
    from harness_search.analysis import SensitivityResult

_KEYS = ("\ngroup or block", "\nwidth", "\nkept")
_COSTS = ("\nremoved", "change of\n{metric}, {unit}", "95 %\ninterval", "loss\nrise")
_SIZES = ("parameters\nsaved", "MACs\nsaved")
_ANY = 10_000
"""More columns than any table needs."""


class SensitivityProgress(SearchProgress):
    """Listens to a sensitivity analysis; the bar counts its rows."""

    def __rich__(self) -> RenderableType:
        """Return the live panel."""
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self._total or 1, completed=self._done, width=30)
        row.add_row(Text(self._phase), bar if self._total else Text(""))
        return Group(row)


def print_sensitivity(console: Console, result: SensitivityResult, by_cost: bool) -> None:
    """Print the table, what it means, and where everything is.

    Args:
        console: Where to print.
        result: What was found.
        by_cost: Cheapest first, by the rise of the loss per millisecond or instruction saved; else
            in the network's order.
    """
    rows = sorted(result.rows, key=_cost) if by_cost else result.rows
    for table in _tables(console, rows, result.metric):
        console.print()
        console.print(table)
    done = next((row for row in rows if row.val_acc is not None), None)
    if done is not None and done.val_acc is not None and done.val_acc_change is not None:
        dense = format_metric(done.val_acc - done.val_acc_change, result.metric)
        console.print(
            f"[dim]changes are from the dense network's {dense} {metric_words(result.metric)} on "
            f"the same {done.n} validation samples (paired), nothing trained after pruning, batch "
            f"norms included; channels go by {escape(result.analysis.criterion)}[/]"
        )
    _print_untimed(console, result)
    _print_flags(console, rows)
    for row in rows:
        if row.reason is not None:
            console.print(f"[yellow]{escape(row.name)}: {escape(row.reason)}[/]")
    for note in result.notes:
        console.print(f"[dim]note: {escape(note)}[/]")
    console.print(f"\n{len(rows)} rows, {format_wall(result.elapsed_s)} in this session")
    console.print(escape(str(result.table)), soft_wrap=True)
    if result.picture is not None:
        console.print(escape(str(result.picture)), soft_wrap=True)


def _cost(row: SensitivityRow) -> tuple[int, float, float]:
    """Return the key of the order by cost: unknown costs and savings of nothing come last.

    A loss that falls costs nothing, as in a search's ladder; of costs that are equal, what saves
    most comes first.
    """
    if row.cost is not None and row.saved is not None:
        return 0, max(0.0, row.cost), -row.saved[0]
    rise = math.inf if row.val_loss_change is None else row.val_loss_change
    return (1 if row.saved is None else 2), rise, 0.0


def _tables(console: Console, rows: Sequence[SensitivityRow], metric: str) -> list[Table]:
    """Return one table, or two where the console is too narrow: costs, and then savings."""
    quantity = next((row.quantity for row in rows if row.saved is not None), None)
    savings = _SIZES if quantity is None else (*_titles(quantity), *_SIZES)
    cells = [(_cost_cells(row, metric), _saving_cells(row, quantity is not None)) for row in rows]
    whole = _table(rows, metric, (*_COSTS, *savings), [(*cost, *save) for cost, save in cells])
    wanted = Measurement.get(console, console.options.update(max_width=_ANY), whole).maximum
    if wanted <= console.width:
        return [whole]
    return [_table(rows, metric, _COSTS, [cost for cost, _ in cells]),
            _table(rows, metric, savings, [save for _, save in cells])]  # fmt: skip


def _titles(quantity: Quantity) -> tuple[str, str]:
    counted = "" if quantity is TIME else f" {quantity.noun}"
    return f"p50{counted}\nsaved, {quantity.unit}", "95 %\ninterval"


def _table(
    rows: Sequence[SensitivityRow],
    metric: str,
    columns: Sequence[str],
    cells: Sequence[tuple[str, ...]],
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    unit = "points" if metric in SHARES else "its unit"
    for title in (*_KEYS, *columns):
        shown = title.format(metric=metric_words(metric), unit=unit)
        if title == _KEYS[0]:  # where there is little room, names are folded: figures never are
            table.add_column(shown, overflow="fold")
        else:
            table.add_column(shown, justify="right", no_wrap=True)
    for row, figures in zip(rows, cells, strict=True):
        table.add_row(escape(row.name), _count(row.width), _count(row.kept), *figures)
    return table


def _cost_cells(row: SensitivityRow, metric: str) -> tuple[str, ...]:
    rise = "" if row.val_loss_change is None else f"{row.val_loss_change:+.3g}"
    return f"{row.ratio:.0%}", *_change(row, metric), rise


def _saving_cells(row: SensitivityRow, timed: bool) -> tuple[str, ...]:
    sizes = (row.params_saved, row.macs_saved)
    time = _saved(row) if timed else ()
    return *time, *("" if size is None else format_count(size) for size in sizes)


def _count(value: int | None) -> str:
    return "" if value is None else str(value)


def _change(row: SensitivityRow, metric: str) -> tuple[str, str]:
    value, low, high = row.val_acc_change, row.val_acc_change_lo, row.val_acc_change_hi
    if value is None or low is None or high is None:
        return "", ""
    if metric in SHARES:
        return f"{value * 100:+.2f}", f"{low * 100:+.2f} to {high * 100:+.2f}"
    return f"{value:+.3g}", f"{low:+.3g} to {high:+.3g}"


def _saved(row: SensitivityRow) -> tuple[str, str]:
    if row.saved is None:
        return "", ""
    value, low, high = (f"{row.quantity.scaled(one):.3g}" for one in row.saved)
    return value, f"[dim]{low} to {high}[/]"


def _print_untimed(console: Console, result: SensitivityResult) -> None:
    rows = [row for row in result.rows if row.val_acc_change is not None]
    untimed = sum(row.saved is None and row.reason is None for row in rows)
    if result.analysis.timing and untimed:
        timed = result.settings.target.quantity is TIME
        what, doing = ("time", "timing") if timed else ("instruction count", "counting")
        console.print(
            f"[dim]{untimed} of {len(rows)} rows have no {what}. Where {doing} all takes more than "
            f"two minutes, only the middle ratio of each group is {'timed' if timed else 'counted'}"
            "; one ratio alone always is (`--ratios 25%`)[/]"
        )


def _print_flags(console: Console, rows: Sequence[SensitivityRow]) -> None:
    known = {**BLOCKING, **NOTES}
    for flag in sorted({flag for row in rows for flag in row.flags}):
        count = sum(flag in row.flags for row in rows)
        style = "red" if flag in BLOCKING else "dim"
        effect = "; the same command times them again" if faults([flag]) else ""
        console.print(
            f"[{style}]{flag} ({count} of {len(rows)} rows): {known.get(flag, '')}{effect}[/]"
        )

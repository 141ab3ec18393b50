"""A sensitivity analysis, for a person to read: while it runs, and its table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.cli.progress import SearchProgress
from harness.measurement.flags import BLOCKING, NOTES
from harness.units import SHARES, format_count, format_metric, format_wall, metric_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from harness_results.sensitivity_table import SensitivityRow
    from harness_search.analysis import SensitivityResult

_COLUMNS = (
    "\ngroup or block", "\nwidth", "\nkept", "\nremoved", "change of\n{metric}, {unit}",
    "95 %\ninterval", "loss\nrise", "p50\nsaved, ms", "95 %\ninterval", "parameters\nsaved",
    "MACs\nsaved",
)  # fmt: skip


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
        by_cost: Cheapest first, by the rise of the loss per millisecond saved; else in the
            network's order.
    """
    rows = sorted(result.rows, key=_cost) if by_cost else result.rows
    console.print()
    console.print(_table(rows, result.metric))
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


def _cost(row: SensitivityRow) -> tuple[int, float]:
    """Return the key of the order by cost: unknown costs and savings of nothing come last."""
    if row.cost_per_s is not None:
        return 0, row.cost_per_s
    rise = math.inf if row.val_loss_change is None else row.val_loss_change
    return (1 if row.saved_s is None else 2), rise


def _table(rows: Sequence[SensitivityRow], metric: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    unit = "points" if metric in SHARES else "its unit"
    timed = any(row.saved_s is not None for row in rows)
    for number, title in enumerate(_COLUMNS):
        if timed or number not in (7, 8):
            shown = title.format(metric=metric_words(metric), unit=unit)
            table.add_column(shown, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        time = _saved(row) if timed else ()
        table.add_row(
            escape(row.name), _count(row.width), _count(row.kept), f"{row.ratio:.0%}",
            *_change(row, metric),
            "" if row.val_loss_change is None else f"{row.val_loss_change:+.3g}", *time,
            "" if row.params_saved is None else format_count(row.params_saved),
            "" if row.macs_saved is None else format_count(row.macs_saved),
        )  # fmt: skip
    return table


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
    value, low, high = row.saved_s, row.saved_lo_s, row.saved_hi_s
    if value is None or low is None or high is None:
        return "", ""
    return f"{value * 1e3:.3g}", f"[dim]{low * 1e3:.3g} to {high * 1e3:.3g}[/]"


def _print_untimed(console: Console, result: SensitivityResult) -> None:
    rows = [row for row in result.rows if row.val_acc_change is not None]
    untimed = sum(row.saved_s is None and row.reason is None for row in rows)
    if result.analysis.timing and untimed:
        console.print(
            f"[dim]{untimed} of {len(rows)} rows were not timed: all together would take more than "
            "two minutes, so one ratio of each group is[/]"
        )


def _print_flags(console: Console, rows: Sequence[SensitivityRow]) -> None:
    known = {**BLOCKING, **NOTES}
    for flag in sorted({flag for row in rows for flag in row.flags}):
        count = sum(flag in row.flags for row in rows)
        style = "red" if flag in BLOCKING else "dim"
        console.print(f"[{style}]{flag} ({count} of {len(rows)} rows): {known.get(flag, '')}[/]")

"""`harness leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import reported, stdout
from harness.quantity import INSTRUCTIONS, TIME
from harness.units import format_metric, format_metric_range, metric_words

if TYPE_CHECKING:
    from rich.console import Console

_REBUILD = "rebuild"
_FIGURES = ("latency, 95 %", "instructions, 95 %")


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "Examples: harness leaderboard --target cpu   |   harness leaderboard rebuild"
    app.command("leaderboard", epilog=example)(leaderboard)


def leaderboard(
    csv: Annotated[
        str | None,
        typer.Argument(
            metavar="[CSV|rebuild]",
            help="The table to show, or `rebuild` to write it anew from the records.",
            show_default="<results>/leaderboard.csv",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this task.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Only this target.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows to show.")] = 50,
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path("results"),
) -> None:
    """Show the leaderboard: best rank first, rows with a blocking flag dimmed."""
    with reported():
        from rich.markup import escape

        from harness_results import leaderboard as board

        console = stdout()
        if csv == _REBUILD:
            written = board.rebuild(results)
            where = escape(str(results / board.FILE))
            console.print(f"{where}: {len(written)} rows from the records")
            return
        path = Path(csv) if csv is not None else results / board.FILE
        table = board.read(path)
        chosen = [
            row
            for row in table
            if (task is None or row["task"] == task) and (target is None or row["target"] == target)
        ]
        chosen.sort(key=lambda row: (row["rank"] == "", float(row["rank"] or 0)))
        _print(console, chosen[:rows])
        more = f", {len(chosen) - rows} more with --rows" if len(chosen) > rows else ""
        where = escape(str(path))
        console.print(f"[dim]{len(chosen)} of {len(table)} rows of {where}{more}[/]")


def _print(console: Console, rows: list[dict[str, str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from harness.measurement.flags import is_blocked

    cells = [_cells(row) for row in rows]
    if not cells:
        return
    # What no row has is left out, and what all share is said once, so that the rest fits.
    shared = {
        name: cells[0][name]
        for name in ("task", "metric", "target", "budget", "study", "flags")
        if len({row[name] for row in cells}) == 1
    }
    said = ", ".join(f"{name} {value}" for name, value in shared.items() if value)
    if said:
        console.print(f"[dim]all rows: {escape(said)}[/]")
    table = Table(box=None, pad_edge=False, header_style="dim")
    empty = {name for name in _FIGURES if not any(row[name] for row in cells)}
    names = [name for name in cells[0] if name not in shared and name not in empty]
    for name in names:
        table.add_column(name, overflow="fold", justify="right" if name == "rank" else "left")
    for row, shown in zip(rows, cells, strict=True):
        style = "dim" if is_blocked(row["flags"].split()) else ""
        table.add_row(*(escape(shown[name]) for name in names), style=style)
    console.print(table)


def _cells(row: dict[str, str]) -> dict[str, str]:
    from harness_results.figures import COUNT_COLUMNS, TIME_COLUMNS

    return {
        "rank": row["rank"],
        "role": row["role"],
        "metric": metric_words(row["metric"]),
        "test split, 95 %": _test(row),
        "latency, 95 %": _interval(row, *TIME_COLUMNS, 1, f" {TIME.unit}", digits=3),
        "instructions, 95 %": _interval(row, *COUNT_COLUMNS, 1, f" {INSTRUCTIONS.unit}", digits=3),
        "of dense": _interval(row, "ratio_ref", "ratio_lo", "ratio_hi", 100, "%", digits=1),
        "in budget": {"true": "yes", "false": "no"}.get(row["feasible"], ""),
        "task": row["task"],
        "target": row["target"],
        "budget": f"{row['budget']} {row['statistic']}",
        "study": row["study"],
        "flags": row["flags"],
        "run": row["run_id"],
    }


def _test(row: dict[str, str]) -> str:
    if not row["test_acc"]:
        return ""
    value, low, high = (float(row[key]) for key in ("test_acc", "test_acc_lo", "test_acc_hi"))
    metric = row["metric"]
    return f"{format_metric(value, metric)} ({format_metric_range(low, high, metric)})"


def _interval(
    row: dict[str, str],
    key: str,
    lower: str,
    upper: str,
    factor: float,
    unit: str,
    digits: int,
) -> str:
    if not row[key]:
        return ""
    low, high = (f"{float(row[b]) * factor:.{digits}f}" if row[b] else "?" for b in (lower, upper))
    return f"{float(row[key]) * factor:.{digits}f}{unit} ({low} to {high})"

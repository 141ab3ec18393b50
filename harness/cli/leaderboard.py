"""`harness leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import reported, stdout

if TYPE_CHECKING:
    from rich.console import Console

_REBUILD = "rebuild"


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
        from harness_results import leaderboard as board

        console = stdout()
        if csv == _REBUILD:
            written = board.rebuild(results)
            console.print(f"{results / board.FILE}: {len(written)} rows from the records")
            return
        path = Path(csv) if csv is not None else results / board.FILE
        table = board.read(path)
        chosen = [
            row
            for row in table
            if (task is None or row["task"] == task) and (target is None or row["target"] == target)
        ]
        _print(console, chosen[:rows])
        more = f", {len(chosen) - rows} more with --rows" if len(chosen) > rows else ""
        console.print(f"[dim]{len(chosen)} of {len(table)} rows of {path}{more}[/]")


def _print(console: Console, rows: list[dict[str, str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from harness.measurement.flags import is_blocked

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("rank", "role", "task", "target", "budget", "test accuracy, 95 %",
                  "latency, 95 %", "of dense", "within", "flags", "study", "run"):  # fmt: skip
        table.add_column(title, no_wrap=True, justify="right" if title == "rank" else "left")
    for row in rows:
        cells = (
            row["rank"], row["role"], row["task"], row["target"],
            f"{row['budget']} {row['statistic']}",
            _interval(row, ("test_acc", "test_acc_lo", "test_acc_hi"), 100, " %", 2),
            _interval(row, ("latency_ms", "latency_lo_ms", "latency_hi_ms"), 1, " ms", 3),
            _interval(row, ("ratio_ref", "ratio_lo", "ratio_hi"), 100, " %", 1),
            {"true": "yes", "false": "no"}.get(row["feasible"], ""),
            row["flags"], row["study"], row["run_id"],
        )  # fmt: skip
        style = "dim" if is_blocked(row["flags"].split()) else ""
        table.add_row(*(escape(cell) for cell in cells), style=style)
    console.print(table)


def _interval(
    row: dict[str, str], keys: tuple[str, str, str], factor: float, unit: str, digits: int
) -> str:
    if not row[keys[0]]:
        return ""
    value, low, high = (
        f"{float(row[key]) * factor:.{digits}f}" if row[key] else "?" for key in keys
    )
    return f"{value}{unit} ({low} to {high})"

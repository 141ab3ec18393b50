"""The end of a compression, for a person to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from harness.measurement.flags import BLOCKING, NOTES, faults
from harness.quantity import emulation_note
from harness.units import (
    format_count,
    format_metric,
    format_metric_range,
    format_times,
    format_wall,
    metric_words,
)
from harness_results.compression_table import distrust, quotation, rows

if TYPE_CHECKING:
    from rich.console import Console

    from harness.api.compress import Compressed

_UNBOUNDED = 1000
"""Columns in which any table fits."""


def print_report(console: Console, done: Compressed) -> None:
    """Print what a compression did, and where everything is."""
    report = done.report
    blocked = faults(report.flags)
    text = quotation(report).replace("; ", "\n")
    note = emulation_note(report.target["emulated_cpu"])
    if note:
        text += f"\n{note}"
    if blocked:
        text += f"\n{distrust(report)}"
    title = ", ".join(step["name"] for step in report.steps)
    style = "yellow" if blocked else "green"
    console.print(Panel(escape(text), title=escape(title), border_style=style, expand=False))
    console.print(_steps(done))
    console.print()
    console.print(_table(done, console))
    figures, target, machine = (
        report.after["latency"], report.target, report.environment["machine"],
    )  # fmt: skip
    console.print(
        f"[dim]{figures['n_calls']} calls of each in {figures['n_processes']} fresh processes, "
        f"interleaved; {target['backend']} {target['backend_version']}, threads "
        f"{target['threads']}, batch {target['batch']}, {escape(str(machine['cpu_model']))} with "
        f"{machine['cpu_count']} cores; changes of the metric are paired; test split of "
        f"{report.before['scores']['test']['n']} samples read {format_times(report.test_reads)}[/]"
    )
    for flag in report.flags:
        console.print(f"[dim]{flag}: {escape({**BLOCKING, **NOTES}.get(flag, ''))}[/]")
    console.print(
        f"files   {escape(str(done.folder))}/  (model.onnx, weights.safetensors, "
        "run.py, table.md, compression.png, "
        "report.json)",
        soft_wrap=True,
    )


def _steps(done: Compressed) -> Table:
    """Return the steps, with the float32 network's validation score and size after each."""
    report, metric = done.report, done.report.task["metric"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("after step", overflow="fold", vertical="bottom")
    # The longest word of a header is as long as its cells: room is the steps' own.
    for title in (f"validation\n{metric_words(metric)},\nfloat32", "95 %", "parameters", "took"):
        table.add_column(title, no_wrap=True)
    for step in report.steps:
        score = step["validation"]
        table.add_row(
            escape(step["text"]), format_metric(score["value"], metric),
            f"[dim]{format_metric_range(score['lo'], score['hi'], metric)}[/]",
            format_count(step["params"]), format_wall(step["seconds"]),
        )  # fmt: skip
    return table


def _table(done: Compressed, console: Console) -> Table:
    """Return figures before and after; intervals have lines of their own where room is short."""
    whole = _rows(done, " (")
    needed = console.measure(whole, options=console.options.update_width(_UNBOUNDED)).maximum
    return whole if needed <= console.width else _rows(done, "\n(")


def _rows(done: Compressed, interval: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("95 % intervals", "before", "after", "change"):
        table.add_column(title, no_wrap=title != "95 % intervals")
    for row in rows(done.report):
        cells = (cell.replace(" (", interval) for cell in (row.before, row.after, row.change))
        table.add_row(row.name, *cells)
    return table

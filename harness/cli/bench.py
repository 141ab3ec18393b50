"""`harness bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import reported, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from harness.measurement.types import Estimate, Measurement
    from harness.target import Target


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", epilog="Example: harness bench model.onnx --target cpu")(bench)


def bench(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.")],
    target: Annotated[str, typer.Option("--target", help="Where to time.")] = "cpu",
    threads: Annotated[
        str | None, typer.Option("--threads", metavar="N", help="Threads of the runtime.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A target option, such as threads=2.")
    ] = None,
) -> None:
    """Time an ONNX file: latency with interval and percentiles, in five fresh processes or more.

    Inputs are random numbers of the shapes that the file states.
    """
    with reported():
        from harness.api import bench as run
        from harness.units import parse_count
        from harness_backends.targets import find_target

        options = list(settings or ())
        if threads is not None:
            options.append(f"threads={parse_count(threads, '--threads')}")
        where = find_target(target).with_settings(options)
        console = stdout()
        if console.is_terminal:
            with console.status(f"timing {model} in fresh processes"):
                measured = run(model, where)
        else:
            measured = run(model, where)
        _print(console, model, where, measured)


def _print(console: Console, path: Path, target: Target, measured: Measurement) -> None:
    from rich.markup import escape
    from rich.table import Table

    from harness.measurement.flags import BLOCKING, NOTES
    from harness.units import format_latency

    stats = measured.stats

    def cell(estimate: Estimate | None) -> str:
        if estimate is None:
            return ""
        low, high = format_latency(estimate.lo), format_latency(estimate.hi)
        return f"{format_latency(estimate.value)} ({low} to {high})"

    def raw(value: float | None) -> str:
        return "" if value is None else format_latency(value)

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("", "undisturbed calls, 95 % interval", "all calls"):
        table.add_column(title)
    table.add_row("p50", cell(stats.p50), raw(stats.p50_raw_s), style="bold")
    table.add_row("p90", cell(stats.p90), raw(stats.p90_raw_s))
    table.add_row("p99", cell(stats.p99), raw(stats.p99_raw_s))
    table.add_row("minimum", "", format_latency(stats.min_s))
    table.add_row("session creation", "", format_latency(stats.session_create_s))
    table.add_row("first inference", "", format_latency(stats.first_inference_s))
    console.print(f"[bold]{escape(str(path))}[/] on {escape(target.name)}")
    console.print(table)
    version = measured.environment.get("runtime_version", "")
    console.print(
        f"[dim]{stats.n_calls} calls in {stats.n_processes} fresh processes, "
        f"{stats.contended:.1%} of them preempted; {target.backend} {version}, threads "
        f"{target.threads}, inputs random; p50 is known to ±{stats.p50.half_width:.1%}[/]"
    )
    for flag in measured.flags:
        style = "red" if flag in BLOCKING else "dim"
        console.print(f"[{style}]{flag}: {({**BLOCKING, **NOTES})[flag]}[/]")

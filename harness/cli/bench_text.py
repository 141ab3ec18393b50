"""What `harness bench` prints for a person."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from harness.measurement.compare import Verdict, verdict
from harness.measurement.flags import BLOCKING, NOTES
from harness.quantity import TIME, emulation_note
from harness.units import format_latency, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from rich.console import Console

    from harness.api.bench import BenchResult, Timed
    from harness.measurement.server import ServerResult
    from harness.measurement.types import Estimate, OperatorTime, Spread, Startup
    from harness.quantity import Quantity
    from harness.target import Target
    from harness_backends.loadgen import LoadGenResult

_STYLES = {
    Verdict.FASTER: "green", Verdict.SLOWER: "red", Verdict.FEWER: "green", Verdict.MORE: "red",
    Verdict.NOT_RESOLVED: "yellow",
}  # fmt: skip
_TOP = 12
"""Nodes of a profile that are shown."""


def print_result(console: Console, result: BenchResult) -> None:
    """Print every model's figures, then how they compare."""
    for timed in result.models:
        _print_model(console, timed, result)
    for timed in result.models[1:]:
        _print_comparison(console, timed, result)
    first = result.models[0].measurement
    version = first.environment["runtime_version"]
    threads = f"{result.target.threads} thread{'s' if result.target.threads > 1 else ''}"
    console.print(
        f"[dim]{result.target.backend} {version} on {escape(result.target.name)} "
        f"({escape(str(result.machine['cpu_model']))}), {threads}; intervals are "
        f"{result.confidence:.0%}, over {_units(result)}[/]"
    )
    note = emulation_note(result.target.emulated_cpu)
    if note:
        console.print(f"[yellow]{escape(note)}[/]")
    if first.stats.n_processes == 1:
        console.print(
            "[yellow]one process: the intervals leave out what differs from process to process, "
            "some tenths of a per cent or more. Leave `--time` out for several.[/]"
        )
    print_flags(console, [flag for timed in result.models for flag in timed.measurement.flags])


def print_server(console: Console, path: Path, target: Target, served: ServerResult) -> None:
    """Print the tail latency under arriving requests."""
    console.print(
        f"[bold]{escape(str(path))}[/] on {escape(target.name)}, requests arriving at random, "
        f"{served.rate:g} per second on average"
    )
    table = _table(("", "from arrival to answer"))
    for name, label in (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9")):
        table.add_row(label, _interval(served.quantiles[name], TIME))
    console.print(table)
    console.print(
        f"[dim]{served.achieved:.4g} answered per second, busy {served.busy:.1%} of the time; "
        f"service alone {format_latency(served.service_p50_s)} (p50); {served.n_requests} requests "
        f"in {served.n_processes} fresh processes, intervals are 95 % over processes; not "
        "comparable with single-stream figures[/]"
    )
    print_flags(console, served.flags)


def print_profile(console: Console, nodes: Sequence[OperatorTime], result: BenchResult) -> None:
    """Print where the time of the first model goes, by the runtime's own profile."""
    typical = {node: _typical_s(node) for node in nodes}
    total = sum(typical.values())
    if not total:
        console.print("The runtime's profile has no operators.")
        return
    by_op: dict[str, list[float]] = {}
    for node, seconds in typical.items():
        by_op.setdefault(node.op, []).append(seconds)
    table = _table(("operator", "nodes", "per inference", "share"))
    for op, taken in sorted(by_op.items(), key=lambda item: -sum(item[1]))[:_TOP]:
        share = f"{sum(taken) / total:.1%}"
        table.add_row(escape(op), str(len(taken)), format_latency(sum(taken)), share)
    console.print(table)
    table = _table(("node", "operator", "per inference (middle half of runs)", "share"))
    for node in sorted(nodes, key=lambda node: -typical[node])[:_TOP]:
        low, _, high = statistics.quantiles(_steady(node), n=4)
        spread = f"({format_latency(low)} to {format_latency(high)})"
        table.add_row(
            escape(node.name), escape(node.op), f"{format_latency(typical[node])} {spread}",
            f"{typical[node] / total:.1%}",
        )  # fmt: skip
    console.print(table)
    p50 = result.models[0].measurement.stats.p50.value
    console.print(
        f"[dim]profile of {escape(str(result.models[0].model.path))} by the runtime, medians of "
        f"{len(_steady(nodes[0]))} runs; {len(nodes)} nodes take {format_latency(total)} in all, "
        f"against a p50 of {format_latency(p50)} timed without the profiler[/]"
    )


def print_referee(console: Console, judged: LoadGenResult, result: BenchResult) -> None:
    """Print LoadGen's figures beside ours."""
    stats = result.models[0].measurement.stats
    table = _table(("all calls", "MLPerf LoadGen", "harness", "LoadGen / harness"))
    for name, theirs, ours in (
        ("p50", judged.p50_s, stats.p50_raw), ("p90", judged.p90_s, stats.p90_raw),
        ("p99", judged.p99_s, stats.p99_raw),
    ):  # fmt: skip
        ratio = "" if ours is None else f"{theirs / ours:.3f}"
        table.add_row(name, _raw(theirs, TIME), _raw(ours, TIME), ratio)
    console.print(table)
    console.print(
        f"[dim]LoadGen {judged.version}, SingleStream, {judged.n_queries} queries in one process, "
        f"its verdict: {escape(judged.verdict)}; it states no interval, so the ratios have none. "
        "Both columns are over all calls, preempted ones too[/]"
    )


def print_flags(console: Console, flags: Iterable[str]) -> None:
    """Print each flag once, blocking ones first."""
    for flag in sorted(set(flags), key=lambda flag: (flag not in BLOCKING, flag)):
        style = "red" if flag in BLOCKING else "dim"
        console.print(f"[{style}]{flag}: {({**BLOCKING, **NOTES})[flag]}[/]")


def _print_model(console: Console, timed: Timed, result: BenchResult) -> None:
    stats, startup = timed.measurement.stats, timed.measurement.startup
    shapes = ", ".join(
        f"{s.name} {'x'.join(map(str, s.shape))} {s.dtype}, fed {s.fed}" for s in timed.inputs
    )
    console.print(f"[bold]{escape(str(timed.model.path))}[/] [dim]{escape(shapes)}[/]")
    quantity = stats.quantity
    timed_calls = quantity is TIME
    table = _table(
        ("", "undisturbed calls", "all calls") if timed_calls else ("", quantity.noun, "all calls")
    )
    for name, title in (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9")):
        own, raw = getattr(stats, name), getattr(stats, f"{name}_raw")
        style = "bold" if name == "p50" else ""
        table.add_row(title, _interval(own, quantity), _raw(raw, quantity), style=style)
    table.add_row("minimum", "", quantity.show(stats.least))
    if timed.throughput is not None:
        per_s = timed.throughput.per_s
        table.add_row(
            f"throughput, batch {timed.throughput.batch}", "",
            f"{per_s.value:.4g} ({per_s.lo:.4g} to {per_s.hi:.4g}) samples/s", style="bold",
        )  # fmt: skip
    if startup is not None:
        _print_startup(table, startup)
    console.print(table)
    preempted = f", {stats.contended:.1%} of them preempted," if timed_calls else ""
    console.print(
        f"[dim]{stats.n_calls} calls{preempted} in "
        f"{stats.n_sittings} sittings and {_processes(stats.n_processes)}; p50 is known to "
        f"±{stats.p50.half_width:.1%}[/]"
    )


def _print_startup(table: Table, startup: Startup) -> None:
    def cell(spread: Spread, form: Callable[[float], str]) -> str:
        low, high = form(spread.lowest), form(spread.highest)
        return f"{form(spread.median)} (lowest {low}, highest {high})"

    title = f"of {startup.n_processes} starts:"
    table.add_row(f"{title} session creation", cell(startup.session_create_s, format_latency))
    table.add_row(f"{title} first inference", cell(startup.first_inference_s, format_latency))
    if startup.peak_memory_bytes is not None:
        text = cell(startup.peak_memory_bytes, format_size)
        table.add_row(f"{title} peak memory of the process", text)


def _print_comparison(console: Console, timed: Timed, result: BenchResult) -> None:
    first = result.models[0].model.path
    ratio = timed.measurement.stats.ratio("p50")
    quantity = result.target.quantity
    word = verdict(ratio, quantity)
    what = "time" if quantity is TIME else quantity.noun
    console.print(
        f"[bold]{escape(str(timed.model.path))}[/] takes [bold]{ratio.value:.3f}[/] of the {what} "
        f"of {escape(str(first))} ({ratio.lo:.3f} to {ratio.hi:.3f}): "
        f"[bold {_STYLES[word]}]{word}[/]"
    )
    if timed.throughput is not None and timed.throughput.ratio is not None:
        more = timed.throughput.ratio
        console.print(f"  throughput {more.value:.3f} of its ({more.lo:.3f} to {more.hi:.3f})")


def _units(result: BenchResult) -> str:
    stats = result.models[0].measurement.stats
    return "sittings" if stats.n_processes == 1 else f"{stats.n_processes} fresh processes"


def _processes(count: int) -> str:
    return "one fresh process" if count == 1 else f"{count} fresh processes"


def _table(titles: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        table.add_column(title)
    return table


def _interval(estimate: Estimate | None, quantity: Quantity) -> str:
    if estimate is None:
        return ""
    return quantity.interval((estimate.value, estimate.lo, estimate.hi))


def _raw(value: float | None, quantity: Quantity) -> str:
    return "" if value is None else quantity.show(value)


def _steady(node: OperatorTime) -> tuple[float, ...]:
    """Return the runs after the warm-up: the last five sixths."""
    return node.runs_s[len(node.runs_s) // 6 :]


def _typical_s(node: OperatorTime) -> float:
    return statistics.median(_steady(node))

"""`harness doctor`."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.console import reported, stderr, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from harness.api.doctor import Examination
    from harness.measurement.granule import WidthCurve

_UNFIT = 4
SHOWN_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8",
               "asimd", "asimddp", "i8mm", "sve", "bf16")  # fmt: skip
"""Instruction sets that matter to a runtime's kernels."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", epilog="Example: harness doctor --plot widths.png")(doctor)


def doctor(
    target: Annotated[str, typer.Option("--target", help="What to examine.")] = "cpu",
    threads: Annotated[
        str | None, typer.Option("--threads", metavar="N", help="Threads of the runtime.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A target option, such as affinity=1.")
    ] = None,
    pairs: Annotated[
        int, typer.Option(min=2, max=1000, help="Pairs of identical models, 3 s each.")
    ] = 20,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency against width into this PNG or SVG.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of timing.")] = 0,
) -> None:
    """Say what this machine resolves, and what stands in the way.

    Compares identical models, and models with a slow-down planted; reads timer, governor, heat,
    load and steal; times operators at several widths to find the granule, and remembers it for the
    search. Takes about two minutes. Ends with exit code 4 if the machine is unfit.
    """
    with reported():
        from harness.api.doctor import Fitness, examine
        from harness.api.target import chosen_target
        from harness.cli.bench_files import check_writable

        where = chosen_target(target, threads, settings)
        check_writable(plot, (".png", ".svg"))
        with _progress() as on_step:
            found = examine(where, pairs=pairs, on_step=on_step, seed=seed)
        if json:
            sys.stdout.write(jsonlib.dumps(_as_json(found), indent=1, allow_nan=False) + "\n")
        else:
            _print(stdout(), found)
        if plot is not None:
            from harness_results.widths import draw_widths

            draw_widths(plot, found.granules, found.target.name)
        if found.fitness is Fitness.UNFIT:
            raise typer.Exit(_UNFIT)


def _progress() -> Any:
    from contextlib import contextmanager

    from rich.progress import Progress

    @contextmanager
    def shown() -> Iterator[Any]:
        console = stderr()
        # Repainting often would take the CPU from what is timed.
        off = not console.is_terminal
        with Progress(console=console, disable=off, refresh_per_second=1) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            )

    return shown()


def _print(console: Console, found: Examination) -> None:
    import numpy as np
    from rich.markup import escape

    from harness_search.granule import FALLBACK

    machine, test = found.facts["machine"], found.test
    _heading(console, "machine")
    flags = [name for name in SHOWN_FLAGS if name in machine["cpu_flags"]]
    console.print(
        f"  {escape(str(machine['cpu_model']))}, {machine['cpu_count']} CPUs, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB; {', '.join(flags) or 'no known ISA flags'}"
    )
    console.print(
        f"  {found.target.backend} {found.facts['runtime_version']}, threads "
        f"{found.target.threads}, fingerprint {found.fingerprint}"
    )
    for line in _state_lines(found.before, found.after):
        console.print(f"  {line}")
    timer = found.facts.get("timer", {})
    if timer:
        console.print(
            f"  clock: smallest step {timer['resolution_ns']} ns; timing adds "
            f"{timer['overhead_ns']:.0f} ns to each call"
        )
    _heading(console, f"what it resolves, pairs of {test.seconds:g} s")
    alarms, seen = test.false_alarms, test.found
    console.print(
        f"  identical models: called different in {alarms.count} of {alarms.of} pairs "
        f"(share at most {alarms.hi:.0%}, 95 %)"
    )
    console.print(
        f"  slow-down of {test.planted - 1:.0%} planted: found in {seen.count} of {seen.of} "
        f"(share at least {seen.lo:.0%}, 95 %)"
    )
    low, high = np.quantile(test.half_widths, (0.25, 0.75))
    console.print(
        f"  a ratio is known to ±{test.half_width:.2%} after {test.seconds:g} s (middle half of "
        f"the pairs: {low:.2%} to {high:.2%}), so that differences of {test.resolves:.1%} are "
        "resolved in nine of ten measurements"
    )
    if test.resolves:
        finer = 0.01 if test.resolves > 0.01 else test.resolves / 2
        console.print(
            f"  {finer:.1%} would take about {test.seconds_for(finer):.0f} s [dim](extrapolated)[/]"
        )
    _heading(console, "granule: the steps of channel counts that the runtime rewards")
    for curve in found.granules.curves:
        console.print(f"  {_curve_line(curve)}")
    if found.granules.granule is None:
        console.print(f"  inconclusive: a search uses {FALLBACK}; `--set granule=N` sets it")
    else:
        set_to = found.target.granule
        used = "a search on this target uses it" if set_to is None else f"the target sets {set_to}"
        console.print(f"  [bold]{found.granules.granule}[/] for all together; {used}")
    _heading(console, "verdict")
    _print_verdict(console, found)


def _print_verdict(console: Console, found: Examination) -> None:
    from harness.api.doctor import Fitness

    styles = {Fitness.FIT: "bold green", Fitness.CARE: "bold yellow", Fitness.UNFIT: "bold red"}
    style = styles[found.fitness]
    console.print(
        f"  [{style}]{found.fitness}[/]: this machine resolves {found.test.resolves:.1%} in "
        f"{found.test.seconds:g} s"
    )
    for finding in found.findings:
        console.print(f"  [{styles[finding.fitness]}]-[/] {finding.what}. {finding.remedy}")


def _heading(console: Console, text: str) -> None:
    console.print(f"[bold]{text}[/]")


def _state_lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    from harness.measurement.flags import stolen_share, waiting_share

    def shown(name: str, form: str) -> str:
        values = [state.get(name) for state in (before, after)]
        known = [form.format(value) for value in values if value is not None]
        return " then ".join(dict.fromkeys(known)) or "unknown"

    def share(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.1%}"

    stolen, waiting = stolen_share(before, after), waiting_share(before, after)
    khz = before.get("max_khz")
    limit = "unknown" if khz is None else f"{khz / 1e6:.2f} GHz"
    return [
        f"governor {shown('governor', '{}')}, clock limit {limit}, temperature "
        f"{shown('temperature_c', '{:.0f} °C')}, throttled {shown('throttle_count', '{} times')}",
        f"load {shown('load_1min', '{:.2f}')}, stolen by the hypervisor {share(stolen)}, "
        f"processes waiting for a CPU {share(waiting)} of the time",
    ]  # fmt: skip


def _curve_line(curve: WidthCurve) -> str:
    times = ", ".join(
        f"{width}: {ratio.value:.2f}"
        for width, ratio in zip(curve.widths, curve.ratios, strict=True)
    )
    granule = "unclear" if curve.granule is None else str(curve.granule)
    return (
        f"{curve.operator:<10} {granule:>7}  [dim]time relative to {curve.widths[-1]}: {times}[/]"
    )


def _as_json(found: Examination) -> dict[str, Any]:
    from dataclasses import asdict

    from harness.provenance import now_utc

    return {
        "schema": 1,
        "command": "doctor",
        "date_utc": now_utc(),
        "target": found.target.options(),
        "fingerprint": found.fingerprint,
        "facts": dict(found.facts),
        "before": dict(found.before),
        "after": dict(found.after),
        "test": {**asdict(found.test), "half_width": found.test.half_width,
                 "resolves": found.test.resolves},
        "granule": found.granules.granule,
        "curves": [asdict(curve) for curve in found.granules.curves],
        "fitness": str(found.fitness),
        "findings": [asdict(finding) for finding in found.findings],
    }  # fmt: skip

"""`harness bench`: parse and dispatch; what is printed is in `bench_text` and `bench_files`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import reported, stderr, stdout

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from harness.api.bench import BenchResult
    from harness.cli.bench_files import Files
    from harness.target import Target


class Scenario(StrEnum):
    """What is asked of a model."""

    SINGLE_STREAM = "single-stream"
    OFFLINE = "offline"
    SERVER = "server"


class Referee(StrEnum):
    """Another tool that times the same model."""

    LOADGEN = "loadgen"


class Form(StrEnum):
    """How results are printed."""

    TEXT = "text"
    TABLE = "table"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = (
        "Examples: harness bench model.onnx   |   harness bench before.onnx after.onnx   |   "
        "harness bench model.onnx --scenario server --rate 200"
    )
    app.command("bench", epilog=example)(bench)


def bench(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL.onnx...", help="ONNX files; ratios to the first.")
    ],
    target: Annotated[str, typer.Option("--target", help="Where to time.")] = "cpu",
    threads: Annotated[
        str | None, typer.Option("--threads", metavar="N", help="Threads of the runtime.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A target option, such as threads=2 or shapes.input=1x3x32x32."),
    ] = None,
    scenario: Annotated[
        Scenario, typer.Option(help="One call after the other, whole batches, or random arrivals.")
    ] = Scenario.SINGLE_STREAM,
    rate: Annotated[
        float | None, typer.Option(help="Server scenario: mean requests per second.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="About so long, such as 3s, in one process; else until within 1 %."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also the runtime's own time per operator.")
    ] = False,
    referee: Annotated[
        Referee | None, typer.Option(help="Also time the first model with MLPerf LoadGen.")
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Print a Markdown table instead of text.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw histogram and run order into this PNG or SVG.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Keep every timed call in this npz file.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of timing.")] = 0,
) -> None:
    """Time ONNX files: one alone, or several against the first, interleaved.

    One file: latency with interval, percentiles, start-up and memory, in five fresh processes or
    more. Several: also the ratio to the first with its interval, and one of the words faster,
    slower, not resolved. Floating inputs are fed random numbers, others zeros. On an emulated
    target instructions are counted, in three processes or more.
    """
    with reported():
        from harness.api import bench as api
        from harness.api import single
        from harness.api.target import chosen_target
        from harness.cli import bench_files
        from harness.units import parse_wall_s

        where = chosen_target(target, threads, settings)
        seconds = None if time is None else parse_wall_s(time)
        more = json or profile or referee is not None
        _check(models, scenario, rate, profile, referee, table and more)
        files = bench_files.Files(samples, plot)
        files.check()
        form = Form.JSON if json else Form.TABLE if table else Form.TEXT
        if scenario is Scenario.SERVER:
            assert rate is not None  # checked above
            _serve(models[0], where, rate, seconds or 3.0, seed, form, files)
            return
        if profile:
            single.check_profile(where)  # before the work
        if referee:
            single.check_loadgen(where)
        offline = scenario is Scenario.OFFLINE
        result = _while_waiting(
            models,
            lambda: api.bench(models, where, seconds=seconds, offline=offline, seed=seed),
            where.quantity.doing,
        )
        files.keep(result)
        _show(result, form, profile, referee is not None)


def _serve(
    path: Path, where: Target, rate: float, seconds: float, seed: int, form: Form, files: Files
) -> None:
    from harness.api import single
    from harness.cli import bench_files, bench_text

    served = _while_waiting(
        [path], lambda: single.serve(path, where, rate, seconds=seconds, seed=seed)
    )
    files.keep_server(served, path)
    if form is Form.JSON:
        bench_files.print_json(bench_files.server_as_json(path, where, served))
    elif form is Form.TABLE:
        bench_files.print_server_table(served)
    else:
        bench_text.print_server(stdout(), path, where, served)


def _show(result: BenchResult, form: Form, profile: bool, referee: bool) -> None:
    """Print a result; what is there is shown before more is asked of the first file."""
    from harness.api import single
    from harness.cli import bench_files, bench_text

    console, path = stdout(), result.models[0].model.path
    if form is Form.TABLE:
        bench_files.print_table(result)
    elif form is Form.TEXT:
        bench_text.print_result(console, result)
    nodes = single.profile(path, result.target) if profile else None
    if nodes is not None and form is Form.TEXT:
        bench_text.print_profile(console, nodes, result)
    judged = single.loadgen(path, result.target) if referee else None
    if judged is not None and form is Form.TEXT:
        bench_text.print_referee(console, judged, result)
    if form is Form.JSON:
        bench_files.print_json(bench_files.as_json(result, nodes, judged))


def _check(
    models: list[Path],
    scenario: Scenario,
    rate: float | None,
    profile: bool,
    referee: Referee | None,
    two_outputs: bool,
) -> None:
    from harness.errors import ConfigError

    if two_outputs:
        raise ConfigError(
            "`--table` prints one table: leave `--json`, `--profile` and `--referee` out, or it."
        )
    if scenario is not Scenario.SERVER:
        if rate is not None:
            raise ConfigError("`--rate` belongs to `--scenario server`. Add that, or leave it out.")
        return
    if rate is None or not 0 < rate < float("inf"):
        raise ConfigError(
            "`--scenario server` needs `--rate`, requests per second above zero, such as "
            f"`--rate 200`. Received: {rate}."
        )
    if len(models) > 1 or profile or referee:
        raise ConfigError(
            "`--scenario server` times one model at a time, without `--profile` and `--referee`. "
            f"Received: {len(models)} models."
        )


def _while_waiting(models: list[Path], run: Callable[[], Any], doing: str = "timing") -> Any:
    console = stderr()
    if not console.is_terminal:
        return run()
    what = ", ".join(path.name for path in models)
    # Repainting often would take the CPU from what is timed.
    with console.status(f"{doing} {what} in fresh processes", refresh_per_second=1):
        return run()

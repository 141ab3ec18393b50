"""`harness search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import reported, stdout
from harness.cli.target import chosen_target

if TYPE_CHECKING:
    from harness_search.settings import Settings

Targets = Annotated[str, typer.Option("--target", help="Where to time; see `harness targets`.")]
Budgets = Annotated[
    str, typer.Option("--budget", help="10ms, 800us, 50% of the dense model; or a list: 30%,50%.")
]
Tasks = Annotated[str, typer.Option("--task", help="Model and data; see `harness tasks`.")]
Trials = Annotated[
    str | None,
    typer.Option("--trials", metavar="N", help="Trials in all; without --time, no time limit."),
]
Time = Annotated[
    str | None, typer.Option("--time", help="Wall time in all: 90s, 3min, 2h.", show_default="3min")
]
Seed = Annotated[
    str, typer.Option("--seed", metavar="N", help="Of sampler, training and timing order.")
]
Study = Annotated[
    str | None,
    typer.Option(
        "--study", help="Name; running it again resumes it.", show_default="from the rest"
    ),
]
Statistic = Annotated[
    str | None,
    typer.Option("--statistic", help="p50 or p90.", show_default="p50 for shares, p90 for times"),
]
MaxDrop = Annotated[
    str | None,
    typer.Option("--max-drop", help="Take the fastest that loses at most, such as 1pt."),
]
MaxSize = Annotated[str | None, typer.Option("--max-size", help="Limit of the file, such as 2MB.")]
Layers = Annotated[str | None, typer.Option("--layers", help="Prune only these groups: a,b.")]
Exclude = Annotated[str | None, typer.Option("--exclude", help="Leave these groups whole: a,b.")]
Threads = Annotated[
    str | None, typer.Option("--threads", metavar="N", help="Threads of the runtime.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="A target option, such as granule=8.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what it would do, and stop.")]
Remeasure = Annotated[
    bool, typer.Option("--remeasure", help="Resume on a changed machine: time everything again.")
]
Results = Annotated[Path, typer.Option("--results", help="Results folder.")]

_EPILOG = (
    "Example: harness search --target cpu --budget 50%   |   Exit codes: 0 a feasible model was "
    "found, 1 none was, 2 usage or bad input, 3 too little measured, 5 a failure, 75 the study is "
    "in use, 130 interrupted."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("search", epilog=_EPILOG)(search)


def search(
    target: Targets,
    budget: Budgets,
    task: Tasks = "digits",
    trials: Trials = None,
    time: Time = None,
    seed: Seed = "0",
    study: Study = None,
    statistic: Statistic = None,
    max_drop: MaxDrop = None,
    max_size: MaxSize = None,
    layers: Layers = None,
    exclude: Exclude = None,
    threads: Threads = None,
    settings: Set = None,
    dry_run: DryRun = False,
    remeasure: Remeasure = False,
    results: Results = Path("results"),
) -> None:
    """Search for the most accurate network whose measured latency is within a budget.

    Every candidate is really pruned, exported to ONNX and timed on the target before any training
    is spent on it. Re-running an interrupted search resumes it.
    """
    resume = "Interrupted. All finished trials are kept; the same command goes on from there."
    with reported(resume):
        asked = _settings(
            target, budget, task, trials, time, seed, study, statistic, max_drop, max_size, layers,
            exclude, settings or [], threads, results,
        )  # fmt: skip
        if dry_run:
            _dry_run(asked)
            return
        from harness.cli.progress import shown_progress
        from harness.cli.summary import print_summary
        from harness_search.engine import search as run

        with shown_progress() as progress:
            result = run(asked, progress, remeasure)
        print_summary(stdout(), asked, result)
        raise typer.Exit(result.exit_code)


def _settings(
    target: str, budget: str, task: str, trials: str | None, time: str | None, seed: str,
    study: str | None, statistic: str | None, max_drop: str | None, max_size: str | None,
    layers: str | None, exclude: str | None, options: list[str], threads: str | None, results: Path,
) -> Settings:  # fmt: skip
    from harness.budget import parse_budgets
    from harness.tasks import task_class
    from harness.units import parse_count, parse_points, parse_size_bytes, parse_wall_s
    from harness_backends.registry import open_backend
    from harness_search.settings import DEFAULT_TIME_S, Settings, check_study_name

    if study is not None:
        check_study_name(study)
    n_trials = None if trials is None else parse_count(trials, "--trials")
    if time is not None:
        time_s: float | None = parse_wall_s(time)
    else:
        time_s = None if trials is not None else DEFAULT_TIME_S
    asked = Settings(
        target=chosen_target(target, threads, options),
        budgets=parse_budgets(budget, statistic),
        task=task, trials=n_trials, time_s=time_s, study=study,
        seed=parse_count(seed, "--seed", least=0),
        max_drop=None if max_drop is None else parse_points(max_drop),
        max_size_bytes=None if max_size is None else parse_size_bytes(max_size),
        layers=_names(layers), exclude=_names(exclude), results=results,
    )  # fmt: skip
    open_backend(asked.target)
    task_class(task)
    return asked


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _dry_run(asked: Settings) -> None:
    from harness.cli.dryrun import print_plan
    from harness.cli.progress import shown_progress
    from harness_search.plan import plan

    with shown_progress() as progress:
        planned = plan(asked, progress)
    print_plan(stdout(), asked, planned)
    raise typer.Exit(0 if any(planned.reachable) else 1)

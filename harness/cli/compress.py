"""`harness compress`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import reported, stdout
from harness.cli.search import (
    Augment,
    Coreset,
    Data,
    Fraction,
    Loss,
    Metric,
    Name,
    RecipeValues,
    Results,
    Seed,
    Set,
    Targets,
    Tasks,
    Text,
    Threads,
    Trained,
    Weights,
)

if TYPE_CHECKING:
    from harness.api.options import SearchOptions

Model = Annotated[
    Text, typer.Argument(metavar="MODEL", help="Your network, as `harness search --model` takes.")
]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--step", metavar="STEP",
        help="NAME or NAME:KEY=VALUE,...; give it several times, in order. `harness steps` lists "
        "them.",
    ),
]  # fmt: skip
Run = Annotated[
    Text,
    typer.Option("--run", help="Name; running it again resumes it.", show_default="from the rest"),
]

Remeasure = Annotated[
    bool,
    typer.Option(
        "--remeasure", help="Time a finished compression again, such as after a disturbed timing."
    ),
]

_EPILOG = (
    "Examples: harness compress resnet20 --weights resnet20.safetensors --data "
    "train=train.parquet,test=test.parquet --step prune:params=50% --step distil:epochs=10 --step "
    "int8   |   Exit codes: 0 measured, 2 usage or bad input, 3 the measurement can't be trusted, "
    "5 a failure, 75 in use, 130 interrupted."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compress", epilog=_EPILOG)(compress)


def compress(
    model: Model = None,
    step: Steps = None,
    task: Tasks = None,
    weights: Weights = None,
    trained: Trained = False,
    data: Data = None,
    target: Targets = None,
    name: Name = None,
    loss: Loss = None,
    metric: Metric = None,
    augment: Augment = None,
    recipe: RecipeValues = None,
    train_fraction: Fraction = None,
    coreset: Coreset = None,
    seed: Seed = None,
    run: Run = None,
    threads: Threads = None,
    settings: Set = None,
    remeasure: Remeasure = False,
    results: Results = None,
) -> None:
    """Apply compression steps to a trained network, and measure it before and after.

    Steps are applied in the order given. Re-running an interrupted compression resumes it, within
    a training, too.
    """
    given: SearchOptions = {
        "task": task, "target": target, "weights": weights, "name": name, "loss": loss,
        "metric": metric, "augment": augment, "recipe": recipe or (),
        "train_fraction": train_fraction, "coreset": coreset, "threads": threads,
        "settings": settings or (), "remeasure": remeasure,
    }  # fmt: skip
    if trained:  # left out, a task file decides
        given["trained"] = True
    if seed is not None:
        given["seed"] = seed
    if results is not None:
        given["results"] = results
    resume = "Interrupted. What is done is kept; the same command goes on from there."
    with reported(resume):
        from harness.api.compress import compress as run_steps
        from harness.cli.compress_text import print_report
        from harness.cli.progress import shown_progress
        from harness.measurement.flags import faults

        with shown_progress() as progress:
            given["progress"] = progress
            done = run_steps(model, data, steps=step or (), run=run, **given)
        print_report(stdout(), done)
        raise typer.Exit(3 if faults(done.report.flags) else 0)

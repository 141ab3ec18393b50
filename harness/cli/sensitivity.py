"""`harness sensitivity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import reported, stdout
from harness.cli.search import (
    Augment,
    Data,
    Exclude,
    Layers,
    Loss,
    Metric,
    Model,
    Name,
    RecipeValues,
    Remeasure,
    Results,
    Seed,
    Set,
    Study,
    Targets,
    Tasks,
    Text,
    Threads,
    Trained,
    Weights,
)

if TYPE_CHECKING:
    from harness.api.sensitivity import SensitivityOptions

Ratios = Annotated[
    Text,
    typer.Option(
        "--ratios", help="Shares of channels to remove from each group.",
        show_default="25%,50%,75%",
    ),
]  # fmt: skip
Criterion = Annotated[
    Text,
    typer.Option(
        "--criterion",
        help="Which channels go: l2, l1, bn_scale, taylor, activation, fpgm.",
        show_default="l2",
    ),
]
Samples = Annotated[
    Text,
    typer.Option("--samples", metavar="N", help="Validation samples.", show_default="2000"),
]
NoTiming = Annotated[bool, typer.Option("--no-timing", help="Leave out the time saved.")]
Sort = Annotated[
    str,
    typer.Option(
        "--sort", help="cost (rise of the loss per ms or Minstr saved) or network (its order)."
    ),
]  # fmt: skip

_EPILOG = (
    "Examples: harness sensitivity --target cpu   |   harness sensitivity --model resnet20 "
    "--weights resnet20.safetensors --data train=train.parquet,test=test.parquet --ratios 50%   |  "
    " Exit codes: 0 something was measured, 2 usage or bad input, 3 nothing was measured, 5 a "
    "failure, 75 in use, 130 interrupted."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sensitivity", epilog=_EPILOG)(sensitivity)


def sensitivity(
    target: Targets = None,
    task: Tasks = None,
    model: Model = None,
    weights: Weights = None,
    trained: Trained = False,
    data: Data = None,
    name: Name = None,
    loss: Loss = None,
    metric: Metric = None,
    augment: Augment = None,
    recipe: RecipeValues = None,
    ratios: Ratios = None,
    criterion: Criterion = None,
    samples: Samples = None,
    no_timing: NoTiming = False,
    sort: Sort = "cost",
    seed: Seed = None,
    study: Study = None,
    layers: Layers = None,
    exclude: Exclude = None,
    threads: Threads = None,
    settings: Set = None,
    remeasure: Remeasure = False,
    results: Results = None,
) -> None:
    """Prune group by group, each alone, and show what that costs and saves; blocks likewise.

    Nothing is trained after pruning, batch norms included. Running the same command again goes
    on where it stopped, tries again what failed or was disturbed, and adds ratios that are new.
    """
    given: SensitivityOptions = {
        "task": task, "target": target, "weights": weights, "name": name, "loss": loss,
        "metric": metric, "augment": augment, "recipe": recipe or (), "ratios": ratios,
        "criterion": criterion, "samples": samples, "timing": not no_timing, "study": study,
        "layers": layers or (), "exclude": exclude or (), "threads": threads,
        "settings": settings or (), "remeasure": remeasure,
    }  # fmt: skip
    if trained:  # left out, a task file decides
        given["trained"] = True
    if seed is not None:
        given["seed"] = seed
    if results is not None:
        given["results"] = results
    resume = "Interrupted. All finished rows are kept; the same command goes on from there."
    with reported(resume):
        _check_sort(sort)
        from harness.api.sensitivity import sensitivity as run
        from harness.cli.progress import shown_progress
        from harness.cli.sensitivity_text import SensitivityProgress, print_sensitivity

        with shown_progress(SensitivityProgress) as progress:
            given["progress"] = progress
            result = run(model, data, **given)
        print_sensitivity(stdout(), result, by_cost=sort == "cost")
        raise typer.Exit(result.exit_code)


def _check_sort(sort: str) -> None:
    from harness.errors import ConfigError

    if sort not in ("cost", "network"):
        raise ConfigError(f"`--sort` must be 'cost' or 'network'. Received: {sort!r}.")

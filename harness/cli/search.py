"""`harness search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import reported, stdout

if TYPE_CHECKING:
    from harness.api.options import SearchOptions

Text = str | None
Tasks = Annotated[
    Text,
    typer.Option(
        "--task", help="A shipped task (`harness tasks`) or FILE.toml (`harness init`).",
        show_default="digits",
    ),
]  # fmt: skip
Model = Annotated[
    Text,
    typer.Option(
        "--model", metavar="SPEC",
        help="Your network: FILE.py:factory, pkg.module:factory, onnx:FILE, timm:NAME, "
        "torchvision:NAME, or a shipped one (`harness models`).",
    ),
]  # fmt: skip
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Its trained weights: .safetensors, .pt, .pth.")
]
Trained = Annotated[
    bool, typer.Option("--trained", help="The factory's network is trained already: keep it.")
]
Data = Annotated[
    Text,
    typer.Option(
        "--data", metavar="SPEC",
        help="Your samples: a folder of images by class, FILE.parquet, FILE.npz, FILE.csv, "
        "fashion-mnist, FILE.py:factory; or train=A,val=B,test=C; options as ,key=value.",
    ),
]  # fmt: skip
Name = Annotated[
    Text,
    typer.Option(
        "--name", help="Of the task, in names of studies.", show_default="from model and data"
    ),
]
Loss = Annotated[
    Text, typer.Option("--loss", help="mse, mae, huber for values; or FILE.py:function.")
]
Metric = Annotated[
    Text,
    typer.Option(
        "--metric", help="balanced_accuracy, f1_macro, r2, ...; or FILE.py:function.",
        show_default="accuracy, or r2 for values",
    ),
]  # fmt: skip
Augment = Annotated[
    Text, typer.Option("--augment", help="Of training images: flip, shift, cutout, joined by +.")
]
RecipeValues = Annotated[
    list[str] | None,
    typer.Option("--recipe", metavar="KEY=VALUE", help="Training, such as trial_epochs=3."),
]
Fraction = Annotated[
    Text,
    typer.Option("--train-fraction", help="Share of the training split candidates learn from."),
]
Coreset = Annotated[
    Text, typer.Option("--coreset", help="How that share is chosen: random, k-center, herding.")
]
Targets = Annotated[
    Text,
    typer.Option("--target", help="Where to time; see `harness targets`.", show_default="cpu"),
]
Budgets = Annotated[
    Text,
    typer.Option(
        "--budget",
        help="10ms, 800us, 50% of the dense model, emulated 80Minstr; or a list: 30%,50%.",
    ),
]
Trials = Annotated[
    Text,
    typer.Option("--trials", metavar="N", help="Trials in all; without --time, no time limit."),
]
Time = Annotated[
    Text, typer.Option("--time", help="Wall time in all: 90s, 3min, 2h.", show_default="3min")
]
Seed = Annotated[
    Text,
    typer.Option(
        "--seed", metavar="N", help="Of sampler, training and timing order.", show_default="0"
    ),
]
Study = Annotated[
    Text,
    typer.Option(
        "--study", help="Name; running it again resumes it.", show_default="from the rest"
    ),
]
Statistic = Annotated[
    Text,
    typer.Option("--statistic", help="p50 or p90.", show_default="p50 for shares, p90 for times"),
]
MaxDrop = Annotated[
    Text, typer.Option("--max-drop", help="Take the fastest that loses at most, such as 1pt.")
]
MaxSize = Annotated[Text, typer.Option("--max-size", help="Limit of the file, such as 2MB.")]
Layers = Annotated[Text, typer.Option("--layers", help="Prune only these groups: a,b.")]
Exclude = Annotated[Text, typer.Option("--exclude", help="Leave these groups whole: a,b.")]
Blocks = Annotated[
    Text,
    typer.Option(
        "--blocks", metavar="NAMES", help="Residual blocks that may be left out: a,b; or none.",
        show_default="all that can be",
    ),
]  # fmt: skip
Precisions = Annotated[
    Text,
    typer.Option(
        "--precision", metavar="NAMES", help="fp32, int8, fp16, int8-dynamic, joined by commas.",
        show_default="those that the target may gain from",
    ),
]  # fmt: skip
Sensitivity = Annotated[
    Path | None,
    typer.Option(
        "--sensitivity", metavar="CSV", help="A table of `harness sensitivity`, to start from."
    ),
]
Threads = Annotated[Text, typer.Option("--threads", metavar="N", help="Threads of the runtime.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A target option, such as granule=8.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what it would do, and stop.")]
Remeasure = Annotated[
    bool, typer.Option("--remeasure", help="Resume on a changed machine: time everything again.")
]
Results = Annotated[
    Path | None, typer.Option("--results", help="Results folder.", show_default="results")
]

_EPILOG = (
    "Examples: harness search --target cpu --budget 50%   |   harness search --model resnet20 "
    "--weights resnet20.safetensors --data train=train.parquet,test=test.parquet --budget 2ms   |  "
    " Exit codes: 0 a feasible model was found, 1 none was, 2 usage or bad input, 3 too little "
    "measured, 5 a failure, 75 the study is in use, 130 interrupted."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("search", epilog=_EPILOG)(search)


def search(
    target: Targets = None,
    budget: Budgets = None,
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
    train_fraction: Fraction = None,
    coreset: Coreset = None,
    trials: Trials = None,
    time: Time = None,
    seed: Seed = None,
    study: Study = None,
    statistic: Statistic = None,
    max_drop: MaxDrop = None,
    max_size: MaxSize = None,
    layers: Layers = None,
    exclude: Exclude = None,
    blocks: Blocks = None,
    precision: Precisions = None,
    sensitivity: Sensitivity = None,
    threads: Threads = None,
    settings: Set = None,
    dry_run: DryRun = False,
    remeasure: Remeasure = False,
    results: Results = None,
) -> None:
    """Search for the most accurate network whose measured latency is within a budget.

    Every candidate is really pruned, exported to ONNX and timed on the target before any training
    is spent on it. Re-running an interrupted search resumes it.
    """
    given: SearchOptions = {
        "task": task, "target": target, "budget": budget, "weights": weights, "name": name,
        "loss": loss, "metric": metric, "augment": augment, "recipe": recipe or (),
        "train_fraction": train_fraction, "coreset": coreset, "trials": trials, "time": time,
        "study": study, "statistic": statistic, "max_drop": max_drop, "max_size": max_size,
        "layers": layers or (), "exclude": exclude or (),
        "blocks": blocks, "precision": precision or (),
        "sensitivity": sensitivity, "threads": threads,
        "settings": settings or (), "remeasure": remeasure,
    }  # fmt: skip
    if trained:  # left out, a task file decides
        given["trained"] = True
    if seed is not None:
        given["seed"] = seed
    if results is not None:
        given["results"] = results
    resume = "Interrupted. All finished trials are kept; the same command goes on from there."
    with reported(resume):
        if dry_run:
            _dry_run(model, data, given)
            return
        from harness.api.search import search as run
        from harness.cli.progress import shown_progress
        from harness.cli.summary import print_summary

        with shown_progress() as progress:
            given["progress"] = progress
            result = run(model, data, **given)
        print_summary(stdout(), result)
        raise typer.Exit(result.exit_code)


def _dry_run(model: str | None, data: str | None, given: SearchOptions) -> None:
    from harness.api.search import plan
    from harness.cli.dryrun import print_plan
    from harness.cli.progress import shown_progress

    with shown_progress() as progress:
        given["progress"] = progress
        planned = plan(model, data, **given)
    print_plan(stdout(), planned)
    raise typer.Exit(0 if any(planned.reachable) else 1)

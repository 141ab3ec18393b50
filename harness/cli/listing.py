"""`harness tasks`, `models` and `steps`: what there is."""

from __future__ import annotations

import typer

from harness.cli.console import reported, stdout


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("tasks", epilog="Example: harness tasks")(tasks)
    app.command("models", epilog="Example: harness models")(models)
    app.command("steps", epilog="Example: harness steps")(steps)


def tasks() -> None:
    """List the shipped tasks: a model, its data and its metric."""
    with reported():
        from rich.markup import escape

        from harness.tasks import DEFAULT, TASKS, shipped_task

        console = stdout()
        for name in TASKS:
            task = shipped_task(name)
            default = " (the default)" if name == DEFAULT else ""
            metric = task.objective.metric.name
            console.print(f"[bold]{escape(name)}[/]{default}  {escape(task.description)}; {metric}")
            console.print("    [green]available[/], nothing to download")
        console.print(
            "[dim]Your own: `harness search --model SPEC --data SPEC`, or a task file written by "
            "`harness init`. Shipped models: `harness models`.[/]"
        )


def models() -> None:
    """List the shipped models, for `--model`."""
    with reported():
        from rich.markup import escape

        from harness.models import DESCRIPTIONS

        console = stdout()
        for name, description in DESCRIPTIONS.items():
            console.print(f"[bold]{escape(name)}[/]  {escape(description)}")
        console.print(
            "[dim]Others: FILE.py:factory, pkg.module:factory, onnx:FILE, timm:NAME, "
            "torchvision:NAME[/]"
        )


def steps() -> None:
    """List the compression steps and their options, for `harness compress --step`."""
    with reported():
        from dataclasses import MISSING, fields

        from rich.markup import escape
        from rich.padding import Padding

        from harness.compression.steps import STEPS, step_class
        from harness.compression.steps.options import written

        console = stdout()
        for name in STEPS:
            kind = step_class(name)
            console.print(f"[bold]{escape(name)}[/]  {escape(kind.about)}")
            for one in fields(kind):
                default = "" if one.default in (None, ()) else f" ({written(one.default)})"
                default = " (needed)" if one.default is MISSING else default
                line = f"[bold]{one.name}[/]{escape(default)}  {escape(one.metadata['about'])}"
                console.print(Padding(line, (0, 0, 0, 4), expand=False))
        console.print(
            "[dim]As text: NAME, or NAME:KEY=VALUE,KEY=VALUE; names within a value are joined by "
            "'+'.[/]"
        )

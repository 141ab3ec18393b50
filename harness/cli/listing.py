"""`harness targets` and `harness tasks`: what there is, and what works here."""

from __future__ import annotations

import typer

from harness.cli.console import reported, stdout


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("targets", epilog="Example: harness targets")(targets)
    app.command("tasks", epilog="Example: harness tasks")(tasks)


def targets() -> None:
    """List the targets, and what to do about those that can't be used here."""
    with reported():
        from rich.table import Table

        from harness.errors import BackendUnavailable
        from harness_backends.registry import open_backend
        from harness_backends.targets import load_targets

        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("target", "backend", "threads", "batch", "granule", "what", "here"):
            table.add_column(title, no_wrap=title != "here")
        for name, target in load_targets().items():
            try:
                version = open_backend(target).check_available()
                status = f"[green]available[/] ({version})"
            except BackendUnavailable as exc:
                status = f"[yellow]not available[/]: {exc}"
            counts = (str(target.threads), str(target.batch), str(target.granule))
            table.add_row(name, target.backend, *counts, target.description, status)
        stdout().print(table)


def tasks() -> None:
    """List the tasks: a model, its data and its metric."""
    with reported():
        from rich.table import Table

        from harness.tasks import DEFAULT, TASKS, task_class

        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("task", "metric", "what", "here"):
            table.add_column(title)
        for name in TASKS:
            task = task_class(name)
            default = ", the default" if name == DEFAULT else ""
            here = f"[green]available[/], no download{default}"
            table.add_row(name, task.metric, task.description, here)
        stdout().print(table)

"""`harness init`: a commented task file to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import reported, stdout


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init", epilog="Example: harness init parts.toml")(init)


def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "task.toml"
    ),
) -> None:
    """Write a commented task file: model, data and the usual options of a search."""
    with reported():
        from rich.markup import escape

        from harness.atomic import write_atomic
        from harness.errors import ConfigError
        from harness.tasks.taskfile import TEMPLATE

        if path.suffix != ".toml":
            raise ConfigError(f"A task file ends in .toml. Received: {str(path)!r}.")
        if not str(path).isprintable():  # it is named within the file, too
            raise ConfigError(
                f"A task file's name has no line breaks or other control characters. Received: "
                f"{str(path)!r}."
            )
        if path.exists():
            raise ConfigError(f"{path} exists already. Give another name, or move it away.")
        named = shlex.quote(str(path))
        try:
            write_atomic(path, TEMPLATE.replace("{name}", named).encode())
        except OSError as exc:
            raise ConfigError(
                f"{path} can't be written: {exc.strerror}. Give a file in a folder that exists."
            ) from exc
        stdout().print(
            f"{escape(str(path))} written. Edit it, then: harness search --task {escape(named)}"
        )

"""What `harness targets` prints."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from harness.errors import ConfigError
from harness_backends.registry import open_backend
from harness_backends.targets import user_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from harness.api.targets import Added
    from harness.target import Target

_EMPTY = {"granule": "probed", "affinity": "all CPUs", "hosts": "none", "description": "none"}


def print_list(console: Console, targets: Mapping[str, Target]) -> None:
    """Print every target: what it is, how it is used, where, and whether it can be."""
    for name, target in targets.items():
        granule = "probed" if target.granule is None else target.granule
        what = escape(target.description) + " " if target.description else ""
        console.print(
            f"[bold]{escape(name)}[/]  {what}({escape(target.backend)}, threads {target.threads}, "
            f"batch {target.batch}, granule {granule})"
        )
        for line in (_hosts(target), _status(target)):
            if line:
                console.print(Padding(line, (0, 0, 0, 4), expand=False))


def print_added(console: Console, added: Added) -> None:
    """Print what was written, where, and the next command."""
    name = added.target.name
    if not added.written:
        console.print(f"Nothing to write: {escape(name)} has these options already.")
    else:
        console.print(f"[bold]{escape(name)}[/] in {escape(str(added.path))}:")
    for key, value in added.written.items():
        was = added.before.get(key)
        before = "" if not was else f" [dim](was {escape(_written(key, was))})[/]"
        line = f"{escape(key)} = {escape(_written(key, value))}{before}"
        console.print(Padding(line, (0, 0, 0, 4), expand=False))
    if added.inherits:
        console.print("[dim]the rest comes from the shipped target of this name[/]")
    console.print(f"Next: harness targets check {shlex.quote(name)}", markup=False)


def print_made(console: Console, name: str, folder: Path) -> None:
    """Print where an emulated machine lies, and the next command."""
    console.print(f"The emulated machine of {escape(name)} is in {escape(str(folder))}")
    console.print(f"Next: harness targets check {shlex.quote(name)}", markup=False)


def print_options(console: Console, name: str, options: Sequence[tuple[str, Any, str]]) -> None:
    """Print every option with its value and its origin, and where the user's file is."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in (name, "value", "from"):
        table.add_column(escape(title), overflow="fold")
    for key, value, origin in options:
        style = "bold" if origin == "your file" else "dim" if origin == "default" else ""
        table.add_row(key, escape(_written(key, value)), origin, style=style)
    console.print(table)
    there = "" if user_file().exists() else " (not there yet)"
    console.print(f"[dim]your file: {escape(str(user_file()))}{there}[/]")


def _hosts(target: Target) -> str:
    return f"at {escape(', '.join(target.hosts))}" if target.hosts else ""


def _status(target: Target) -> str:
    """Say whether a target can be used, as far as that is known without connecting to it."""
    try:
        backend = open_backend(target)
    except ConfigError as exc:
        return f"[yellow]not available here[/]: {escape(str(exc))}"
    if target.hosts:
        command = f"harness targets check {shlex.quote(target.name)}"
        return f"[green]over ssh[/], not asked now: `{escape(command)}` does"
    version = backend.check_available() or ""
    return f"[green]available[/], {escape(target.backend)} {escape(version)}"


def _written(key: str, value: Any) -> str:
    if value in (None, "", ()) or value == {}:
        return _EMPTY.get(key, "none")
    if isinstance(value, dict):
        return ", ".join(f"{entry}={_written(entry, one)}" for entry, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)

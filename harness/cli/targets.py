"""`harness targets`: what can be timed on, and boards of one's own."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Annotated

import typer

from harness.cli.console import reported, stderr, stdout

_EPILOG = (
    "Examples: harness targets   |   harness targets add raspberry-pi --host pi@192.168.0.7   |   "
    "harness targets check raspberry-pi"
)
_CHECK_EPILOG = (
    "Example: harness targets check raspberry-pi   |   Exit codes: 0 usable, 2 bad name or no "
    "host, 4 reached but unfit, 5 not reached or the runtime fails."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the target.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host", metavar="USER@BOARD",
        help="Where it is, as ssh knows it; several times for several boards of one kind.",
    ),
]  # fmt: skip
Runtime = Annotated[
    str | None,
    typer.Option(
        "--backend", metavar="NAME", help="Runtime: onnxruntime or tensorrt.",
        show_default="the shipped target's, else onnxruntime",
    ),
]  # fmt: skip
Threads = Annotated[
    str | None, typer.Option("--threads", metavar="N", help="Threads of the runtime.")
]
Python = Annotated[
    str | None,
    typer.Option(
        "--python", metavar="PATH",
        help="Python on the board, 3.8 or newer, that has the runtime.", show_default="python3",
    ),
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands."""
    targets = typer.Typer(no_args_is_help=False, add_completion=False)
    targets.callback(invoke_without_command=True, epilog=_EPILOG)(listed)
    example = (
        "Example: harness targets add pi-lab --host pi@10.0.0.5 --python /home/pi/venv/bin/python"
    )
    targets.command("add", epilog=example)(add)
    targets.command("check", epilog=_CHECK_EPILOG)(check)
    targets.command("show", epilog="Example: harness targets show jetson")(show)
    targets.command("remove", epilog="Example: harness targets remove jetson")(remove)
    app.add_typer(targets, name="targets")


def listed(context: typer.Context) -> None:
    """List the targets and what to do about those that can't be used; add and check boards."""
    if context.invoked_subcommand is not None:
        return
    with reported():
        from harness.cli.targets_text import print_list
        from harness_backends.targets import load_targets

        print_list(stdout(), load_targets())


def add(
    name: Name,
    host: Hosts = None,
    backend: Runtime = None,
    threads: Threads = None,
    python: Python = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="One line for people.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Change the given options of one that is there.")
    ] = False,
) -> None:
    """Write a target into your file; nothing is connected to.

    Under the name of a shipped one it inherits the rest from it. Of qemu-arm64, the emulated
    machine, it fetches Debian packages and wheels and makes it, in a minute.
    """
    with reported():
        from harness.api.targets import add_target, is_emulated, make_emulated
        from harness.cli.targets_text import print_added, print_made
        from harness.units import parse_count

        count = None if threads is None else parse_count(threads, "--threads")
        options = {
            "backend": backend, "hosts": host or None, "threads": count, "python": python,
            "description": description,
        }  # fmt: skip
        given = {key: value for key, value in options.items() if value is not None}
        if not given and is_emulated(name):
            with stderr().status("making the emulated machine") as status:
                folder = make_emulated(status.update)
            print_made(stdout(), name, folder)
            return
        print_added(stdout(), add_target(name, given, force=force))


def check(
    name: Name,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Connect to every board of a target, show its state, and time a small model for a second."""
    with reported():
        from harness.api.target import chosen_target
        from harness.api.target_check import check_target
        from harness.cli.check_text import checks_as_json, print_check, print_verdict, worst

        target = chosen_target(name)
        checks = check_target(target, _say_host)
        if json:
            text = jsonlib.dumps(checks_as_json(target, checks), indent=1, allow_nan=False)
            sys.stdout.write(text + "\n")
        else:
            for one in checks:
                print_check(stdout(), target, one)
            print_verdict(stdout(), target, checks)
        code = worst(checks)
        if code:
            raise typer.Exit(code)


def _say_host(host: str) -> None:
    """Say on a terminal which board is next: reaching one may take seconds."""
    console = stderr()
    if console.is_terminal:
        console.print(f"checking {host} ...", style="dim", markup=False)


def show(name: Name) -> None:
    """Show every option of a target, and where it comes from."""
    with reported():
        from harness.api.targets import options_of
        from harness.cli.targets_text import print_options

        print_options(stdout(), name, options_of(name))


def remove(name: Name) -> None:
    """Remove a target from your file; a shipped one of its name is back then."""
    with reported():
        from rich.markup import escape

        from harness.api.targets import remove_target
        from harness_backends.targets import user_file

        is_back = remove_target(name)
        rest = "; the shipped one is back" if is_back else ""
        stdout().print(f"{escape(name)} removed from {escape(str(user_file()))}{rest}")

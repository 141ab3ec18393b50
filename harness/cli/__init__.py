"""The command line: parse, call, render. Heavy modules are imported inside commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from harness import __version__
from harness.cli import (
    bench,
    compress,
    doctor,
    init,
    leaderboard,
    listing,
    replay,
    search,
    sensitivity,
    targets,
)

app = typer.Typer(
    help="Find the most accurate network that meets a measured latency budget on a device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"harness {__version__}")  # noqa: T201 - the version is this option's output
        raise typer.Exit


search.register(app)
compress.register(app)
sensitivity.register(app)
bench.register(app)
doctor.register(app)
leaderboard.register(app)
replay.register(app)
targets.register(app)
listing.register(app)
init.register(app)


def main() -> None:
    """Run the command line."""
    if not sys.platform.startswith("linux"):
        print(  # noqa: T201 - before anything that draws is imported
            f"error: harness runs on Linux; this is {sys.platform!r}. Its timing relies on Linux's "
            "per-thread counters. Run it in a Linux machine, virtual machine or container.",
            file=sys.stderr,
        )
        sys.exit(2)
    # A runtime that reports usage over the network is told not to, in this process and in all
    # that it starts.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    app()

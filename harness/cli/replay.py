"""`harness replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import reported, stdout


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "Example: harness replay 20260131T120000Z-0a1b2c3d"
    app.command("replay", epilog=example)(replay)


def replay(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN_ID", help="From a leaderboard or trials.csv.")
    ],
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path("results"),
) -> None:
    """Rebuild a recorded network from its pruning history and weights, and compare outputs."""
    with reported():
        from harness.units import format_count
        from harness_search.replay import replay as run

        found = run(results, run_id)
        parity, console = found.parity, stdout()
        console.print(
            f"{run_id}: {found.record.role} of {found.record.study}, rebuilt with "
            f"{format_count(found.macs)} MACs; largest difference to the recorded file "
            f"{_shown(parity.max_error)} on {parity.n} samples, "
            f"{parity.argmax_differs} classes differ"
        )
        then, same = found.recorded_error, "same outputs"
        if then is not None:
            same = f"the same network: its {parity.precision} file was {_shown(then)} from it"
        console.print(f"[green]{same}[/]" if found.same else "[red]not the same network[/]")
        raise typer.Exit(0 if found.same else 1)


def _shown(error: float | None) -> str:
    return (
        "unknown (outputs not comparable)"
        if error is None
        else f"{error:.1e} of the largest output"
    )

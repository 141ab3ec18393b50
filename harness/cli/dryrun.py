"""What `harness search --dry-run` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from harness.quantity import TIME, emulation_note
from harness.units import format_size, format_wall
from harness_search.proposals import warm_starts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from harness_search.plan import Plan


def print_plan(console: Console, plan: Plan) -> None:
    """Print floor, groups, costs and the trials that the time affords."""
    settings = plan.settings
    for note in plan.notes:
        console.print(f"[dim]note: {escape(note)}[/]")
    note = emulation_note(settings.target.emulated_cpu)
    if note:
        console.print(f"[yellow]{escape(note)}[/]")
    console.print(_figures_table(plan))
    for budget, reachable, dense in zip(settings.budgets, plan.reachable, plan.dense, strict=True):
        word = "[green]within reach[/]" if reachable else "[red]out of reach: below the floor[/]"
        word = "[green]the dense model meets it: pruning isn't needed[/]" if dense else word
        console.print(f"budget {budget.describe()}: {word}")
    console.print(_groups_table(plan))
    if plan.space.blocks:
        console.print(f"blocks that may be left out: {escape(', '.join(plan.space.blocks))}")
    console.print(_cost_table(plan))
    if plan.trials is not None:
        roles = warm_starts(settings, plan.space)
        limits = [f"--time {format_wall(settings.time_s)}"] if settings.time_s else []
        limits += [f"--trials {settings.trials}"] if settings.trials else []
        console.print(
            f"\n{' and '.join(limits)}: about {plan.trials} trials; the first {len(roles)} are "
            f"{_starts(roles, plan.space.precisions)} at the budget"
        )


def _starts(roles: Sequence[str], precisions: Sequence[str]) -> str:
    """Return what the warm starts are, in words."""
    words = {precision: f"global in {precision}" for precision in precisions}
    words["depth"] = "global without some blocks"
    texts = [words.get(role, role) for role in roles]
    return f"{', '.join(texts[:-1])} and {texts[-1]} pruning"


def _figures_table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    statistic, quantity = plan.floors[0].budget["statistic"], plan.settings.target.quantity
    counted = "" if quantity is TIME else f" {quantity.noun}"
    for title in ("measured", f"{statistic}{counted}, 95 % interval", "of dense", "size"):
        table.add_column(title)
    rows = [("dense", "dense", plan.floors[0])]
    for floor in plan.floors:
        precision = floor.candidate["precision"]
        if "whole" in floor.latency:
            rows.append((f"dense in {precision}", "whole", floor))
        rows.append((f"smallest network in {precision}", "probe", floor))
    for name, phase, record in rows:
        figures = record.latency[phase]
        ratio = figures[f"ratio_{statistic}"]
        table.add_row(
            name,
            quantity.interval(quantity.of(figures, statistic)),
            "100 %, by definition" if name == "dense"
            else f"{ratio[0]:.1%} ({ratio[1]:.1%} to {ratio[2]:.1%})",
            "" if phase != "probe" else format_size(record.model["size_bytes"]),
        )  # fmt: skip
    return table


def _groups_table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("\nprunable group", "\nchannels", "\nmay keep"):
        table.add_column(title)
    for group in plan.groups:
        allowed = plan.space.allowed[group.name]
        kept = "all (excluded or too narrow)" if len(allowed) == 1 else _steps(allowed)
        table.add_row(escape(group.name), str(group.width), kept)
    return table


def _steps(allowed: tuple[int, ...]) -> str:
    if len(allowed) < 4:
        return ", ".join(map(str, allowed))
    return f"{allowed[0]}, {allowed[1]}, ... {allowed[-1]}"


def _cost_table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("\nphase", "\nestimated"):
        table.add_column(title)
    for name, seconds in plan.seconds.items():
        cost = "0 s (its weights are there)" if name == "teacher" and not seconds else None
        table.add_row(name, cost or (format_wall(seconds) if seconds >= 10 else f"{seconds:.1f} s"))
    return table

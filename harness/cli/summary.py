"""The end of a search, for a person to read."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from harness.measurement.flags import BLOCKING, NOTES, faults
from harness.quantity import emulation_note
from harness.units import (
    format_count,
    format_metric,
    format_metric_change,
    format_metric_range,
    format_size,
    format_times,
    format_wall,
    metric_words,
)
from harness_results.card import replay_command
from harness_results.winner import winner_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from harness_results.record import RunRecord
    from harness_search.engine import BudgetResult, SearchResult
    from harness_search.settings import Settings

_ROLES = ("dense", "uniform", "global", "sensitivity", "winner")
_BAR = 24


def print_summary(console: Console, result: SearchResult) -> None:
    """Print how a search ended, budget by budget, and where everything is."""
    settings = result.settings
    for one in result.budgets:
        console.print()
        console.print(_headline(one, result))
        if one.finals:
            console.print(_table(one))
            _print_setting(console, one, _test_reads(result))
        if one.winner is not None:
            if not one.dense_wins:
                console.print(_widths(one))
                if one.winner.candidate["blocks"]:
                    console.print(f"left out: {escape(', '.join(one.winner.candidate['blocks']))}")
            several = len(settings.budgets) > 1
            where = winner_folder(result.folder, one.budget.text, several)
            console.print(
                f"winner  {escape(str(where))}/  (model.onnx, card.md, run.py, search.png)"
            )
            command = replay_command(one.winner, settings.results)
            console.print(f"        {escape(command)}", soft_wrap=True)  # to be copied whole
            _print_reduction(console, one.winner)
    _print_flags(console, result)
    _print_failures(console, result)
    for note in result.notes:
        console.print(f"[dim]note: {escape(note)}[/]")
    _print_time(console, settings, result)


def _headline(one: BudgetResult, result: SearchResult) -> Panel:
    if one.winner is not None:
        blocked = faults(one.winner.flags)
        text, style = _won(one), "green"
        text += _emulated(result)
        if blocked:
            style = "yellow"
            text += (
                f"\n[bold yellow]Not ranked: {', '.join(blocked)}.[/] Run the same command with "
                "another `--study` on a quieter machine."
            )
        return Panel(text, title=one.budget.describe(), border_style=style, expand=False)
    if one.below_floor:
        text = (
            "No network meets this budget: even the smallest one, in "
            f"{result.floor.candidate['precision']}, takes {_figure(result.floor, 'probe')}"
            f" ({format_size(result.floor.model['size_bytes'])}).\n"
            f"Relax the budget{_finer(result)}, or start from a smaller network."
        )
    else:
        nearest = one.nearest
        assert nearest is not None  # the floor at least was measured
        phase = next(p for p in ("retimed", "probe") if p in nearest.latency)
        failed = sum(record.status == "failed" for record in result.trials)
        text = f"No feasible network was found in {len(result.trials)} trials"
        text += f", of which {failed} failed" if failed else ""
        if any(record.feasible for record in result.trials):
            text += "; some met the budget in the search, but none in a fresh final measurement"
        text += (
            ". The nearest took "
            f"{_figure(nearest, phase)} in {nearest.candidate['precision']}"
            + (f" with {_scored(nearest, 'validation')} on validation" if nearest.scores else "")
            + f"; the floor takes {_figure(result.floor, 'probe')}.\nGive it more `--time`, or "
            "relax the budget or what `--max-drop` and `--max-size` ask."
        )
    text += _emulated(result)
    return Panel(text, title=one.budget.describe(), border_style="red", expand=False)


def _emulated(result: SearchResult) -> str:
    """Return what instruction counts are, as a line; empty where times were measured."""
    note = emulation_note(result.settings.target.emulated_cpu)
    return note and f"\n[bold yellow]{escape(note)}[/]"


def _won(one: BudgetResult) -> str:
    winner, dense = one.winner, one.finals["dense"]
    assert winner is not None
    statistic = one.budget.statistic
    if one.dense_wins:
        return (
            "Pruning isn't needed: the dense model is within this budget as it is.\n"
            f"{_figure(winner, 'final')}, {_test(winner)}"
        )
    ratio = winner.latency["final"][f"ratio_{statistic}"]
    change = winner.scores["test"]["value"] - dense.scores["test"]["value"]
    spread = _spread(winner) + _spread(dense)
    word = "not resolved" if abs(change) <= spread else ("better" if change > 0 else "worse")
    return (
        f"[bold green]{1 / ratio[0]:.2f}x {winner.quantity.less}[/] than the dense model "
        f"({1 / ratio[2]:.2f}x to {1 / ratio[1]:.2f}x): {_figure(winner, 'final')}\n"
        f"[bold]{_test(winner)}[/]\n"
        f"{format_metric_change(change, winner.task['metric'])} against the dense model: {word} "
        f"with {winner.scores['test']['n']} test samples"
    )


def _spread(record: RunRecord) -> float:
    test = record.scores["test"]
    return float(test["hi"] - test["lo"]) / 2


def _table(one: BudgetResult) -> Table:
    """Return models side by side, each figure above its interval: fits 80 columns."""
    models = [one.finals[role] for role in _ROLES if role in one.finals]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("95 % intervals", style="dim", no_wrap=True)
    for record in models:
        style = "bold green" if record.role == "winner" else ""
        table.add_column(record.role, no_wrap=True, style=style)
    for name, cell in _rows(models[0].task["metric"]).items():
        cells = [cell(record) for record in models]
        if any(first for first, _ in cells):
            table.add_row(name, *(first for first, _ in cells))
        if any(second for _, second in cells):
            table.add_row("", *(f"[dim]{second}[/]" for _, second in cells))
    return table


Cell = tuple[str, str]
"""A figure and its interval; empty where there is none."""


def _percentile(name: str) -> Callable[[RunRecord], Cell]:
    def cell(record: RunRecord) -> Cell:
        triple = record.quantity.of(record.latency["final"], name)
        if triple is None:
            return "", ""
        return record.quantity.show(triple[0]), record.quantity.span(triple)

    return cell


def _of_dense(record: RunRecord) -> Cell:
    value, low, high = record.latency["final"][f"ratio_{record.budget['statistic']}"]
    if record.role == "dense":
        return "100 %", "by definition"
    return f"{value * 100:.1f} %", f"{low * 100:.1f} to {high * 100:.1f}"


def _split(name: str) -> Callable[[RunRecord], Cell]:
    def cell(record: RunRecord) -> Cell:
        score, metric = record.scores[name], record.task["metric"]
        return (
            format_metric(score["value"], metric),
            format_metric_range(score["lo"], score["hi"], metric),
        )

    return cell


def _raw(name: str) -> Callable[[RunRecord], Cell]:
    def cell(record: RunRecord) -> Cell:
        value = record.quantity.of(record.latency["final"], f"{name}_raw")
        return ("" if value is None else record.quantity.show(value)), ""

    return cell


def _epochs(record: RunRecord) -> str:
    """Return for how long a candidate was distilled; nothing for the dense model."""
    training = record.training
    if training is None:
        return ""
    return str(training["epochs"] + training.get("epochs_before", 0))


def _rows(metric: str) -> dict[str, Callable[[RunRecord], Cell]]:
    return {
        "p50": _percentile("p50"),
        "p90": _percentile("p90"),
        "p99": _percentile("p99"),
        "of dense": _of_dense,
        f"test {metric_words(metric)}": _split("test"),
        "validation": _split("validation"),
        "raw p90": _raw("p90"),
        "raw p99": _raw("p99"),
        "MACs": lambda r: (format_count(r.model["macs"]), ""),
        "parameters": lambda r: (format_count(r.model["params"]), ""),
        "file": lambda r: (format_size(r.model["size_bytes"]), ""),
        "epochs": lambda r: (_epochs(r), ""),
        "precision": lambda r: (r.candidate["precision"], ""),
        "blocks out": lambda r: (f"{len(r.candidate['blocks'])}", ""),
        "budget": lambda r: ("within" if r.feasible else "over", ""),
    }


def _test_reads(result: SearchResult) -> int:
    """Return how often the study has read the test split: each budget's finals do so anew."""
    finals = [record for one in result.budgets for record in one.finals.values()]
    return max(int(record.search["test_reads"]) for record in finals)


def _print_setting(console: Console, one: BudgetResult, test_reads: int) -> None:
    record = one.winner or one.finals["dense"]
    figures, machine, target = record.latency["final"], record.environment["machine"], record.target
    console.print(f"{record.role}: {figures['raw_within_budget']:.1%} of raw calls within budget")
    console.print(
        f"[dim]{figures['n_calls']} calls of each model in {figures['n_processes']} fresh "
        f"processes, {target['backend']} {target['backend_version']}, threads "
        f"{target['threads']}, batch {target['batch']}, "
        f"{escape(str(machine['cpu_model']))} with {machine['cpu_count']} cores; test split of "
        f"{record.scores['test']['n']} samples read {format_times(test_reads)} by this study[/]"
    )


def _print_reduction(console: Console, winner: RunRecord) -> None:
    """Say what training on a part of the samples cost and saved."""
    training = winner.training or {}
    whole = training.get("on_all_samples")
    if whole is None:
        return
    own, metric = winner.scores["test"], winner.task["metric"]
    score = whole["score"]
    change = own["value"] - score["value"]
    spread = (own["hi"] - own["lo"] + score["hi"] - score["lo"]) / 2
    word = "not resolved" if abs(change) <= spread else ("better" if change > 0 else "worse")
    console.print(
        f"less data: trained on {training['samples']} of {training['of']} samples "
        f"({training['reduction']}, epochs {training['epochs']}) in "
        f"{format_wall(training['train_s'])}; the same network trained on all, epochs "
        f"{whole['epochs']}, in {format_wall(whole['train_s'])} reaches "
        f"{format_metric(score['value'], metric)} on the test split "
        f"({format_metric_range(score['lo'], score['hi'], metric)}): "
        f"{format_metric_change(change, metric)}, {word}"
    )


def _widths(one: BudgetResult) -> Table:
    winner, uniform = one.finals["winner"].candidate, one.finals.get("uniform")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("\ngroup", "\nchannels kept", "\nwinner", "\nuniform"):
        table.add_column(title, no_wrap=True)
    for name, dense in winner["dense_widths"].items():
        kept = winner["widths"][name]
        filled = round(_BAR * kept / dense)
        table.add_row(
            escape(name),
            f"[green]{'█' * filled}[/][dim]{'░' * (_BAR - filled)}[/]",
            f"{kept} of {dense}",
            str(uniform.candidate["widths"][name]) if uniform else "",
        )
    return table


def _print_flags(console: Console, result: SearchResult) -> None:
    finals = [record for one in result.budgets for record in one.finals.values()]
    known = {**BLOCKING, **NOTES}
    for flag in sorted({flag for record in finals for flag in record.flags}):
        roles = sorted({record.role for record in finals if flag in record.flags})
        style = "red" if faults([flag]) else "dim"
        effect = "; not ranked" if flag in BLOCKING else ""
        console.print(f"[{style}]{flag} ({', '.join(roles)}): {known[flag]}{effect}[/]")


def _print_failures(console: Console, result: SearchResult) -> None:
    """Say how many trials failed, and the commonest reason: a winner may hide what went wrong."""
    failed = Counter(record.reason or "" for record in result.trials if record.status == "failed")
    if not failed:
        return
    (reason, count), *others = failed.most_common()
    more = f" ({count} of them; the others in trials.csv)" if others else ""
    console.print(
        f"[yellow]{failed.total()} of {len(result.trials)} trials failed: {escape(reason)}{more}[/]"
    )


def _print_time(console: Console, settings: Settings, result: SearchResult) -> None:
    phases: dict[str, float] = {}
    for record in result.trials:
        for name, seconds in record.timings_s.items():
            phases[name] = phases.get(name, 0.0) + seconds
    total = sum(phases.values())
    parts = sorted(phases.items(), key=lambda item: -item[1])
    where = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts) if total else ""
    done = sum(record.status == "complete" for record in result.trials)
    console.print(
        f"\n{len(result.trials)} trials, {done} trained, {format_wall(result.elapsed_s)} in all"
        + (f", {format_wall(result.teacher_s)} on the dense model" if result.teacher_s > 1 else "")
        + (f". Trials: {where}" if where else "")
    )
    if settings.time_s is not None and result.elapsed_s > 1.1 * settings.time_s:
        console.print(
            f"[dim]longer than the {format_wall(settings.time_s)} asked: the dense model, one "
            "trial for each budget and the final measurement are always done[/]"
        )
    table = shlex.quote(str(settings.results / "leaderboard.csv"))
    console.print(f"[dim]harness leaderboard {escape(table)}[/]", soft_wrap=True)


def _figure(record: RunRecord, phase: str) -> str:
    figures: dict[str, Any] = record.latency[phase]
    statistic = record.budget["statistic"]
    ratio = figures[f"ratio_{statistic}"]
    return (
        f"{statistic} {record.quantity.interval(record.quantity.of(figures, statistic))}, "
        f"{ratio[0]:.1%} of dense ({ratio[1]:.1%} to {ratio[2]:.1%})"
    )


def _scored(record: RunRecord, split: str) -> str:
    score, metric = record.scores[split], record.task["metric"]
    value = f"{format_metric(score['value'], metric)} {metric_words(metric)}"
    return f"{value} ({format_metric_range(score['lo'], score['hi'], metric)})"


def _test(record: RunRecord) -> str:
    return f"{_scored(record, 'test')} on the test split"


def _finer(result: SearchResult) -> str:
    granule = result.settings.target.granule
    return (
        f", lower the granule (`--set granule={granule // 2}`)" if granule and granule > 1 else ""
    )

"""A picture of a search: accuracy against what the budget bounds; dense, controls, winner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from harness.units import SHARES, metric_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from harness_results.record import RunRecord

_STYLE = {
    "dense": ("s", "#444444"),
    "uniform": ("^", "#0072b2"),
    "global": ("D", "#009e73"),
    "sensitivity": ("v", "#e69f00"),
    "winner": ("*", "#d55e00"),
}
"""Marker and colour by role; Okabe & Ito's palette, distinct for colour-blind readers."""


def draw_search(path: Path, records: Sequence[RunRecord], finals: Mapping[str, RunRecord]) -> None:
    """Draw a study under one budget as a PNG.

    Args:
        path: Where the file goes.
        records: All records of the study; its trained trials are the dots.
        finals: The budget's finals by role.
    """
    budget = next(iter(finals.values())).budget
    share = budget["kind"] == "share"
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _trials(axes, records, budget, share)
    for role, record in finals.items():
        _final(axes, role, record, share)
    quantity = next(iter(finals.values())).quantity
    limit = budget["value"] if share else quantity.scaled(budget["value"])
    axes.axvline(limit, color="#cc79a7", linestyle="--",
                 label=f"budget {budget['text']}")  # fmt: skip
    axes.set_xlim(left=0)
    statistic = budget["statistic"]
    unit = " as a share of the dense model's" if share else f", {quantity.unit}"
    axes.set_xlabel(f"{statistic} {quantity.noun}{unit}")
    metric = next(iter(finals.values())).task["metric"]
    axes.set_ylabel(metric_words(metric))
    if metric in SHARES:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    if share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    record = next(iter(finals.values()))
    title = f"{record.task['name']} on {record.target['name']}, budget {budget['text']}"
    if record.target["emulated_cpu"]:
        title += "\nemulated: instructions, not latency"
    axes.set_title(title, parse_math=False)  # a dollar sign in a name is no formula
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path)


def _figure(record: RunRecord, phase: str, budget: Mapping[str, Any], share: bool) -> list[float]:
    statistic, figures = budget["statistic"], record.latency[phase]
    if share:
        return list(figures[f"ratio_{statistic}"])
    quantity = record.quantity
    return [quantity.scaled(value) for value in quantity.of(figures, statistic)]


def _trials(
    axes: Axes, records: Sequence[RunRecord], budget: Mapping[str, Any], share: bool
) -> None:
    done = [r for r in records if r.kind == "trial" and r.status == "complete"]
    xs = [_figure(r, "retimed", budget, share)[0] for r in done]
    ys = [r.scores["validation"]["value"] for r in done]
    axes.scatter(xs, ys, s=18, color="#999999", label="trials (validation split)", zorder=2)


def _final(axes: Axes, role: str, record: RunRecord, share: bool) -> None:
    marker, colour = _STYLE[role]
    x = _figure(record, "final", record.budget, share)
    test = record.scores["test"]
    y = [test["value"], test["lo"], test["hi"]]
    axes.errorbar(
        [x[0]], [y[0]], xerr=[[x[0] - x[1]], [x[2] - x[0]]], yerr=[[y[0] - y[1]], [y[2] - y[0]]],
        fmt=marker, color=colour, markersize=14 if role == "winner" else 8, capsize=3,
        label=f"{role} (test split, 95 % interval)", zorder=4 if role == "winner" else 3,
    )  # fmt: skip

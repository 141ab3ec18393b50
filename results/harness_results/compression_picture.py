"""A picture of a compression: what is left of each figure, and the metric step by step."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from harness.measurement.flags import faults
from harness.units import SHARES, format_metric_change, format_share, metric_words

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from harness_results.compression_report import Report

_BLUE, _GREY, _RED = "#0072b2", "#444444", "#d55e00"
"""Okabe & Ito's palette, distinct for colour-blind readers."""

_ROOM = 1.25
"""Of the axis to the longest bar: its label stands beside it."""
_WIDTH = 95
"""Characters of a line of the title."""


def draw_compression(path: Path, report: Report) -> None:
    """Draw a report as a PNG: ratios after/before on the left, the metric on the right.

    Args:
        path: Where the file goes.
        report: What was measured.
    """
    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _ratios(left, report)
    _metric(right, report)
    steps = "; ".join(step["text"] for step in report.steps)
    title = textwrap.fill(f"{report.task['name']} on {report.target['name']}: {steps}", _WIDTH)
    if report.target["emulated_cpu"]:
        title += "\nemulated: instructions, not latency"
    if faults(report.flags):
        title += f"\nnot to be trusted: {', '.join(report.flags)}"
    figure.suptitle(title, fontsize=11, parse_math=False)  # a dollar sign in a name is no formula
    figure.savefig(path)


def _ratios(axes: Axes, report: Report) -> None:
    before, after = report.before, report.after
    kinds = {"MACs": "macs", "parameters": "params", "non-zero": "nonzeros", "file": "size_bytes"}
    found = {
        name: after[key] / before[key]
        for name, key in kinds.items()
        if before[key] and after[key] is not None
    }
    p50 = after["latency"]["ratio_p50"]
    names = [*found, f"p50 {report.quantity.noun}"][::-1]
    values = [*found.values(), p50[0]][::-1]
    colours = [_RED, *[_BLUE] * len(found)]
    axes.barh(names, values, color=colours, height=0.6)
    axes.errorbar(p50[0], 0, xerr=[[p50[0] - p50[1]], [p50[2] - p50[0]]], color=_GREY, capsize=4)
    axes.axvline(1, color=_GREY, linewidth=1)
    ends = [max(value, p50[2]) if place == 0 else value for place, value in enumerate(values)]
    for place, (value, end) in enumerate(zip(values, ends, strict=True)):
        axes.annotate(
            format_share(value), (end, place), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # over the line at 100 %
        )  # fmt: skip
    axes.set_xlim(0, _ROOM * max(1.0, *ends))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlabel("after, as a share of before; whiskers: 95 % interval")


def _metric(axes: Axes, report: Report) -> None:
    """Draw both files' scores on the test split, each with its own interval."""
    metric, sides = report.task["metric"], (report.before, report.after)
    for place, (side, colour) in enumerate(zip(sides, (_GREY, _RED), strict=True)):
        score = side["scores"]["test"]
        axes.errorbar(
            place, score["value"], yerr=[[score["value"] - score["lo"]],
                                         [score["hi"] - score["value"]]],
            fmt="o", color=colour, capsize=5,
        )  # fmt: skip
    axes.set_xticks([0, 1], ["before", "after"])
    axes.set_xlim(-0.5, 1.5)
    axes.set_ylabel(f"test {metric_words(metric)}")
    if metric in SHARES:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1, symbol=" %"))
    change = report.change["test"]
    low, high = (format_metric_change(change[key], metric) for key in ("lo", "hi"))
    text = format_metric_change(change["value"], metric)
    low = low.removesuffix(" pt")
    axes.set_title(f"change {text}\n(95 % interval, paired: {low} to {high})", fontsize=9)
    axes.set_xlabel("whiskers: 95 % intervals")
    axes.grid(axis="y", alpha=0.25)

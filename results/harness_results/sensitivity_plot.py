"""A picture of a sensitivity analysis: what each group's pruning costs, and what it saves."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from harness.atomic import write_atomic
from harness.quantity import TIME
from harness.units import SHARES, metric_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from harness_results.sensitivity_table import SensitivityRow

_LINE_HEIGHT = 0.035
"""Least distance of two labels, as a part of the panel's height."""
_LABEL_SIZE = 7
_GROWS_FROM = 24
"""Groups from which the picture grows, so that their labels stay apart."""
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00", "#7a5195",
)  # fmt: skip
"""Okabe & Ito's palette without its yellow, which white paper hides, and a purple."""
_MARKS = "o^Dv"

Look = tuple[str, str]
"""A line's colour, and its style and marks as matplotlib has them."""
Lines = dict[str, list["SensitivityRow"]]


def draw_sensitivity(path: Path, rows: Sequence[SensitivityRow], title: str) -> bool:
    """Draw an analysis as a PNG, whole or not at all; return whether there was anything to draw.

    On the left the change of accuracy against the share of channels removed, on the right the same
    against the time or the instructions saved, where something was measured. A line is a group, or
    dashed a block. It starts at the dense network; whiskers are 95 % intervals.

    Args:
        path: Where the file goes.
        rows: The table's rows, in the network's order.
        title: Which network, where.
    """
    lines = _lines([row for row in rows if row.val_acc_change is not None])
    if not lines:
        return False
    timed = {
        name: kept for name, of in lines.items() if (kept := [r for r in of if r.saved is not None])
    }
    height = 5 * max(1.0, len(lines) / _GROWS_FROM)
    figure = Figure(figsize=(12 if timed else 7, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if timed else 1, squeeze=False, sharey=True)[0]
    looks = _looks(lines)
    _draw_ratios(panels[0], lines, looks)
    if timed:
        _draw_savings(panels[1], timed, looks)
    figure.suptitle(title, parse_math=False)  # a dollar sign in a name is no formula
    words = "whiskers: 95 % intervals"
    if any(row.kind == "block" for row in rows):
        words += "; dashed, with squares: a whole block left out"
    figure.supxlabel(words, fontsize=_LABEL_SIZE + 1)
    metric = rows[0].metric
    panels[0].set_ylabel(f"change of validation {metric_words(metric)}, nothing retrained")
    if metric in SHARES:
        panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1, symbol=" pt"))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue())
    return True


def _lines(rows: Sequence[SensitivityRow]) -> Lines:
    lines: Lines = {}
    for row in rows:
        lines.setdefault(row.name, []).append(row)
    return {name: sorted(of, key=lambda row: row.ratio) for name, of in lines.items()}


def _looks(lines: Lines) -> dict[str, Look]:
    """Return a colour and a style per name: where colours come again, marks are others."""
    found = {}
    for place, (name, rows) in enumerate(lines.items()):
        turn, colour = divmod(place, len(_COLOURS))
        block = rows[0].kind == "block"
        found[name] = _COLOURS[colour], "s--" if block else f"{_MARKS[turn % len(_MARKS)]}-"
    return found


def _draw_ratios(axes: Axes, lines: Lines, looks: dict[str, Look]) -> None:
    for name, rows in lines.items():
        axes.errorbar(
            [0.0, *(row.ratio for row in rows)], [0.0, *(_change(row)[0] for row in rows)],
            yerr=_whiskers([_change(row) for row in rows]), fmt=looks[name][1], markersize=3,
            linewidth=1.2, elinewidth=0.6, color=looks[name][0],
        )  # fmt: skip
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_xlabel("share of the group's channels removed")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    ends = {name: (rows[-1].ratio, _change(rows[-1])[0]) for name, rows in lines.items()}
    _label(axes, ends, looks)


def _draw_savings(axes: Axes, lines: Lines, looks: dict[str, Look]) -> None:
    for name, rows in lines.items():
        axes.errorbar(
            [0.0, *(_saved(row)[0] for row in rows)], [0.0, *(_change(row)[0] for row in rows)],
            xerr=_whiskers([_saved(row) for row in rows]), fmt=looks[name][1], markersize=3,
            linewidth=1.2, elinewidth=0.6, color=looks[name][0],
        )  # fmt: skip
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    quantity = next(iter(lines.values()))[0].quantity
    counted = "" if quantity is TIME else f" {quantity.noun}"
    axes.set_xlabel(f"p50{counted} saved, {quantity.unit}")
    ends = {n: (_saved(rows[-1])[0], _change(rows[-1])[0]) for n, rows in lines.items()}
    _label(axes, ends, looks)


def _label(
    axes: Axes,
    ends: dict[str, tuple[float, float]],
    looks: dict[str, Look],
) -> None:
    """Write each line's name beside the panel, at the height of its end or just below the next."""
    low, high = axes.get_ylim()
    step = min(_LINE_HEIGHT, 1 / len(ends))
    ceiling = 1.0
    left_over = len(ends)
    for name, (x, y) in sorted(ends.items(), key=lambda item: (-item[1][1], item[0])):
        left_over -= 1  # room for those below is kept
        height = min(max((y - low) / (high - low), left_over * step), ceiling)
        ceiling = height - step
        axes.annotate(
            name, (x, y), (1.02, height), textcoords=axes.transAxes, fontsize=_LABEL_SIZE,
            va="center", color=looks[name][0], annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": looks[name][0], "linewidth": 0.4, "alpha": 0.6},
        )  # fmt: skip


Triple = tuple[float, float, float]
"""A value and its interval."""


def _change(row: SensitivityRow) -> Triple:
    value, low, high = row.val_acc_change, row.val_acc_change_lo, row.val_acc_change_hi
    assert value is not None  # a score has its interval
    assert low is not None
    assert high is not None
    return value, low, high


def _saved(row: SensitivityRow) -> Triple:
    assert row.saved is not None  # only rows that were measured are drawn
    value, low, high = map(row.quantity.scaled, row.saved)
    return value, low, high


def _whiskers(triples: Sequence[Triple]) -> list[list[float]]:
    """Return what reaches below and above each value; nothing for the dense network, the first."""
    below = [max(0.0, value - low) for value, low, _ in triples]
    above = [max(0.0, high - value) for value, _, high in triples]
    return [[0.0, *below], [0.0, *above]]

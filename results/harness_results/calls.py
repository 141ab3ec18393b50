"""A picture of timed calls: their distribution, and their order, so that one sees what happened.

Two humps in the histogram are a machine with two moods; a slope in the run order is a machine that
heats up; dots far up are calls that something interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.measurement.intervals import per_call, preempted
from harness.quantity import TIME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from harness.measurement.types import LatencySample
    from harness.quantity import Quantity

_CLEAN, _PREEMPTED, _MEDIAN = "#0072b2", "#d55e00", "#222222"
_BINS = 80
_SHOWN, _ROOM = 99.0, 1.25
"""The axes reach this percentile of the undisturbed calls, and so much further; what lies beyond is
counted in the title and drawn at the edge."""


def draw_calls(path: Path, models: Sequence[tuple[str, Sequence[LatencySample]]]) -> None:
    """Draw histogram and run order of each model's calls, one row a model.

    Args:
        path: A .png or .svg file.
        models: Names, each with its calls, one sample per process.
    """
    figure, rows = _figure(len(models))
    for (name, samples), (left, right) in zip(models, rows, strict=True):
        quantity = samples[0].quantity
        calls = np.concatenate([per_call(one).ravel() for one in samples]) / quantity.per_unit
        masked = np.concatenate([preempted(sample).ravel() for sample in samples])
        starts = np.cumsum([0, *(per_call(sample).size for sample in samples)])
        _row(left, right, name, calls, masked, starts, quantity)
    figure.savefig(path)


def draw_requests(path: Path, name: str, latencies_s: Sequence[NDArray[np.float64]]) -> None:
    """Draw histogram and order of arrival of requests' latencies.

    Args:
        path: A .png or .svg file.
        name: The model's.
        latencies_s: Per process, in order of arrival.
    """
    figure, ((left, right),) = _figure(1)
    calls = np.concatenate(latencies_s) * 1e3
    starts = np.cumsum([0, *(one.size for one in latencies_s)])
    _row(left, right, name, calls, np.zeros(calls.size, bool), starts, TIME)
    left.legend(handles=left.lines, fontsize=7)  # no request is told to be preempted
    left.set_xlabel("from arrival to answer, ms")
    left.set_ylabel("requests")
    right.set_xlabel("request, in order of arrival; lines part processes")
    figure.savefig(path)


def _figure(rows: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(11, 3.4 * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 2, squeeze=False, width_ratios=(2, 3))


def _row(
    left: Axes,
    right: Axes,
    name: str,
    calls: NDArray[np.float64],
    masked: NDArray[np.bool_],
    starts: NDArray[np.int64],
    quantity: Quantity,
) -> None:
    typical = calls[~masked] if not masked.all() else calls
    top = float(np.percentile(typical, _SHOWN)) * _ROOM
    low = float(calls.min()) * 0.98
    beyond, median = int((calls > top).sum()), float(np.median(typical))
    shown = np.minimum(calls, top)
    bins = np.linspace(low, top, _BINS).tolist()
    left.hist([shown[~masked], shown[masked]], bins, stacked=True,
              color=[_CLEAN, _PREEMPTED], label=["undisturbed", "preempted"])  # fmt: skip
    left.axvline(median, color=_MEDIAN, linewidth=1, linestyle="--",
                 label=f"median {median:.4g} {quantity.unit}")  # fmt: skip
    left.set_xlabel(f"{quantity.noun} per call, {quantity.unit}")
    left.set_ylabel("calls")
    left.set_title(name, fontsize=9, loc="left")
    # Whether a call was preempted is known of times only.
    left.legend(handles=None if quantity is TIME else left.lines, fontsize=7)
    order = np.arange(calls.size)
    for chosen, colour in ((~masked, _CLEAN), (masked, _PREEMPTED)):
        right.plot(order[chosen], shown[chosen], ".", markersize=1.6, color=colour, rasterized=True)
    for start in starts[1:-1]:
        right.axvline(start, color="#bbbbbb", linewidth=0.6)
    right.set_ylim(low, top * 1.02)
    right.set_xlabel("call, in order of time; lines part processes")
    right.set_ylabel(quantity.unit)
    note = f"{beyond} calls of {calls.size} beyond the axis, drawn at its edge"
    right.set_title(note if beyond else "", fontsize=8, loc="right")

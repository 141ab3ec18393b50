"""A picture of what a channel costs: latency against width, per operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from harness.measurement.granule import GranuleProbe, WidthCurve

_ON, _OFF = "#0072b2", "#d55e00"


def draw_widths(path: Path, probe: GranuleProbe, target: str) -> None:
    """Draw each operator's width curve; multiples of its granule are told from other widths.

    Args:
        path: A .png or .svg file.
        probe: What was timed.
        target: Its name.
    """
    count = len(probe.curves)
    figure = Figure(figsize=(3.4 * count, 3.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, curve in zip(figure.subplots(1, count, squeeze=False)[0], probe.curves, strict=True):
        _draw(axes, curve)
    found = "inconclusive" if probe.granule is None else str(probe.granule)
    figure.suptitle(f"granule of {target}: {found}")
    figure.savefig(path)


def _draw(axes: Axes, curve: WidthCurve) -> None:
    for width, latency in zip(curve.widths, curve.latencies_s, strict=True):
        on = curve.granule is not None and width % curve.granule == 0
        axes.errorbar(
            [width], [latency.value * 1e3],
            yerr=[[(latency.value - latency.lo) * 1e3], [(latency.hi - latency.value) * 1e3]],
            fmt="o" if on else "x", color=_ON if on else _OFF, markersize=5, capsize=2,
        )  # fmt: skip
    axes.plot(curve.widths, [one.value * 1e3 for one in curve.latencies_s],
              color="#bbbbbb", linewidth=0.8, zorder=0)  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("channels")
    axes.set_ylabel("latency, ms (95 % interval)")
    granule = "unclear" if curve.granule is None else curve.granule
    axes.set_title(f"{curve.operator}: {granule}", fontsize=10)
    axes.grid(alpha=0.25)

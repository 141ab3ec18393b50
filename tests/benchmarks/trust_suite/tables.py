"""Tables from pairs: one line per tool, condition, case and seconds."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trust_suite.intervals import clopper_pearson, deviation_interval, median_interval
from trust_suite.pairs import Row

Line = dict[str, str | int | float | None]


def write(lines: Sequence[Line], out: Path) -> None:
    """Write lines as CSV, numbers to four digits; what is unknown stays empty."""
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(lines[0] if lines else [])
        for line in lines:
            cells = (f"{v:.4g}" if isinstance(v, float) else v for v in line.values())
            writer.writerow(["" if cell is None else cell for cell in cells])


def aa(rows: list[Row]) -> list[Line]:
    """Return how often identical models were called different."""

    def line(good: list[Row]) -> Line:
        off = [abs(_value(row) - 1) for row in good]
        bounded = [row for row in good if row.lo is not None]
        different = sum(not _covers(row, 1.0) for row in bounded)
        return {
            "pairs": len(good),
            **_share("different", different, len(bounded)),
            "off_p50_pct": _percent(np.median(off)) if off else None,
            "off_p95_pct": _percent(np.quantile(off, 0.95)) if off else None,
        }

    return _lines(rows, "", line)


def planted(rows: list[Row]) -> list[Line]:
    """Return how often a known slow-down was seen, and how often its interval held the truth."""

    def line(good: list[Row]) -> Line:
        seen = sum(row.lo is not None and row.lo > 1 for row in good)
        held = sum(_covers(row, 1 + float(row.case) / 100) for row in good)
        return {
            "runs": len(good),
            **_share("detected", seen, len(good)),
            "truth_in_interval": held,
            "ratio_p50": _median(good),
        }

    return _lines(rows, "slowdown_pct", line)


def spread(rows: list[Row]) -> list[Line]:
    """Return the standard deviation of log ratios, percent."""

    def line(good: list[Row]) -> Line:
        logs = [math.log(_value(row)) for row in good]
        figures = deviation_interval(logs) if len(logs) > 1 else (None, None, None)
        names = ("sd_pct", "sd_lo_pct", "sd_hi_pct")
        percent = (None if x is None else _percent(x) for x in figures)
        return {
            "runs": len(good),
            "ratio_p50": _median(good),
            **dict(zip(names, percent, strict=True)),
        }

    return _lines(rows, "", line)


def precision(rows: list[Row]) -> list[Line]:
    """Return the median half-width per length, and the length that first gets to each target."""

    def line(good: list[Row]) -> Line:
        widths = [(row.hi - row.lo) / 2 / _value(row) for row in good if row.lo and row.hi]
        width = _percent(np.median(widths)) if widths else None
        return {"runs": len(good), "half_width_p50_pct": width}

    lines = sorted(_lines(rows, "", line), key=lambda one: [str(one["tool"]), one["condition"]])
    for target in (3, 1):
        reached: set[tuple[object, object]] = set()
        for one in sorted(lines, key=lambda one: float(one["seconds"] or 0)):
            width, group = one["half_width_p50_pct"], (one["tool"], one["condition"])
            first = isinstance(width, float) and width <= target and group not in reached
            one[f"first_to_{target}_pct"] = "yes" if first else None
            if first:
                reached.add(group)
    return lines


def loadgen(rows: list[Row]) -> list[Line]:
    """Return the median over pairs of our p50 over LoadGen's, with a distribution-free interval."""
    lines: list[Line] = []
    for condition, seconds in sorted({(row.condition, row.seconds) for row in rows}):
        here = [row for row in rows if (row.condition, row.seconds) == (condition, seconds)]
        good = {(row.tool, row.index): _value(row) for row in here if not row.error}
        both = [i for tool, i in good if tool == "ours" and ("loadgen", i) in good]
        logs = [math.log(good["ours", i] / good["loadgen", i]) for i in both]
        bounds = median_interval(logs, 0.95) if logs else None
        lines.append({
            "condition": condition,
            "seconds": seconds,
            "pairs": len(both),
            "errors": sum(bool(row.error) for row in here),
            "loadgen_p50_us": _microseconds([good["loadgen", i] for i in both]),
            "ours_p50_us": _microseconds([good["ours", i] for i in both]),
            "ratio_p50": math.exp(np.median(logs)) if logs else None,
            "ratio_lo": math.exp(bounds[0]) if bounds else None,
            "ratio_hi": math.exp(bounds[1]) if bounds else None,
            "versions": " ".join(sorted({f"{row.tool}={row.version}" for row in here})),
        })  # fmt: skip
    return lines


def _lines(rows: list[Row], case: str, line: Callable[[list[Row]], Line]) -> list[Line]:
    """Return a line per group: who and where, what `line` says, errors and time spent."""
    groups: dict[tuple[str, float, str, float], list[Row]] = {}
    for row in rows:
        number = float(row.case) if row.case else 0.0
        groups.setdefault((row.condition, number, row.tool, row.seconds), []).append(row)
    lines: list[Line] = []
    for (condition, _, tool, seconds), own in sorted(groups.items()):
        good = [row for row in own if not row.error]
        lines.append({
            "tool": tool,
            "version": " ".join(sorted({row.version for row in own})),
            "condition": condition,
            **({case: own[0].case} if case else {}),
            "seconds": seconds,
            **line(good),
            "errors": len(own) - len(good),
            "wall_p50_s": float(np.median([row.wall_s for row in own])),
        })  # fmt: skip
    return lines


def _share(name: str, hits: int, n: int) -> Line:
    bounds = clopper_pearson(hits, n) if n else (None, None)
    return {
        name: hits if n else None,
        f"{name}_share": hits / n if n else None,
        f"{name}_lo": bounds[0],
        f"{name}_hi": bounds[1],
    }


def _covers(row: Row, truth: float) -> bool:
    return row.lo is not None and row.hi is not None and row.lo <= truth <= row.hi


def _value(row: Row) -> float:
    assert row.value is not None
    return row.value


def _median(rows: list[Row]) -> float | None:
    return float(np.median([_value(row) for row in rows])) if rows else None


def _microseconds(seconds: list[float]) -> float | None:
    return float(np.median(seconds)) * 1e6 if seconds else None


def _percent(share: float | np.floating) -> float:
    return 100 * float(share)

"""Quantities at the edges: text with a unit in, text with a unit out; SI inside."""

from __future__ import annotations

import math
import re

from harness.errors import ConfigError

_DURATIONS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0}
SECONDS_PER = {"µs": 1e-6, "ms": 1e-3, "s": 1.0}
"""The units that `format_latency` writes."""
INSTRUCTIONS_PER = {"instr": 1.0, "kinstr": 1e3, "Minstr": 1e6, "Ginstr": 1e9}
"""The units of instruction counts, read and written."""
_WALL_S = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_SIZES_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20}
_QUANTITY = re.compile(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s]*)\s*$")


def split_quantity(text: str) -> tuple[float, str] | None:
    """Split `"10 ms"` into `(10.0, "ms")`; None where there is no finite number."""
    match = _QUANTITY.match(text)
    if match is None:
        return None
    value = float(match.group(1))
    return (value, match.group(2)) if math.isfinite(value) else None


def _positive(text: str, units: dict[str, float], option: str, example: str) -> float:
    parts = split_quantity(text)
    if parts is None or parts[1] not in units:
        hint = "Add a unit." if parts is not None and not parts[1] else "Give a number and a unit."
        raise ConfigError(f"`{option}` must be {example}. Received: {text!r}. {hint}")
    if parts[0] <= 0:
        raise ConfigError(f"`{option}` must be above zero. Received: {text!r}.")
    value = parts[0] * units[parts[1]]
    if not math.isfinite(value):
        raise ConfigError(f"`{option}` is too large. Received: {text!r}.")
    return value


def parse_latency_s(text: str, option: str = "--budget") -> float:
    """Return seconds from a duration such as `"10ms"` or `"800us"`."""
    return _positive(text, _DURATIONS_S, option, "a duration such as '10ms' or '800us'")


def parse_instructions(text: str, option: str = "--budget") -> float:
    """Return a count of instructions from a text such as `"80Minstr"`."""
    return _positive(text, INSTRUCTIONS_PER, option, "an instruction count such as '80Minstr'")


def parse_wall_s(text: str, option: str = "--time") -> float:
    """Return seconds from a wall time such as `"3min"`, `"90s"` or `"2h"`."""
    return _positive(text, _WALL_S, option, "a time such as '3min', '90s' or '2h'")


def parse_size_bytes(text: str, option: str = "--max-size") -> int:
    """Return bytes from a size such as `"2MB"` (decimal) or `"2MiB"` (binary)."""
    size = int(_positive(text, _SIZES_BYTES, option, "a size such as '2MB' or '800KiB'"))
    if size < 1:
        raise ConfigError(f"`{option}` must be at least one byte. Received: {text!r}.")
    return size


def parse_points(text: str, option: str = "--max-drop") -> float:
    """Return a fraction of accuracy from percentage points: `"1pt"` is 0.01."""
    points = _positive(text, {"pt": 0.01, "pts": 0.01}, option, "percentage points such as '1pt'")
    if points >= 1:
        raise ConfigError(f"`{option}` must be below 100pt. Received: {text!r}.")
    return points


SHARES = ("accuracy", "balanced_accuracy", "f1_macro")
"""Metrics that are shares, shown in per cent; any other is a plain number."""


def parse_drop(text: str, metric: str, option: str = "--max-drop") -> float:
    """Return a loss of a metric: `"1pt"` of a share is 0.01, `"0.02"` of another is itself."""
    if metric in SHARES:
        return parse_points(text, option)
    parts = split_quantity(text)
    if parts is None or parts[1] or parts[0] <= 0:
        raise ConfigError(
            f"`{option}` must be a number above zero, in the unit of the metric {metric!r}. "
            f"Received: {text!r}."
        )
    return parts[0]


def parse_share(text: str, option: str) -> float:
    """Return a share above 0 and at most 1, from `"0.3"` or `"30%"`."""
    parts = split_quantity(text)
    value = math.nan
    if parts is not None and parts[1] in ("", "%"):
        value = parts[0] / (100 if parts[1] else 1)
    if not 0 < value <= 1:
        raise ConfigError(
            f"`{option}` must be a share above 0 % and at most 100 %, such as '30%' or '0.3'. "
            f"Received: {text!r}."
        )
    return value


def format_share(share: float) -> str:
    """Return a share for people: `"49.0 %"`."""
    return f"{share * 100:.1f} %"


def parse_count(text: str, option: str, least: int = 1) -> int:
    """Return a whole number of at least `least`."""
    if not text.strip().isdecimal() or int(text) < least:
        raise ConfigError(f"`{option}` must be a whole number from {least}. Received: {text!r}.")
    return int(text)


def format_latency(seconds: float) -> str:
    """Return a latency with three significant digits: `"0.538 ms"`, `"83.1 µs"`."""
    if seconds < 1e-4:
        return f"{_digits(seconds * 1e6)} µs"
    if seconds < 1:
        return f"{_digits(seconds * 1e3)} ms"
    return f"{_digits(seconds)} s"


def format_instructions(count: float) -> str:
    """Return an instruction count with three significant digits: `"81.2 Minstr"`, `"950 instr"`."""
    unit = "instr"
    for name, size in INSTRUCTIONS_PER.items():
        if count >= size:
            unit = name
    shown = f"{count:.0f}" if unit == "instr" else _digits(count / INSTRUCTIONS_PER[unit])
    return f"{shown} {unit}"


def format_metric(value: float, metric: str) -> str:
    """Return a figure of merit: `"97.75 %"` for a share, `"0.8312"` for another."""
    return f"{value * 100:.2f} %" if metric in SHARES else f"{value:.4g}"


def format_metric_range(low: float, high: float, metric: str) -> str:
    """Return an interval of it, without the unit: `"96.10 to 98.70"`."""
    if metric in SHARES:
        return f"{low * 100:.2f} to {high * 100:.2f}"
    return f"{low:.4g} to {high:.4g}"


def format_metric_change(change: float, metric: str) -> str:
    """Return a difference: `"+0.50 pt"` of a share, `"-0.0021"` of another."""
    return f"{change * 100:+.2f} pt" if metric in SHARES else f"{change:+.3g}"


def metric_words(metric: str) -> str:
    """Return a metric's name for people: `"balanced accuracy"`."""
    return metric.replace("_", " ")


def format_wall(seconds: float) -> str:
    """Return a wall time for people: `"0.3 s"`, `"4 s"`, `"2 min 05 s"`, `"1 h 02 min"`."""
    if 0 < seconds < 0.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "below 0.1 s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_size(n_bytes: float) -> str:
    """Return a decimal size: `"1.52 MB"`, `"640 kB"`."""
    if n_bytes >= 1e6:
        return f"{_digits(n_bytes / 1e6)} MB"
    return f"{_digits(n_bytes / 1e3)} kB"


def format_count(count: float) -> str:
    """Return a count with a metric prefix: `"62.1 M"`, `"890 k"`."""
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= limit:
            return f"{_digits(count / limit)}{suffix}"
    return f"{count:.0f}"


def format_times(count: int) -> str:
    """Return how often: `"once"`, `"3 times"`."""
    return "once" if count == 1 else f"{count} times"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"

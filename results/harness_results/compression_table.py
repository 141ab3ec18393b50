"""The before/after table of a compression, as rows of text and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.measurement.flags import faults
from harness.quantity import TIME, emulation_note
from harness.units import (
    format_count,
    format_metric,
    format_metric_change,
    format_metric_range,
    format_share,
    format_size,
    format_times,
    metric_words,
)
from harness_results.compression_training import training_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.quantity import Quantity
    from harness_results.compression_report import Report


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both networks.

    Attributes:
        name: What it is.
        before, after: With unit, and interval where it has one.
        change: The ratio after/before, or for a metric the difference; empty where unknown.
    """

    name: str
    before: str
    after: str
    change: str


def rows(report: Report) -> list[Row]:
    """Return the table's rows; a figure that is unknown on both sides is left out."""
    metric = report.task["metric"]
    words = metric_words(metric)
    found = [
        _score_row(report, "test", f"test {words}"),
        _score_row(report, "validation", f"validation {words}"),
        *(_latency_row(report, name) for name in ("p50", "p90", "p99")),
        _count_row(report, "MACs", "macs", format_count),
        _count_row(report, "parameters", "params", format_count),
        _count_row(report, "non-zero", "nonzeros", format_count),
        _count_row(report, "file", "size_bytes", format_size),
        _memory_row(report),
        Row("precision", report.before["precision"], report.after["precision"], ""),
    ]
    return [row for row in found if row.before or row.after]


def quotation(report: Report) -> str:
    """Return the one line that people quote: how much is left, and what became of the metric."""
    metric, before, after = report.task["metric"], report.before, report.after
    left = f"100 % -> {format_share(after['params'] / before['params'])} of the parameters"
    if after["nonzeros"] / after["params"] < 0.999 * before["nonzeros"] / before["params"]:
        left += f", {format_share(after['nonzeros'] / before['nonzeros'])} of the non-zero ones"
    if after["precision"] != "fp32":
        left += f", {after['precision']}"
    was, now = (side["scores"]["test"]["value"] for side in (before, after))
    change = report.change["test"]
    ratio = after["latency"]["ratio_p50"]
    return (
        f"{left}: {metric_words(metric)} {format_metric(was, metric)} -> "
        f"{format_metric(now, metric)}, change {format_metric_change(change['value'], metric)} "
        f"({_change_range(report, 'test')}); {speed(ratio, report.quantity)}"
    )


def speed(ratio: list[float], quantity: Quantity = TIME) -> str:
    """Return a ratio of times or instructions `[value, low, high]` in words, with its interval."""
    value, low, high = ratio
    if low <= 1 <= high:
        same = "as fast" if quantity is TIME else f"as many {quantity.noun}"
        return f"{same} within the error (p50 x {value:.3f}, {low:.3f} to {high:.3f})"
    if value < 1:
        return f"{1 / value:.2f}x {quantity.less} ({1 / high:.2f}x to {1 / low:.2f}x)"
    return f"{value:.2f}x {quantity.more} ({low:.2f}x to {high:.2f}x)"


def distrust(report: Report) -> str:
    """Return why figures can't be trusted and what to do; empty where they can."""
    blocked = faults(report.flags)
    if not blocked:
        return ""
    text = f"Not to be trusted: {', '.join(blocked)}."
    if "parity_failed" in blocked:
        text += (
            " The exported file computes something else than the network; measuring again won't "
            "mend that, other steps may."
        )
    if blocked != ["parity_failed"]:
        text += " Give `--remeasure` on a quieter machine to time both again."
    return text


def markdown(report: Report) -> str:
    """Return the whole report for people: the quotation, the table, the steps, the setting."""
    machine, target, figures = (
        report.environment["machine"], report.target, report.after["latency"],
    )  # fmt: skip
    table = "\n".join(f"| {r.name} | {r.before} | {r.after} | {r.change} |" for r in rows(report))
    metric = report.task["metric"]
    said = (emulation_note(target["emulated_cpu"]), distrust(report))
    warning = "".join(f"\n**{text}**\n" for text in said if text)
    steps = "\n".join(
        f"| {i} | `{step['text'].replace('|', '/')}` | {_scored(step['validation'], metric)} | "
        f"{format_count(step['params'])} | {step['seconds']:.1f} s |"
        for i, step in enumerate(report.steps, 1)
    )
    return f"""\
# {report.task["name"]}: {", ".join(step["name"] for step in report.steps)}

{quotation(report)}.
{warning}
| 95 % intervals | before | after | change |
|---|---|---|---|
{table}

{_pairing(report)}{figures["n_calls"]} calls of each in {figures["n_processes"]} fresh processes,
{target["backend"]} {target["backend_version"]}, threads {target["threads"]}, batch
{target["batch"]}, on {machine["cpu_model"]} with {machine["cpu_count"]} cores. The test split of
{report.before["scores"]["test"]["n"]} samples had been read {format_times(report.test_reads)} by
this compression. Flags: {", ".join(report.flags) or "none"}.

| step | | validation after it, float32 | parameters | took |
|---|---|---|---|---|
{steps}

{training_words(report)}
"""


def _pairing(report: Report) -> str:
    return (
        f"Changes of {report.quantity.noun} are ratios after/before of interleaved calls; "
        "changes of the metric are paired, on\nthe same samples. "
    )


def _scored(score: dict[str, Any], metric: str) -> str:
    interval = format_metric_range(score["lo"], score["hi"], metric)
    return f"{format_metric(score['value'], metric)} ({interval})"


def _score_row(report: Report, split: str, name: str) -> Row:
    metric = report.task["metric"]
    was, now = (_scored(side["scores"][split], metric) for side in (report.before, report.after))
    change = format_metric_change(report.change[split]["value"], metric)
    return Row(name, was, now, f"{change} ({_change_range(report, split)})")


def _change_range(report: Report, split: str) -> str:
    metric, change = report.task["metric"], report.change[split]
    low, high = (format_metric_change(change[key], metric) for key in ("lo", "hi"))
    return f"{low.removesuffix(' pt')} to {high.removesuffix(' pt')}"


def _latency_row(report: Report, name: str) -> Row:
    sides, quantity = (report.before, report.after), report.quantity
    was, now = (side["latency"].get(quantity.key(name)) for side in sides)
    ratio = report.after["latency"].get(f"ratio_{name}")
    change = "" if ratio is None else f"x {ratio[0]:.3f} ({ratio[1]:.3f} to {ratio[2]:.3f})"
    title = name if quantity is TIME else f"{name} {quantity.noun}"
    return Row(title, _shown(was, quantity), _shown(now, quantity), change)


def _shown(triple: list[float] | None, quantity: Quantity) -> str:
    if triple is None:
        return ""
    return _with_interval(*map(quantity.show, triple))


def _count_row(report: Report, name: str, key: str, shown: Callable[[float], str]) -> Row:
    was, now = report.before[key], report.after[key]
    if was is None or now is None:
        return Row(name, "" if was is None else shown(was), "" if now is None else shown(now), "")
    return Row(name, shown(was), shown(now), f"x {now / was:.3f}" if was else "")


def _memory_row(report: Report) -> Row:
    was, now = (side["latency"]["peak_mem_bytes"] for side in (report.before, report.after))
    if was is None or now is None:
        return Row("peak memory", "", "", "")
    return Row("peak memory", _memory(was), _memory(now), f"x {now[0] / was[0]:.3f}")


def _memory(triple: list[float]) -> str:
    return _with_interval(*map(format_size, triple))


def _with_interval(value: str, low: str, high: str) -> str:
    """Return a quantity and its interval, whose unit is written once where both ends have it."""
    number, _, unit = low.partition(" ")
    return f"{value} ({number if high.endswith(f' {unit}') else low} to {high})"

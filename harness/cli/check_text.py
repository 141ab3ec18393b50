"""What `harness targets check` prints, and its JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from harness.measurement.flags import BLOCKING, NOTES
from harness.provenance import now_utc
from harness.quantity import TIME
from harness_results.record import latency_figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from harness.api.target_check import HostCheck
    from harness.measurement.types import Measurement
    from harness.target import Target

SCHEMA = 1
_UNKNOWN = "unknown"
_WORST_FIRST = (5, 2, 4)
_KHZ = ("khz", "max_khz", "limit_khz")


def worst(checks: Sequence[HostCheck]) -> int:
    """Return the exit code of all boards together."""
    codes = {one.exit_code for one in checks}
    return next((code for code in _WORST_FIRST if code in codes), max(codes))


def print_check(console: Console, target: Target, check: HostCheck) -> None:
    """Print what one board said of itself, and what was timed there."""
    if check.facts is None:
        return  # not reached: the verdict says why
    here = f"emulated {target.emulated_cpu}" if target.emulated_cpu else "this machine"
    console.print(f"[bold]{escape(check.host or here)}[/]")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = _fact_rows(target, check.facts)
    if check.before is not None and not target.emulated_cpu:
        rows += _state_rows(check.before, check.after)
    if check.measurement is not None:
        rows += _timing_rows(check.measurement)
    for key, value in rows:
        table.add_row(f"  {key}", escape(value))
    console.print(table)


def print_verdict(console: Console, target: Target, checks: Sequence[HostCheck]) -> None:
    """Print for each board whether it is usable, or what stands in the way; then what is next."""
    console.print("[bold]verdict[/]")
    for check in checks:
        where = f"  {escape(check.host)}: " if check.host is not None else "  "
        if check.error is not None:
            console.print(f"{where}[bold red]not usable[/]: {escape(str(check.error))}")
        elif check.obstacles:
            reasons = escape("; ".join(check.obstacles))
            console.print(f"{where}[bold yellow]reached, but unfit[/]: {reasons}")
        else:
            console.print(f"{where}[bold green]usable[/]")
    name = escape(target.name)
    if not worst(checks) and target.emulated_cpu:
        console.print(f"[dim]Next: `harness search --target {name} --budget 60%`[/]")
    elif not worst(checks):
        console.print(
            f"[dim]Next: `harness search --target {name} --budget 50%`; `harness doctor --target "
            f"{name}` says what it resolves[/]"
        )


def checks_as_json(target: Target, checks: Sequence[HostCheck]) -> dict[str, Any]:
    """Return everything that was found, in SI units; None is unknown."""
    return {
        "schema": SCHEMA, "command": "targets check", "date_utc": now_utc(),
        "target": target.options(), "usable": not worst(checks),
        "hosts": [_host_as_json(one) for one in checks],
    }  # fmt: skip


def _host_as_json(check: HostCheck) -> dict[str, Any]:
    timed = check.measurement
    return {
        "host": check.host,
        "facts": None if check.facts is None else dict(check.facts),
        "before": None if check.before is None else dict(check.before),
        "after": None if check.before is None else dict(check.after),
        "timing": None if timed is None else latency_figures(timed),
        "obstacles": list(check.obstacles),
        "error": None if check.error is None else str(check.error),
        "exit_code": check.exit_code,
    }


def _fact_rows(target: Target, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    from harness.cli.doctor import SHOWN_FLAGS

    machine = facts["machine"]
    flags = [name for name in SHOWN_FLAGS if name in (machine.get("cpu_flags") or ())]
    threads = f"{target.threads} thread{'s' if target.threads > 1 else ''}"
    return [
        ("board", _text(machine.get("device_model"))),
        ("CPU", _text(machine.get("cpu_model"))),
        ("cores", f"{_text(machine.get('cpu_count'))}, online {_online(machine)}"),
        ("instructions", f"{_text(machine.get('architecture'))}: {', '.join(flags) or _UNKNOWN}"),
        ("memory", _scaled(machine.get("memory_bytes"), 2**-30, "{:.1f} GiB")),
        ("kernel", _text(machine.get("kernel"))),
        ("Python", _text(facts.get("python"))),
        ("runtime", f"{target.backend} {_text(facts.get('runtime_version'))}, {threads}"),
    ]


def _state_rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    def shown(key: str, form: str = "{}", factor: float | None = None) -> str:
        """Return the values before and after, once where they are the same."""
        values = [_scaled(state.get(key), factor, form) for state in (before, after)]
        return " then ".join(dict.fromkeys(values))

    return [
        ("governor", shown("governor")),
        ("frequency", _frequency(*(shown(key, "{:.2f} GHz", 1e-6) for key in _KHZ))),
        *([] if after.get("gpu_khz") is None else [("GPU", shown("gpu_khz", "{:.2f} GHz", 1e-6))]),
        ("temperature", shown("temperature_c", "{:.0f} °C")),
        ("throttling", _throttling(after)),
        ("power mode", shown("power_mode")),
        ("load", shown("load_1min", "{:.2f}")),
    ]


def _frequency(now: str, limit: str, maximum: str) -> str:
    if {now, limit, maximum} == {_UNKNOWN}:
        return _UNKNOWN
    return f"{now}; limit {limit}, of the hardware {maximum}"


def _throttling(state: Mapping[str, Any]) -> str:
    now, count = state.get("throttled"), state.get("throttle_count")
    parts = [] if now is None else [", ".join(now) if now else "none now"]
    once = state.get("throttled_since_start")
    if once:
        parts.append(f"since the board was started: {', '.join(once)}")
    if count is not None:
        parts.append(f"{count} times since the machine was started")
    return "; ".join(parts) or _UNKNOWN


def _timing_rows(timed: Measurement) -> list[tuple[str, str]]:
    p50, quantity = timed.stats.p50, timed.stats.quantity
    interval = quantity.interval([p50.value, p50.lo, p50.hi]).replace(")", ", 95 %)")
    what = f"p50 {interval} for three 3x3 convolutions, {timed.stats.n_calls} calls"
    rows = [("timing" if quantity is TIME else "counted", what)]
    words = {**BLOCKING, **NOTES}
    ordered = sorted(timed.flags, key=lambda flag: (flag not in BLOCKING, flag))
    return [*rows, *(("flag", f"{flag}: {words[flag]}") for flag in ordered)]


def _online(machine: Mapping[str, Any]) -> str:
    return _text(machine.get("cpus_online"))


def _text(value: Any) -> str:
    return _UNKNOWN if value is None else str(value)


def _scaled(value: Any, factor: float | None, form: str) -> str:
    if value is None:
        return _UNKNOWN
    return form.format(value if factor is None else value * factor)

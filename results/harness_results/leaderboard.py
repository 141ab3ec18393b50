"""The leaderboard: finals only, ranked, a pure function of the records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness.errors import ConfigError
from harness.measurement.flags import is_blocked
from harness_results.csvfile import REMEDY, read_csv, to_csv
from harness_results.figures import COUNT_COLUMNS, count_cells, time_cells
from harness_results.files import disk_errors, locked
from harness_results.record import SCHEMA
from harness_results.store import all_records, finals_of_whole_sets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness_results.record import RunRecord

COLUMNS = (
    "schema", "rank", "run_id", "study", "role", "task", "data_sha256", "metric", "target",
    "backend", "backend_version", "scenario", "threads", "batch", "precision", "fingerprint",
    "budget", "statistic", "feasible", "latency_ms", "latency_lo_ms", "latency_hi_ms",
    "p50_raw_ms", "p90_raw_ms", "p99_raw_ms", "ratio_ref", "ratio_lo", "ratio_hi",
    *COUNT_COLUMNS, "n_calls", "n_processes", "contended_pct", "val_acc", "test_acc",
    "test_acc_lo", "test_acc_hi", "n_test", "parity_err", "macs", "params", "size_bytes",
    "peak_mem_bytes", "energy_mj", "granule", "seed", "search_trials", "search_s", "gpu_hours",
    "flags", "onnx_sha256", "commit", "dirty", "date_utc",
)  # fmt: skip
"""In this order; README.md beside this package is their dictionary."""
_NUMBERS = (
    "schema", "rank", "threads", "batch", "latency_ms", "latency_lo_ms", "latency_hi_ms",
    "p50_raw_ms", "p90_raw_ms", "p99_raw_ms", "ratio_ref", "ratio_lo", "ratio_hi",
    *COUNT_COLUMNS, "n_calls", "n_processes", "contended_pct", "val_acc", "test_acc",
    "test_acc_lo", "test_acc_hi", "n_test", "parity_err", "macs", "params", "size_bytes",
    "peak_mem_bytes", "granule", "seed", "search_trials", "search_s",
)  # fmt: skip
FILE = "leaderboard.csv"
_GROUP = (
    "task", "data_sha256", "metric", "fingerprint", "scenario", "budget", "statistic",
)  # fmt: skip
"""Rows that may be ranked against each other; the fingerprint covers all target options."""


def rebuild(results: Path) -> list[dict[str, Any]]:
    """Write `<results>/leaderboard.csv` from all records and return its rows.

    Raises:
        ConfigError: If a record is corrupt; the old table then stays as it was.
    """
    with disk_errors(results), locked(results / ".leaderboard.lock", wait=True):
        rows = ranked([row(r) for r in finals_of_whole_sets([r for _, r in all_records(results)])])
        write_atomic(results / FILE, to_csv(COLUMNS, rows))
    return rows


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a leaderboard file.

    Raises:
        ConfigError: If it is missing or corrupt.
    """
    rows = read_csv(path, COLUMNS)
    for number, entry in enumerate(rows, start=2):
        for column in _NUMBERS:
            if entry[column] and not _is_number(entry[column]):
                raise ConfigError(
                    f"{path}, line {number}: expected a number as {column}, received "
                    f"{entry[column]!r}. {REMEDY}"
                )
    return rows


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def row(record: RunRecord) -> dict[str, Any]:
    """Return a final's row, not yet ranked."""
    statistic = record.budget["statistic"]
    figures = record.latency["final"]
    ratio, memory = figures[f"ratio_{statistic}"], figures["peak_mem_bytes"]
    test = record.scores.get("test", {})
    return {
        "schema": SCHEMA,
        "rank": None,
        "run_id": record.run_id,
        "study": record.study,
        "role": record.role,
        "task": record.task["name"],
        "data_sha256": record.task["data_sha256"],
        "metric": record.task["metric"],
        "target": record.target["name"],
        "backend": record.target["backend"],
        "backend_version": record.target["backend_version"],
        "scenario": record.target["scenario"],
        "threads": record.target["threads"],
        "batch": record.target["batch"],
        "precision": record.candidate["precision"],
        "fingerprint": record.environment["fingerprint"],
        "budget": record.budget["text"],
        "statistic": statistic,
        "feasible": record.feasible,
        **time_cells(record),
        "p50_raw_ms": _milli(figures.get("p50_raw_s")),
        "p90_raw_ms": _milli(figures.get("p90_raw_s")),
        "p99_raw_ms": _milli(figures.get("p99_raw_s")),
        "ratio_ref": None if ratio is None else ratio[0],
        "ratio_lo": None if ratio is None else ratio[1],
        "ratio_hi": None if ratio is None else ratio[2],
        **count_cells(record),
        "n_calls": figures["n_calls"],
        "n_processes": figures["n_processes"],
        "contended_pct": None if figures["contended"] is None else figures["contended"] * 100,
        "val_acc": record.scores.get("validation", {}).get("value"),
        "test_acc": test.get("value"),
        "test_acc_lo": test.get("lo"),
        "test_acc_hi": test.get("hi"),
        "n_test": test.get("n"),
        "parity_err": None if record.parity is None else record.parity["max_error"],
        "macs": record.model["macs"],
        "params": record.model["params"],
        "size_bytes": record.model["size_bytes"],
        "peak_mem_bytes": None if memory is None else round(memory[0]),
        "energy_mj": _milli(figures["energy_j"]),
        "granule": record.target["granule"],
        "seed": record.search["seed"],
        "search_trials": record.search["trials"],
        "search_s": record.search["elapsed_s"],
        "gpu_hours": None,
        "flags": " ".join(record.flags),
        "onnx_sha256": record.model["sha256"],
        "commit": record.git["commit"],
        "dirty": record.git["dirty"],
        "date_utc": record.date_utc,
    }


def ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with their ranks, in an order that diffs well.

    Within a group, among feasible rows without a blocking flag, the rank is 1 plus the number of
    rows whose lower bound of test accuracy exceeds this row's upper bound: rows that can't be told
    apart share a rank.
    """
    result = []
    for own in rows:
        rivals = [r for r in rows if all(r[key] == own[key] for key in _GROUP) and _rankable(r)]
        rank = (
            1 + sum(r["test_acc_lo"] > own["test_acc_hi"] for r in rivals)
            if _rankable(own)
            else None
        )
        result.append({**own, "rank": rank})

    def order(entry: dict[str, Any]) -> tuple[Any, ...]:
        group = tuple(str(entry[key]) for key in _GROUP)
        score = entry["test_acc"] if entry["test_acc"] is not None else -math.inf
        return (group, entry["rank"] is None, entry["rank"] or 0, -score, entry["run_id"])

    return sorted(result, key=order)


def _rankable(entry: dict[str, Any]) -> bool:
    return bool(
        entry["feasible"]
        and entry["test_acc"] is not None
        and not is_blocked(entry["flags"].split())
    )


def _milli(value: float | None) -> float | None:
    """Return thousandths: milliseconds of seconds, millijoules of joules."""
    return None if value is None else value * 1e3

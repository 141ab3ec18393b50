"""trials.csv: one line per trial of a study, a pure function of its records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness_results.csvfile import to_csv
from harness_results.figures import COUNT_COLUMNS, count_cells, time_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness_results.record import RunRecord
    from harness_results.store import StudyFolder

COLUMNS = (
    "trial", "run_id", "role", "status", "reason", "feasible", "budget", "statistic", "latency_ms",
    "latency_lo_ms", "latency_hi_ms", "ratio_ref", "ratio_lo", "ratio_hi", *COUNT_COLUMNS,
    "val_acc", "val_loss", "parity_err", "macs", "params", "size_bytes", "criterion", "temperature",
    "kd_weight", "precision", "blocks", "seconds", "flags", "date_utc",
)  # fmt: skip
"""After these come `width.GROUP` and `ratio.GROUP`, realised, for every prunable group."""


def write_trials(folder: StudyFolder, records: Sequence[RunRecord]) -> None:
    """Write `trials.csv` of a study."""
    trials = [record for record in records if record.kind == "trial"]
    groups = list(trials[0].candidate["dense_widths"]) if trials else []
    columns = [*COLUMNS, *(f"width.{g}" for g in groups), *(f"ratio.{g}" for g in groups)]
    write_atomic(folder.path / "trials.csv", to_csv(columns, [_row(record) for record in trials]))


def _row(record: RunRecord) -> dict[str, Any]:
    figures, statistic = record.figures() or {}, record.budget["statistic"]
    ratio = figures.get(f"ratio_{statistic}") or [None] * 3
    validation = record.scores.get("validation", {})
    return {
        "trial": record.index,
        "run_id": record.run_id,
        "role": record.role,
        "status": record.status,
        "reason": record.reason,
        "feasible": record.feasible,
        "budget": record.budget["text"],
        "statistic": statistic,
        **time_cells(record),
        "ratio_ref": ratio[0],
        "ratio_lo": ratio[1],
        "ratio_hi": ratio[2],
        **count_cells(record),
        "val_acc": validation.get("value"),
        "val_loss": validation.get("loss"),
        "parity_err": None if record.parity is None else record.parity["max_error"],
        "macs": record.model.get("macs"),
        "params": record.model.get("params"),
        "size_bytes": record.model.get("size_bytes"),
        "criterion": record.candidate["criterion"],
        "temperature": record.candidate["temperature"],
        "kd_weight": record.candidate["kd_weight"],
        "precision": record.candidate["precision"],
        "blocks": " ".join(record.candidate["blocks"]),
        "seconds": sum(record.timings_s.values()),
        "flags": " ".join(record.flags),
        "date_utc": record.date_utc,
        **{f"width.{group}": width for group, width in record.candidate["widths"].items()},
        **{f"ratio.{group}": ratio for group, ratio in record.candidate["ratios"].items()},
    }

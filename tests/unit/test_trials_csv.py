"""trials.csv: a line per trial, with what it tried and how it ended."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest

from harness_results.store import StudyFolder
from harness_results.trials import COLUMNS, write_trials
from support.records import figures, record

if TYPE_CHECKING:
    from pathlib import Path

    from harness_results.record import RunRecord

GROUPS = ["width.conv1", "width.conv2", "ratio.conv1", "ratio.conv2"]


def written(path: Path, *records: RunRecord) -> list[dict[str, str]]:
    folder = StudyFolder(path, "s")
    folder.create()
    write_trials(folder, records)
    with (folder.path / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def trial(index: int = 0, **overrides: Any) -> RunRecord:
    return record("trial", "searched", index=index, **overrides)


def test_the_columns_end_with_every_groups_width_and_ratio(tmp_path: Path) -> None:
    (row,) = written(tmp_path, trial())
    assert list(row) == [*COLUMNS, *GROUPS]
    assert (row["width.conv1"], row["width.conv2"]) == ("20", "32")
    assert [float(row[name]) for name in GROUPS[2:]] == pytest.approx([3 / 8, 1 / 3], rel=1e-5)


def test_only_trials_are_listed_in_the_order_given(tmp_path: Path) -> None:
    rows = written(tmp_path, record("floor", "floor"), trial(0), record(), trial(1), trial(2))
    assert [row["trial"] for row in rows] == ["0", "1", "2"]


def test_without_trials_there_is_a_header(tmp_path: Path) -> None:
    assert written(tmp_path) == []
    assert (tmp_path / "studies/s/trials.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_a_complete_trial_shows_its_latest_latency(tmp_path: Path) -> None:
    early, late = figures(p50_s=[1e-3] * 3), figures(p50_s=[2e-3, 1.5e-3, 2.5e-3])
    done = trial(latency={"probe": early, "retimed": late}, flags=["steal", "contended"])
    (row,) = written(tmp_path, done)
    keys = ("latency_ms", "latency_lo_ms", "latency_hi_ms")
    assert [float(row[key]) for key in keys] == pytest.approx([2, 1.5, 2.5])
    assert row["flags"] == "steal contended"
    assert float(row["val_acc"]) == pytest.approx(0.92)
    assert float(row["seconds"]) == pytest.approx(1.75)


def test_the_latency_is_of_the_budgets_statistic(tmp_path: Path) -> None:
    made = figures(p90_s=[7e-3] * 3, ratio_p90=[0.7, 0.6, 0.8])
    (row,) = written(tmp_path, trial(statistic="p90", latency={"probe": made}))
    assert (row["statistic"], row["latency_ms"], row["ratio_hi"]) == ("p90", "7", "0.8")


def test_a_trial_over_budget_says_why_and_has_no_accuracy(tmp_path: Path) -> None:
    over = trial(status="over_budget", reason="0.612 of the dense latency", feasible=False)
    (row,) = written(tmp_path, over)
    assert (row["status"], row["feasible"]) == ("over_budget", "false")
    assert row["reason"] == "0.612 of the dense latency"
    assert (row["val_acc"], row["val_loss"]) == ("", "")
    assert float(row["latency_ms"]) > 0


def test_a_failed_trial_leaves_what_it_never_had_empty(tmp_path: Path) -> None:
    reason = "=ExportError: it failed, with a comma"
    failed = trial(status="failed", reason=reason, feasible=None, latency={}, parity=None, model={})
    (row,) = written(tmp_path, failed)
    assert row["reason"] == f"'{reason}"
    empty = ("feasible", "latency_ms", "latency_lo_ms", "latency_hi_ms", "ratio_ref", "ratio_lo",
             "ratio_hi", "val_acc", "parity_err", "macs", "params", "size_bytes")  # fmt: skip
    assert {key: row[key] for key in empty} == dict.fromkeys(empty, "")


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    records = [trial(0), trial(1)]
    written(tmp_path, *records)
    first = (tmp_path / "studies/s/trials.csv").read_bytes()
    written(tmp_path, *records)
    assert (tmp_path / "studies/s/trials.csv").read_bytes() == first

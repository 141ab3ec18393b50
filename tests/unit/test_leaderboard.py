"""The leaderboard: the contract's columns and ranks, and nothing that the records don't hold."""

from __future__ import annotations

import csv
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import ConfigError
from harness.measurement.flags import BLOCKING, NOTES
from harness_results import leaderboard
from harness_results.leaderboard import ranked, rebuild, row
from support.records import figures, finals, record, store, task_facts

if TYPE_CHECKING:
    from pathlib import Path

    from harness_results.record import RunRecord

# As CONTRACT.md has them, and after the ratios the counts of emulated targets.
CONTRACT = [
    "schema", "rank", "run_id", "study", "role", "task", "data_sha256", "metric", "target",
    "backend", "backend_version", "scenario", "threads", "batch", "precision", "fingerprint",
    "budget", "statistic", "feasible", "latency_ms", "latency_lo_ms", "latency_hi_ms",
    "p50_raw_ms", "p90_raw_ms", "p99_raw_ms", "ratio_ref", "ratio_lo", "ratio_hi",
    "guest_minstr", "guest_minstr_lo", "guest_minstr_hi", "n_calls", "n_processes",
    "contended_pct", "val_acc", "test_acc", "test_acc_lo", "test_acc_hi", "n_test", "parity_err",
    "macs", "params", "size_bytes", "peak_mem_bytes", "energy_mj", "granule",
    "seed", "search_trials", "search_s", "gpu_hours", "flags", "onnx_sha256", "commit", "dirty",
    "date_utc",
]  # fmt: skip

LOW, MIDDLE, HIGH = (0.80, 0.78, 0.82), (0.85, 0.83, 0.87), (0.90, 0.88, 0.92)


def ranks(*records: RunRecord) -> list[int | None]:
    """Return the records' ranks, in the order given."""
    by_id = {entry["run_id"]: entry["rank"] for entry in ranked([row(r) for r in records])}
    return [by_id[r.run_id] for r in records]


def with_test(test: tuple[float, float, float], **overrides: Any) -> RunRecord:
    return record(test=test, **overrides)


def test_the_columns_are_the_contracts() -> None:
    assert list(leaderboard.COLUMNS) == CONTRACT


def test_a_row_has_every_column_and_no_other() -> None:
    assert list(row(record())) == CONTRACT


def test_clearly_better_accuracy_ranks_higher() -> None:
    assert ranks(with_test(LOW), with_test(HIGH), with_test(MIDDLE)) == [3, 1, 2]


def test_rows_that_cannot_be_told_apart_share_a_rank() -> None:
    one, two, below = (0.900, 0.88, 0.92), (0.899, 0.87, 0.91), (0.70, 0.65, 0.75)
    assert ranks(with_test(one), with_test(two), with_test(below)) == [1, 1, 3]


def test_a_rank_counts_clear_wins_and_is_not_passed_on() -> None:
    # The middle one overlaps both neighbours; the last is clearly below the first alone.
    top, middle, last = (0.90, 0.88, 0.92), (0.87, 0.85, 0.89), (0.84, 0.82, 0.86)
    assert ranks(with_test(top), with_test(middle), with_test(last)) == [1, 1, 2]


def test_touching_intervals_overlap() -> None:
    assert ranks(with_test((0.9, 0.88, 0.92)), with_test((0.86, 0.84, 0.88))) == [1, 1]


def test_a_metric_that_is_no_share_ranks_alike_also_below_zero() -> None:
    task = task_facts(metric="neg_mean_absolute_error", classes=[])
    best, worst = (-2.0, -2.1, -1.9), (-30.0, -31.0, -29.0)
    made = [record(test=test, task=task) for test in (worst, best)]
    assert ranks(*made) == [2, 1]
    rows = ranked([row(one) for one in made])
    assert [entry["test_acc"] for entry in rows] == [-2.0, -30.0]
    assert [entry["metric"] for entry in rows] == ["neg_mean_absolute_error"] * 2


def test_an_infeasible_row_is_kept_and_neither_ranked_nor_a_rival() -> None:
    assert ranks(with_test(HIGH, feasible=False), with_test(LOW)) == [None, 1]
    assert ranks(with_test(HIGH, feasible=None), with_test(LOW)) == [None, 1]


@pytest.mark.parametrize("flag", sorted(BLOCKING))
def test_a_blocking_flag_keeps_a_row_and_takes_its_rank(flag: str) -> None:
    assert ranks(with_test(HIGH, flags=[flag]), with_test(LOW)) == [None, 1]
    assert ranks(with_test(HIGH, flags=["steal", flag]), with_test(LOW)) == [None, 1]


@pytest.mark.parametrize("flag", sorted(NOTES))
def test_a_note_does_not_take_a_rank(flag: str) -> None:
    assert ranks(with_test(HIGH, flags=[flag]), with_test(LOW)) == [1, 2]


def test_a_row_without_test_accuracy_has_no_rank() -> None:
    unknown = with_test(HIGH, scores={"validation": {"value": 0.9}})
    assert ranks(unknown, with_test(LOW)) == [None, 1]


TARGET = record().target


@pytest.mark.parametrize(
    "other",
    [
        {"task": task_facts(name="other")},
        {"task": task_facts(data_sha256="db" * 32)},
        {"task": task_facts(metric="f1_macro")},
        {"environment": record().environment | {"fingerprint": "else.where"}},
        {"target": TARGET | {"scenario": "offline"}},
        {"budget": "40%"},
        {"budget": "10ms"},
        {"statistic": "p90"},
    ],
    ids=["task", "data", "metric", "machine", "scenario", "share", "time", "statistic"],
)
def test_rows_of_another_group_are_no_rivals(other: dict[str, Any]) -> None:
    assert ranks(with_test(HIGH), with_test(LOW)) == [1, 2]
    assert ranks(with_test(HIGH), with_test(LOW, feasible=True, **other)) == [1, 1]


def test_roles_studies_and_seeds_of_one_group_are_rivals() -> None:
    best = with_test(HIGH, role="uniform", study="another")
    assert ranks(best, with_test(LOW, search=record().search | {"seed": 9})) == [1, 2]


def test_the_best_comes_first_and_the_unranked_last() -> None:
    rows = [with_test(LOW), with_test(HIGH), with_test(HIGH, feasible=False), with_test(MIDDLE)]
    assert [entry["rank"] for entry in ranked([row(r) for r in rows])] == [1, 2, 3, None]


def test_the_order_of_reading_does_not_matter() -> None:
    one, two, three = (row(with_test(test)) for test in (LOW, MIDDLE, (0.86, 0.80, 0.90)))
    expected = ranked([one, two, three])
    for order in itertools.permutations([one, two, three]):
        assert ranked(order) == expected


def test_latencies_are_in_milliseconds_and_shares_in_percent() -> None:
    made = figures(
        0.5, p50_s=[2e-3, 1e-3, 3e-3], p50_raw_s=4e-3, p90_raw_s=5e-3, p99_raw_s=6e-3,
        ratio_p50=[0.5, 0.4, 0.6], contended=0.25, energy_j=0.002,
        peak_mem_bytes=[1024.0, 1000.0, 2048.0],
    )  # fmt: skip
    entry = row(record(latency={"final": made}))
    keys = ("latency_ms", "latency_lo_ms", "latency_hi_ms", "p50_raw_ms", "p90_raw_ms",
            "p99_raw_ms", "contended_pct", "energy_mj")  # fmt: skip
    assert [entry[key] for key in keys] == pytest.approx([2, 1, 3, 4, 5, 6, 25, 2])
    assert [entry[key] for key in ("ratio_ref", "ratio_lo", "ratio_hi")] == [0.5, 0.4, 0.6]
    assert entry["peak_mem_bytes"] == 1024


def test_memory_is_a_whole_number_of_bytes() -> None:
    halved = figures(peak_mem_bytes=[1024.5, 1024, 1025])
    assert str(row(record(latency={"final": halved}))["peak_mem_bytes"]) == "1024"


def test_the_latency_is_of_the_budgets_statistic() -> None:
    made = figures(0.5, p50_s=[2e-3] * 3, p90_s=[7e-3] * 3, ratio_p90=[0.7, 0.6, 0.8])
    entry = row(record(latency={"final": made}, statistic="p90"))
    assert entry["statistic"] == "p90"
    assert entry["latency_ms"] == pytest.approx(7)
    assert entry["ratio_hi"] == 0.8


def cells(results: Path) -> list[dict[str, str]]:
    with (results / leaderboard.FILE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_all_finals_and_no_trial(tmp_path: Path) -> None:
    trial, floor = record("trial", "uniform"), record("floor", "floor", index=None)
    store(tmp_path, [*finals().values(), trial, floor])
    store(tmp_path, [record("final", "dense", study="another")])
    rebuild(tmp_path)
    assert sorted(entry["role"] for entry in cells(tmp_path)) == [
        "dense", "dense", "global", "uniform", "winner",
    ]  # fmt: skip
    assert {entry["study"] for entry in cells(tmp_path)} == {"tiny-fake-50pct-p50-s0", "another"}


def test_a_set_without_its_dense_record_is_not_shown_yet(tmp_path: Path) -> None:
    store(tmp_path, [record("final", role) for role in ("winner", "uniform")])
    rebuild(tmp_path)
    assert cells(tmp_path) == []


def test_rebuilding_gives_the_same_bytes(tmp_path: Path) -> None:
    store(tmp_path, finals().values())
    rebuild(tmp_path)
    first = (tmp_path / leaderboard.FILE).read_bytes()
    (tmp_path / leaderboard.FILE).write_bytes(first[:-50] + b"half a row, or somebody's edit")
    rebuild(tmp_path)
    assert (tmp_path / leaderboard.FILE).read_bytes() == first


def test_the_order_of_writing_does_not_matter(tmp_path: Path) -> None:
    made = [
        *finals().values(),
        record("final", "dense", study="another"),
        record("final", "dense", study="third", feasible=False),
    ]
    tables = set()
    for number in range(4):
        random.Random(number).shuffle(made)
        store(tmp_path / str(number), made)
        rebuild(tmp_path / str(number))
        tables.add((tmp_path / str(number) / leaderboard.FILE).read_bytes())
    assert len(tables) == 1


def test_what_is_unknown_is_an_empty_cell(tmp_path: Path) -> None:
    made = figures(p90_raw_s=None, p99_raw_s=None, ratio_p50=None)
    bare = record(
        "final", "dense", latency={"final": made}, parity=None, git={"commit": None, "dirty": None}
    )
    store(tmp_path, [bare])
    rebuild(tmp_path)
    (entry,) = cells(tmp_path)
    unknown = ("p90_raw_ms", "p99_raw_ms", "ratio_ref", "ratio_lo", "ratio_hi", "parity_err",
               "commit", "dirty", "peak_mem_bytes", "energy_mj", "gpu_hours")  # fmt: skip
    assert {key: entry[key] for key in unknown} == dict.fromkeys(unknown, "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_cell_starts_a_formula(tmp_path: Path, start: str) -> None:
    evil = f"{start}HYPERLINK(1)"
    git = {"commit": evil, "dirty": None}
    task = task_facts(name=evil, metric=evil, data_sha256=evil)
    target = TARGET | {"name": evil, "backend_version": evil}
    store(
        tmp_path,
        [record("final", "dense", study=evil, task=task, target=target, flags=[evil], git=git)],
    )
    rebuild(tmp_path)
    (entry,) = cells(tmp_path)
    assert sum(evil in value for value in entry.values()) == 8
    assert not [value for value in entry.values() if value.startswith(("=", "+", "-", "@"))]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    store(tmp_path, finals().values())
    written = rebuild(tmp_path)
    read = leaderboard.read(tmp_path / leaderboard.FILE)
    assert [entry["run_id"] for entry in read] == [entry["run_id"] for entry in written]
    assert [entry["rank"] for entry in read] == [
        "" if entry["rank"] is None else str(entry["rank"]) for entry in written
    ]


def test_a_figure_below_zero_is_written_as_a_number_and_read(tmp_path: Path) -> None:
    task = task_facts(metric="neg_mean_absolute_error", classes=[])
    store(tmp_path, [record(role="dense", task=task, test=(-2.5, -3.0, -2.0), validation=-1e-7)])
    rebuild(tmp_path)
    (entry,) = cells(tmp_path)
    keys = ("test_acc", "test_acc_lo", "test_acc_hi", "val_acc")
    assert [float(entry[key]) for key in keys] == [-2.5, -3.0, -2.0, -1e-7]
    leaderboard.read(tmp_path / leaderboard.FILE)


def test_a_corrupt_record_keeps_the_old_table(tmp_path: Path) -> None:
    folder = store(tmp_path, finals().values())
    rebuild(tmp_path)
    before = (tmp_path / leaderboard.FILE).read_bytes()
    path = next(folder.records.glob("*.json"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match="corrupt"):
        rebuild(tmp_path)
    assert (tmp_path / leaderboard.FILE).read_bytes() == before


def test_a_figure_that_is_no_number_is_refused(tmp_path: Path) -> None:
    store(tmp_path, finals().values())
    rebuild(tmp_path)
    path = tmp_path / leaderboard.FILE
    first, second, *rest = path.read_text().splitlines()
    damaged = second.split(",")
    damaged[CONTRACT.index("test_acc")] = "abc"
    path.write_text("\n".join([first, ",".join(damaged), *rest]) + "\n")
    with pytest.raises(ConfigError, match="abc"):
        leaderboard.read(path)

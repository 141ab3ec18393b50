"""The results folder: records with their samples, and what a kill may leave behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.measurement.types import LatencySample
from harness_results.store import (
    StudyFolder,
    all_records,
    check_writable,
    find_record,
    relative,
)
from support.records import record, store


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path / "results", "s")
    made.create()
    return made


def sample(first: int) -> LatencySample:
    wall = np.arange(first, first + 6, dtype=np.int64).reshape(2, 3)
    return LatencySample(wall, wall + 100, np.zeros_like(wall), np.array([first, first + 1]))


def test_the_layout_is_the_contracts(folder: StudyFolder) -> None:
    path = folder.results / "studies" / "s"
    assert folder.path == path
    assert folder.database == path / "study.db"
    assert folder.records == path / "records"
    assert folder.models == path / "models"
    assert folder.winner == path / "winner"


def test_making_it_twice_changes_nothing(folder: StudyFolder) -> None:
    folder.write(record(), {})
    folder.create()
    assert folder.read() == [record()]


def test_samples_lie_beside_their_record(folder: StudyFolder) -> None:
    made = record()
    folder.write(made, {"final.candidate": [sample(0), sample(50)], "final.reference": [sample(9)]})
    with np.load(folder.records / f"{made.run_id}.npz", allow_pickle=False) as arrays:
        assert len(arrays.files) == 12
        np.testing.assert_array_equal(arrays["final.candidate.1.wall_ns"], sample(50).wall_ns)
        np.testing.assert_array_equal(arrays["final.reference.0.cpu_ns"], sample(9).cpu_ns)
        np.testing.assert_array_equal(arrays["final.candidate.0.nivcsw"], sample(0).nivcsw)
        np.testing.assert_array_equal(arrays["final.candidate.1.sitting"], [50, 51])


def test_the_record_is_written_after_its_samples(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def note(path: Path, data: bytes) -> None:
        written.append(path.suffix)

    monkeypatch.setattr("harness_results.store.write_atomic", note)
    folder.write(record(), {"final.candidate": [sample(0)]})
    assert written == [".npz", ".json"]


def test_trials_come_first_by_number_then_the_rest_by_time(folder: StudyFolder) -> None:
    early, late = "2026-01-31T11:59:59Z", "2026-01-31T12:00:01Z"
    two, ten = record("trial", "searched", index=2), record("trial", "searched", index=10)
    one = record("trial", "global", index=1, date=late)
    final, floor = record(index=10), record("floor", "floor", index=None, date=early)
    later_final = record(index=2, date=late)
    for made in (later_final, final, ten, two, floor, one):
        folder.write(made, {})
    assert folder.read() == [one, two, ten, floor, final, later_final]


def test_one_corrupt_record_refuses_the_study(folder: StudyFolder) -> None:
    folder.write(record(), {})
    (folder.records / "20260131T120000Z-00000000.json").write_text("{")
    with pytest.raises(ConfigError, match="20260131T120000Z-00000000.json is corrupt"):
        folder.read()


def test_all_studies_are_read(tmp_path: Path) -> None:
    for study in ("b", "a"):
        store(tmp_path, [record(study=study), record("trial", "global", study=study)])
    found = [(folder.study, made.kind) for folder, made in all_records(tmp_path)]
    assert found == [("a", "trial"), ("a", "final"), ("b", "trial"), ("b", "final")]


def test_a_results_folder_without_studies_has_no_records(tmp_path: Path) -> None:
    assert list(all_records(tmp_path)) == []


def test_a_record_is_found_by_its_id(tmp_path: Path) -> None:
    wanted = record(study="b")
    store(tmp_path, [record(study="a")])
    store(tmp_path, [wanted])
    folder, found = find_record(tmp_path, wanted.run_id)
    assert (folder, found) == (StudyFolder(tmp_path, "b"), wanted)


@pytest.mark.parametrize("run_id", ["20260131T120000Z-00000000", "*", "", "../a"])
def test_an_unknown_id_is_named(tmp_path: Path, run_id: str) -> None:
    store(tmp_path, [record()])
    with pytest.raises(ConfigError, match="RUN_IDs are in leaderboard.csv") as got:
        find_record(tmp_path, run_id)
    assert repr(run_id) in str(got.value)


def test_sweeping_removes_what_a_kill_left_and_nothing_else(folder: StudyFolder) -> None:
    whole = record()
    folder.write(whole, {"final.candidate": [sample(0)]})
    kept = [folder.models / "dense.onnx", folder.path / "study.json", folder.path / "trials.csv"]
    litter = [
        folder.records / ".x.json.123.tmp",
        folder.path / ".study.json.123.tmp",
        folder.models / ".trial-0001.onnx.123.tmp",
        folder.records / "20260131T120000Z-00000000.npz",
    ]
    for path in (*kept, *litter):
        path.write_text("x")
    folder.sweep()
    assert [path for path in litter if path.exists()] == []
    assert all(path.exists() for path in kept)
    assert folder.read() == [whole]
    assert (folder.records / f"{whole.run_id}.npz").exists()


def test_checking_leaves_an_empty_folder(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_is_no_results_folder(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="--results DIR"):
        check_writable(path)
    assert path.read_text() == "mine"


def test_two_searches_may_check_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        real(source, target)
        Path(target).unlink()  # another process, at the same point, was faster

    monkeypatch.setattr(os, "replace", replace)
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_paths_in_records_are_within_the_study(folder: StudyFolder) -> None:
    assert relative(folder.models / "dense.onnx", folder) == "models/dense.onnx"


def test_readings_of_the_test_split_are_counted_over_all_budgets(folder: StudyFolder) -> None:
    assert folder.test_reads() == 0
    for budget, reads in (("50%", 1), ("30%", 2)):
        assert folder.count_test_read() == reads
        search = record().search | {"test_reads": reads}
        folder.write(record(budget=budget, search=search), {})
    assert folder.count_test_read() == 3  # and nothing is written: a kill
    assert folder.test_reads() == 3


@pytest.mark.parametrize("aside", [False, True])
def test_records_tell_of_readings_where_the_count_is_lost(folder: StudyFolder, aside: bool) -> None:
    one = record(search=record().search | {"test_reads": 2})
    folder.write(one, {})
    if aside:
        folder.supersede(one)
    assert folder.test_reads() == 2
    assert folder.count_test_read() == 3


@pytest.mark.parametrize("text", ["", "two", "-1", "\xb2"])
def test_a_spoilt_count_of_readings_is_named(folder: StudyFolder, text: str) -> None:
    folder.test_counter.write_text(text)
    with pytest.raises(ConfigError, match=r"test_reads\.txt is corrupt.*Restore the file"):
        folder.count_test_read()

"""A whole search with a made-up clock: what it leaves behind, says and repeats."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.running import environment, essence, read_records, run_cli, run_search, trials


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def done(base: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    results = base / "results"
    return results, run_search(base, results, "--budget", "50%", "--trials", "5")


Done = tuple[Path, subprocess.CompletedProcess[str]]


def study(results: Path) -> Path:
    (found,) = (results / "studies").iterdir()
    return found


def test_it_succeeds_and_says_so(done: Done) -> None:
    _, ended = done
    assert ended.returncode == 0, ended.stderr
    assert "faster" in ended.stdout
    assert "test accuracy" in ended.stdout
    assert "of raw calls within budget" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_controls_come_first_then_the_sampler(done: Done) -> None:
    roles = [record["role"] for record in trials(done[0])]
    assert roles == ["global", "uniform", "searched", "searched", "searched"]
    for record in trials(done[0])[2:]:
        names = set(record["suggestion"]) - {"precision"}  # drawn where int8 is faster here
        assert {"temperature", "kd_weight", "criterion", "ratio.conv1", "ratio.conv2"} == names


def test_every_trained_trial_was_timed_before_and_after(done: Done) -> None:
    for record in trials(done[0]):
        assert record["probes"]
        if record["status"] == "complete":
            assert {"probe", "retimed"} <= record["latency"].keys()
            assert record["parity"]["passed"]
            assert record["training"]["epochs"] == 1


def test_nothing_over_the_budget_was_trained(done: Done) -> None:
    for record in trials(done[0]):
        high = record["latency"]["probe"]["ratio_p50"][2]
        assert (record["training"] is not None) == (high <= 0.5)


def test_realised_widths_are_those_of_the_exported_file(done: Done) -> None:
    import onnx

    for record in trials(done[0]):
        path = study(done[0]) / record["model"]["onnx"]
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["model"]["sha256"]
        # Batch norms are folded into their convolutions, so weights carry new names; shapes stay.
        graph = onnx.load_model_from_string(data).graph
        kernels = [list(t.dims) for t in graph.initializer if len(t.dims) == 4]
        widths = record["candidate"]["widths"]
        assert kernels == [[widths["conv1"], 1, 3, 3], [widths["conv2"], widths["conv1"], 3, 3]]


def test_raw_samples_lie_beside_every_record(done: Done) -> None:
    for record in read_records(done[0]):
        path = study(done[0]) / "records" / f"{record['run_id']}.npz"
        with np.load(path, allow_pickle=False) as arrays:
            phases = {name.split(".")[0] for name in arrays.files}
            assert phases
            for name in arrays.files:
                assert arrays[name].dtype == np.int64
                assert arrays[name].ndim == (1 if name.endswith(".sitting") else 2)


def test_the_finals_are_fresh_and_the_test_split_was_read_once(done: Done) -> None:
    finals = [record for record in read_records(done[0]) if record["kind"] == "final"]
    assert {record["role"] for record in finals} == {"dense", "uniform", "global", "winner"}
    for record in finals:
        assert record["latency"]["final"]["n_processes"] >= 5
        assert record["search"]["test_reads"] == 1
        assert record["scores"]["test"]["n"] == 90
    for record in trials(done[0]):
        assert "test" not in record["scores"]


def test_the_winner_is_the_best_by_validation(done: Done) -> None:
    able = [r for r in trials(done[0]) if r["feasible"]]
    best = max(
        able,
        key=lambda r: (
            r["scores"]["validation"]["value"],
            -r["scores"]["validation"]["loss"],
        ),
    )
    winner = next(r for r in read_records(done[0]) if r["role"] == "winner")
    assert winner["index"] == best["index"]
    assert winner["feasible"]
    assert winner["latency"]["final"]["ratio_p50"][2] <= 0.5


def test_the_leaderboard_holds_the_finals(done: Done) -> None:
    with (done[0] / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["role"] for row in rows} == {"dense", "uniform", "global", "winner"}
    dense = next(row for row in rows if row["role"] == "dense")
    assert dense["feasible"] == "false"
    assert dense["rank"] == ""
    assert dense["ratio_ref"] == "1"


def test_the_winner_folder_runs_alone(done: Done, base: Path) -> None:
    folder = study(done[0]) / "winner"
    names = {path.name for path in folder.iterdir()}
    expected = {"model.onnx", "weights.safetensors", "pruning.json", "card.md", "run.py"}
    assert names == expected | {"search.png"}
    assert len((folder / "run.py").read_text().splitlines()) <= 15
    inputs = base / "inputs.npy"
    np.save(inputs, np.zeros((1, 1, 8, 8), np.float32))
    ended = subprocess.run(
        [sys.executable, folder / "run.py", inputs], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() in ("[0]", "[1]", "[2]")
    history = json.loads((folder / "pruning.json").read_text())
    kept = {name: 1 + max(0, n) for name, n in history["widths"].items()}
    assert kept.keys() == history["dense_widths"].keys()
    assert (folder / "search.png").read_bytes().startswith(b"\x89PNG")


def test_replay_rebuilds_the_winner(done: Done, base: Path) -> None:
    winner = next(r for r in read_records(done[0]) if r["role"] == "winner")
    ended = run_cli(base, "replay", winner["run_id"], "--results", str(done[0]))
    assert ended.returncode == 0, ended.stderr
    assert "same outputs" in ended.stdout


def test_replay_notices_other_weights(done: Done, base: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    results = tmp_path / "copy"
    shutil.copytree(done[0], results)
    winner = next(r for r in read_records(results) if r["role"] == "winner")
    path = study(results) / winner["model"]["weights"]
    state = load_file(str(path))
    state["head.bias"] = state["head.bias"] + 1.0
    save_file(state, str(path))
    ended = run_cli(base, "replay", winner["run_id"], "--results", str(results))
    assert ended.returncode == 1, ended.stderr
    assert "not the same" in ended.stdout


def test_a_finished_study_prints_its_result_and_changes_nothing(done: Done, base: Path) -> None:
    before = {p: p.read_bytes() for p in done[0].rglob("records/*")}
    ended = run_search(base, done[0], "--budget", "50%", "--trials", "5")
    assert ended.returncode == 0, ended.stderr
    assert "faster" in ended.stdout
    assert {p: p.read_bytes() for p in done[0].rglob("records/*")} == before


def test_the_same_seed_repeats_the_search(done: Done, base: Path) -> None:
    again = base / "again"
    ended = run_search(base, again, "--budget", "50%", "--trials", "5")
    assert ended.returncode == 0, ended.stderr
    assert [essence(r) for r in trials(again)] == [essence(r) for r in trials(done[0])]


def test_a_list_of_budgets_yields_one_winner_each(base: Path) -> None:
    results = base / "front"
    ended = run_search(base, results, "--budget", "60%,40%", "--trials", "6")
    assert ended.returncode == 0, ended.stderr
    winners = [r for r in read_records(results) if r["role"] == "winner"]
    assert sorted(r["budget"]["text"] for r in winners) == ["40%", "60%"]
    assert {p.name for p in (study(results) / "winner").iterdir()} == {"40pct", "60pct"}
    finals = [r for r in read_records(results) if r["kind"] == "final"]
    reads = {(r["budget"]["text"], r["search"]["test_reads"]) for r in finals}
    assert sorted(count for _, count in reads) == [1, 2]  # by the study, not by the budget
    assert "read 2 times by this study" in " ".join(ended.stdout.split())


def test_a_time_budget_bounds_the_p90(base: Path) -> None:
    results = base / "time"
    ended = run_search(base, results, "--budget", "400us", "--trials", "2")
    assert ended.returncode == 0, ended.stderr
    winner = next(r for r in read_records(results) if r["role"] == "winner")
    assert winner["budget"]["statistic"] == "p90"
    assert winner["latency"]["final"]["p90_s"][2] <= 400e-6


def test_a_budget_below_the_floor_ends_before_the_teacher(base: Path) -> None:
    results = base / "floor"
    ended = run_search(base, results, "--budget", "5%", "--trials", "3")
    assert ended.returncode == 1
    assert "No network meets this budget" in ended.stdout
    assert "training the dense model" not in ended.stderr
    (record,) = read_records(results)
    assert record["role"] == "floor"
    assert record["feasible"] is False


def test_a_budget_above_dense_says_that_pruning_is_not_needed(base: Path) -> None:
    results = base / "above"
    ended = run_search(base, results, "--budget", "120%", "--trials", "3")
    assert ended.returncode == 0, ended.stderr
    assert "Pruning isn't needed" in ended.stdout
    assert trials(results) == []
    assert (study(results) / "winner" / "model.onnx").exists()


def test_max_size_bounds_the_file(base: Path) -> None:
    results = base / "size"
    ended = run_search(base, results, "--budget", "80%", "--max-size", "20kB", "--trials", "3")
    assert ended.returncode == 0, ended.stderr
    winner = next(r for r in read_records(results) if r["role"] == "winner")
    assert winner["model"]["size_bytes"] <= 20_000


def test_max_drop_takes_the_fastest_within_the_loss(base: Path) -> None:
    results = base / "drop"
    ended = run_search(base, results, "--budget", "70%", "--max-drop", "40pt", "--trials", "5")
    assert ended.returncode == 0, ended.stderr
    winner = next(r for r in read_records(results) if r["role"] == "winner")
    dense = next(r for r in read_records(results) if r["role"] == "dense")
    limit = dense["scores"]["validation"]["value"] - 0.4
    within = [
        r for r in trials(results)
        if r["feasible"] and r["scores"]["validation"]["value"] >= limit - 1e-9
    ]  # fmt: skip
    fastest = min(within, key=lambda r: r["latency"]["retimed"]["p50_s"][0])
    assert winner["index"] == fastest["index"]


def test_excluded_groups_stay_whole(base: Path) -> None:
    results = base / "exclude"
    ended = run_search(base, results, "--budget", "60%", "--exclude", "conv1", "--trials", "3")
    assert ended.returncode == 0, ended.stderr
    for record in trials(results):
        assert record["candidate"]["widths"]["conv1"] == 32
        assert "ratio.conv1" not in (record["suggestion"] or {})


def test_a_dry_run_trains_and_leaves_nothing(base: Path) -> None:
    results = base / "dry"
    ended = run_search(base, results, "--budget", "50%", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    for words in ("floor", "conv1", "teacher", "about", "within reach"):
        assert words in ended.stdout
    assert not results.exists()


def test_more_trials_continue_a_finished_study(base: Path) -> None:
    results = base / "more"
    run_search(base, results, "--budget", "50%", "--trials", "2")
    first = [essence(r) for r in trials(results)]
    ended = run_search(base, results, "--budget", "50%", "--trials", "4")
    assert ended.returncode == 0, ended.stderr
    assert [essence(r) for r in trials(results)][:2] == first
    assert len(trials(results)) == 4
    finals = [r for r in read_records(results) if r["kind"] == "final"]
    assert {r["search"]["test_reads"] for r in finals} == {1, 2}  # the second reading is told


def test_a_changed_setup_needs_remeasure(base: Path) -> None:
    results = base / "setup"
    run_search(base, results, "--budget", "50%", "--trials", "2")
    path = study(results) / "study.json"
    known: dict[str, Any] = json.loads(path.read_text())
    known["setup"]["fingerprint"] = "another"
    path.write_text(json.dumps(known))
    refused = run_search(base, results, "--budget", "50%", "--trials", "2")
    assert refused.returncode == 2
    assert "--remeasure" in refused.stderr
    before = trials(results)
    ended = run_search(base, results, "--budget", "50%", "--trials", "2", "--remeasure")
    assert ended.returncode == 0, ended.stderr
    after = trials(results)
    assert [r["model"]["sha256"] for r in after] == [r["model"]["sha256"] for r in before]
    assert not {r["run_id"] for r in after} & {r["run_id"] for r in before}
    kept = {p.stem for p in results.glob("studies/*/records/superseded/*.json")}
    assert {r["run_id"] for r in before} <= kept


def test_a_study_in_use_is_refused(base: Path) -> None:
    import fcntl

    results = base / "busy"
    folder = results / "studies" / "mine"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = run_search(base, results, "--budget", "50%", "--study", "mine", "--trials", "2")
    assert ended.returncode == 75
    assert "another process" in ended.stderr


def test_no_process_of_ours_imports_onnxruntime(base: Path) -> None:
    code = (
        "import sys; from support.cli import register; register();"
        "import harness_search.engine, harness.cli, harness.api;"
        "assert 'onnxruntime' not in sys.modules"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(base), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr

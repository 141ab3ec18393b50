"""A search in two precisions with a made-up clock, which takes a file's size for its time."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from support.running import essence, read_records, run_cli, run_search, trials

ARGS = ("--budget", "45%", "--trials", "5", "--precision", "int8,fp32")
Done = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("precision")


@pytest.fixture(scope="module")
def done(base: Path) -> Done:
    results = base / "results"
    return results, run_search(base, results, *ARGS)


def operators(results: Path, record: dict[str, Any]) -> set[str]:
    """Return the kinds of nodes in a record's file."""
    import onnx

    (study,) = (results / "studies").iterdir()
    return {node.op_type for node in onnx.load(str(study / record["model"]["onnx"])).graph.node}


def test_each_precision_has_a_floor(done: Done) -> None:
    results, ended = done
    assert ended.returncode == 0, ended.stderr
    floors = {r["candidate"]["precision"]: r for r in read_records(results) if r["kind"] == "floor"}
    assert floors.keys() == {"fp32", "int8"}
    assert "whole" not in floors["fp32"]["latency"]
    assert floors["int8"]["latency"]["whole"]["ratio_p50"][0] < 1


def test_int8_begins_with_global_pruning_and_keeps_more_of_it(done: Done) -> None:
    made = trials(done[0])
    assert [r["role"] for r in made] == ["global", "int8", "uniform", "searched", "searched"]
    assert [r["candidate"]["precision"] for r in made[:3]] == ["fp32", "int8", "fp32"]
    kept = [sum(record["candidate"]["widths"].values()) for record in made]
    assert kept[1] > kept[0]
    for record in made[3:]:
        assert record["candidate"]["precision"] == record["suggestion"]["precision"]


def test_what_is_timed_and_scored_is_in_the_precision_that_the_record_says(done: Done) -> None:
    trained = [record for record in trials(done[0]) if record["status"] == "complete"]
    assert {record["candidate"]["precision"] for record in trained} == {"fp32", "int8"}
    for record in trained:
        whole = record["candidate"]["precision"] == "fp32"
        assert ("QuantizeLinear" in operators(done[0], record)) is not whole
        assert record["parity"]["passed"]


def test_an_int8_trial_is_replayed(done: Done, base: Path) -> None:
    record = next(r for r in trials(done[0]) if r["role"] == "int8")
    ended = run_cli(base, "replay", record["run_id"], "--results", str(done[0]))
    assert ended.returncode == 0, ended.stderr
    assert "the same network: its int8 file was" in ended.stdout


def test_other_weights_of_an_int8_trial_are_noticed(done: Done, base: Path, tmp_path: Path) -> None:
    results = tmp_path / "copy"
    shutil.copytree(done[0], results)
    record = next(r for r in trials(results) if r["role"] == "int8")
    (study,) = (results / "studies").iterdir()
    path = str(study / record["model"]["weights"])
    state = load_file(path)
    save_file({**state, "head.bias": state["head.bias"] + 1.0}, path)
    ended = run_cli(base, "replay", record["run_id"], "--results", str(results))
    assert ended.returncode == 1, ended.stderr
    assert "not the same" in ended.stdout


def test_going_on_is_as_one_search(done: Done, base: Path) -> None:
    parts = base / "parts"
    first = tuple("3" if one == "5" else one for one in ARGS)
    assert run_search(base, parts, *first).returncode == 0
    assert run_search(base, parts, *ARGS).returncode == 0
    assert [essence(r) for r in trials(parts)] == [essence(r) for r in trials(done[0])]
    assert sum(r["kind"] == "floor" for r in read_records(parts)) == 2


def test_on_a_changed_setup_integers_are_scored_again(done: Done, tmp_path: Path) -> None:
    results, base = tmp_path / "copy", tmp_path / "base"
    shutil.copytree(done[0], results)
    (study,) = (results / "studies").iterdir()
    known = json.loads((study / "study.json").read_text())
    known["setup"]["fingerprint"] = "another"
    (study / "study.json").write_text(json.dumps(known))
    before = trials(results)
    base.mkdir()
    shutil.copytree(done[0].parent / "cache", base / "cache")
    ended = run_search(base, results, *ARGS, "--remeasure")
    assert ended.returncode == 0, ended.stderr
    after = trials(results)
    assert [r["scores"] for r in after] == [r["scores"] for r in before]  # the CPU is the same
    assert [r["candidate"] for r in after] == [r["candidate"] for r in before]
    assert not {r["run_id"] for r in after} & {r["run_id"] for r in before}
    assert sum(r["kind"] == "floor" for r in read_records(results)) == 2


def test_a_dry_run_shows_what_each_precision_takes(base: Path) -> None:
    ended = run_search(base, base / "dry", *ARGS[:2], "--precision", "fp32,int8", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    for words in ("dense in int8", "network in fp32", "network in int8", "global in int8"):
        assert words in ended.stdout
    assert not (base / "dry").exists()


def test_int8_alone_gives_a_winner_that_says_so(base: Path) -> None:
    results = base / "pinned"
    ended = run_search(base, results, "--budget", "45%", "--trials", "2", "--precision", "int8")
    assert ended.returncode == 0, ended.stderr
    assert ["precision", "fp32", "int8", "int8", "int8"] in [
        line.split() for line in ended.stdout.splitlines()
    ]
    winner = next(r for r in read_records(results) if r["role"] == "winner")
    with (results / "leaderboard.csv").open() as file:
        rows = {row["role"]: row["precision"] for row in csv.DictReader(file)}
    assert rows == {"dense": "fp32", "uniform": "int8", "global": "int8", "winner": "int8"}
    (study,) = (results / "studies").iterdir()
    text = (study / "winner" / "card.md").read_text()
    assert "Precision int8: 8-bit weights per channel" in text
    assert "as far from the file, which rounds to integers, as it was" in text
    again = run_cli(base, "replay", winner["run_id"], "--results", str(results))
    assert "the same network: its int8 file was" in again.stdout, again.stderr


def test_a_size_limit_is_met_in_int8(base: Path, done: Done) -> None:
    whole = next(r for r in read_records(done[0]) if r["role"] == "dense")["model"]["size_bytes"]
    results, limit = base / "small", int(0.4 * whole)
    args = ("--budget", "90%", "--max-size", f"{limit}B", "--precision", "fp32,int8")
    ended = run_search(base, results, *args, "--trials", "3")
    assert ended.returncode == 0, ended.stderr
    kept = {r["role"]: sum(r["candidate"]["widths"].values()) for r in trials(results)}
    assert kept["int8"] > kept["global"]
    for record in trials(results):
        assert record["status"] != "complete" or record["model"]["size_bytes"] <= limit


def test_other_precisions_are_another_study(done: Done, base: Path) -> None:
    ended = run_search(base, done[0], *ARGS[:4], "--precision", "int8")
    assert ended.returncode == 2
    assert "precisions" in ended.stderr


def test_an_unknown_precision_is_refused_with_the_nearest(base: Path) -> None:
    ended = run_search(base, base / "none", "--budget", "50%", "--precision", "fp32,int4")
    assert ended.returncode == 2
    assert "Received: 'int4'. Did you mean 'int8'?" in ended.stderr
    assert not (base / "none").exists()

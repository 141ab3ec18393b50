"""A search that may leave out residual blocks, with a made-up clock: a file's size is its time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from harness.cli import app
from support.cli import registered
from support.own import write_images
from support.running import essence, read_records, trials

NETS = """\
from harness.models.residual import ResidualCnn


def build(num_classes, in_channels):
    return ResidualCnn(in_channels, (16, 32), (2, 2), classes=num_classes)
"""
TASK = ("--model", "nets.py:build", "--data", "x.npz", "--target", "fake", "--precision", "fp32")
QUICK = ("--recipe", "trial_epochs=1", "--recipe", "teacher_epochs=2", "--recipe", "batch=32")
BLOCKS = ["stages.0.0", "stages.0.1", "stages.1.1"]


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a user's files, the current one; caches and settings are below it."""
    folder = tmp_path_factory.mktemp("depth")
    (folder / "nets.py").write_text(NETS)
    write_images(folder / "x.npz")
    cores = torch.get_num_threads()
    with registered(folder), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    torch.set_num_threads(cores)


def search(results: str, *args: str, ends: int = 0) -> Result:
    every = ("search", *TASK, *QUICK, "--results", results, *args)
    ended = CliRunner().invoke(app, every)
    assert ended.exit_code == ends, (ended.exit_code, ended.stderr, ended.stdout)
    return ended


@pytest.fixture(scope="module")
def done(base: Path) -> Result:
    return search("results", "--budget", "40%", "--trials", "6")


def study(results: str) -> Path:
    (found,) = (Path(results) / "studies").iterdir()
    return found


def final(results: str, role: str) -> dict[str, Any]:
    return next(r for r in read_records(Path(results)) if (r["kind"], r["role"]) == ("final", role))


def test_depth_comes_after_global_pruning(done: Result) -> None:
    made = trials(Path("results"))
    roles = ["global", "depth", "uniform", "searched", "searched", "searched"]
    assert [record["role"] for record in made] == roles
    for record in made:
        blocks = record["candidate"]["blocks"]
        assert blocks == [name for name in BLOCKS if name in blocks]
        if record["role"] == "searched":
            assert len(blocks) == record["suggestion"]["depth"]
    assert made[0]["candidate"]["blocks"] == made[2]["candidate"]["blocks"] == []
    assert made[1]["candidate"]["blocks"]


def test_a_block_that_went_has_no_channels_and_no_layers(done: Result) -> None:
    import onnx

    for record in trials(Path("results")):
        blocks, widths = record["candidate"]["blocks"], record["candidate"]["widths"]
        gone = {name for name, width in widths.items() if not width}
        assert gone == {f"{block}.conv1" for block in blocks}
        assert all(record["candidate"]["ratios"][name] == 1 for name in gone)
        if record["status"] == "complete":
            graph = onnx.load(str(study("results") / record["model"]["onnx"])).graph
            convolutions = sum(node.op_type == "Conv" for node in graph.node)
            assert convolutions == 10 - 2 * len(blocks)
    with (study("results") / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["blocks"].split() for row in rows] == [
        record["candidate"]["blocks"] for record in trials(Path("results"))
    ]


def test_the_floor_lacks_every_block(done: Result) -> None:
    (floor,) = (r for r in read_records(Path("results")) if r["kind"] == "floor")
    assert floor["candidate"]["blocks"] == BLOCKS
    assert set(floor["candidate"]["widths"].values()) == {0, 4}


def test_every_trained_trial_is_rebuilt(done: Result) -> None:
    for record in trials(Path("results")):
        if record["status"] == "complete":
            ended = CliRunner().invoke(app, ["replay", record["run_id"]])
            assert ended.exit_code == 0, (ended.stderr, ended.stdout)


def test_going_on_is_as_one_search(done: Result) -> None:
    search("parts", "--budget", "40%", "--trials", "3")
    search("parts", "--budget", "40%", "--trials", "6")
    expected = [essence(r) for r in trials(Path("results"))]
    assert [essence(r) for r in trials(Path("parts"))] == expected


def test_a_budget_that_only_fewer_blocks_meet_is_met() -> None:
    ended = search("tight", "--budget", "6%", "--trials", "3")
    made = {record["role"]: record for record in trials(Path("tight"))}
    assert made["uniform"]["status"] == made["global"]["status"] == "over_budget"
    winner = final("tight", "winner")
    assert winner["index"] == made["depth"]["index"]
    blocks = ", ".join(winner["candidate"]["blocks"])
    assert f"left out: {blocks}" in " ".join(ended.stdout.split())
    card = (study("tight") / "winner" / "card.md").read_text()
    assert f"Residual blocks left out: {blocks}." in card


def test_no_block_goes_where_the_user_wants_none() -> None:
    search("whole", "--budget", "40%", "--trials", "3", "--blocks", "none")
    made = trials(Path("whole"))
    assert [record["role"] for record in made] == ["global", "uniform", "searched"]
    assert not any(record["candidate"]["blocks"] for record in made)
    assert "depth" not in made[2]["suggestion"]


def test_an_unknown_block_is_refused_with_the_nearest() -> None:
    ended = search("none", "--budget", "40%", "--blocks", "stages.0.7", ends=2)
    assert "Did you mean 'stages.0." in ended.stderr
    assert not Path("none").exists()


def test_a_dry_run_names_the_blocks() -> None:
    ended = search("dry", "--budget", "40%", "--dry-run")
    assert f"blocks that may be left out: {', '.join(BLOCKS)}" in ended.stdout
    assert "global without some blocks" in ended.stdout


def test_blocks_go_under_several_budgets_with_all_other_limits() -> None:
    options = (
        "--budget", "25%,50%", "--trials", "8", "--max-drop", "60pt", "--max-size", "60kB",
        "--train-fraction", "0.5",
    )  # fmt: skip
    search("front", *options)
    made = trials(Path("front"))
    assert [(r["role"], r["budget"]["text"]) for r in made[2:4]] == [
        ("depth", "25%"), ("depth", "50%")
    ]  # fmt: skip
    for record in made:
        if record["status"] == "complete":
            assert record["model"]["size_bytes"] <= 60_000
            assert record["latency"]["retimed"]["ratio_p50"][0] <= record["budget"]["value"]
    before = (study("front") / "blocks.json").read_bytes()
    identity = study("front") / "study.json"
    known = json.loads(identity.read_text())
    known["setup"]["fingerprint"] = "another"
    identity.write_text(json.dumps(known))
    search("front", *options, "--remeasure")
    again = trials(Path("front"))
    assert [r["candidate"] for r in again] == [r["candidate"] for r in made]
    assert (study("front") / "blocks.json").read_bytes() == before

"""A user's own network, data, loss and metric, from the command line, a task file and Python.

The clock is made up; networks are tiny and trained for an epoch.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import harness
from harness.cli import app
from harness.errors import ConfigError
from support.cli import registered
from support.datafiles import image_folder
from support.own import trained_tiny, write_images, write_network, write_table
from support.running import essence, read_records, trials
from support.values import TwoHeads, seeded, two_output_data

KERAS = Path(__file__).parents[1] / "fixtures" / "keras_cnn.onnx"
FAST = ("--recipe", "trial_epochs=1", "--recipe", "batch=32")
QUICK = (*FAST, "--recipe", "teacher_epochs=2", "--recipe", "teacher_lr=0.01")
TIMED = ("--target", "fake", "--budget", "60%")


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a user's files, the current one; caches and settings are below it."""
    folder = tmp_path_factory.mktemp("own")
    write_network(folder, trained_tiny())
    write_images(folder / "x.npz")
    write_table(folder / "t.csv")
    cores = torch.get_num_threads()
    with registered(folder), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    torch.set_num_threads(cores)


def call(*args: str) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def search(results: str, *args: str, trials: int = 3, ends: int = 0) -> Result:
    ended = call("search", *TIMED, "--results", results, "--trials", str(trials), *args)
    assert ended.exit_code == ends, (ended.exit_code, ended.stderr, ended.stdout)
    return ended


def role(results: str | Path, name: str) -> dict[str, Any]:
    finals = [r for r in read_records(Path(results)) if r["kind"] == "final" and r["role"] == name]
    return finals[-1]


def study(results: str) -> Path:
    (found,) = (Path(results) / "studies").iterdir()
    return found


def column(path: str | Path, name: str) -> list[str]:
    with Path(path).open(newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


# A network in a file, its weights, arrays

NET = ("--model", "nets.py:build", "--weights", "w.safetensors", "--data", "x.npz", *FAST)


@pytest.fixture(scope="module")
def network(base: Path) -> Result:
    return search("net", *NET)


def test_an_own_network_is_searched_and_its_weights_are_kept(network: Result) -> None:
    assert "training the dense model" not in network.stderr
    assert re.search(r"dense model: [\d.]+ % validation accuracy", network.stderr)
    assert "faster" in network.stdout
    assert study("net").name == "build-x-fake-60pct-p50-s0"
    dense = load_file(str(study("net") / "models" / "dense.safetensors"))
    given = load_file("w.safetensors")
    assert all(torch.equal(dense[name], given[name]) for name in given)


def test_the_record_says_what_the_task_was_made_from(network: Result, base: Path) -> None:
    task = role("net", "winner")["task"]
    source = task["source"]
    assert source["model"].endswith("nets.py:build")
    assert source["weights"].endswith("w.safetensors")
    assert source["data"]["source"].endswith(f"{base}/x.npz")
    assert task["splits"] == {"train": 210, "validation": 45, "test": 45} | {
        "origin": task["splits"]["origin"]
    }
    assert task["inputs"]["shape"] == [1, 8, 8]
    assert task["inputs"]["scale"]["factor"] == pytest.approx(1 / 255)
    assert len(task["classes"]) == 3


def test_it_is_resumed_where_it_stopped(network: Result) -> None:
    before = [essence(record) for record in trials(Path("net"))]
    search("net", *NET, trials=4)
    after = [essence(record) for record in trials(Path("net"))]
    assert after[:3] == before
    assert len(after) == 4


def test_it_is_replayed_from_what_it_was_made_from_in_any_folder(
    network: Result, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = role("net", "winner")["run_id"]
    monkeypatch.chdir(tmp_path)
    ended = call("replay", run_id, "--results", str(base / "net"))
    assert ended.exit_code == 0, ended.stderr
    assert "same outputs" in ended.stdout


def test_other_weights_other_data_or_another_recipe_are_another_study(
    network: Result, tmp_path: Path
) -> None:
    state = load_file("w.safetensors")
    state["head.bias"] = state["head.bias"] + 1.0
    save_file(state, str(tmp_path / "w2.safetensors"))
    write_images(tmp_path / "x.npz", seed=9)
    own = ("--study", study("net").name)
    for changed, named in (
        (("--weights", str(tmp_path / "w2.safetensors")), "model_sha256"),
        (("--data", str(tmp_path / "x.npz")), "data_sha256"),
        (("--recipe", "trial_lr=0.5"), 'recipe {"trial_lr": 0.001}; received {"trial_lr": 0.5}'),
        (("--metric", "balanced_accuracy"), "objective"),
        (("--augment", "flip"), "augmentation"),
        (("--train-fraction", "0.5"), "reduction"),
    ):
        ended = search("net", *NET, *own, *changed, ends=2)
        assert f"was begun with {named}" in " ".join(ended.stderr.split()), ended.stderr


def test_a_replay_notices_that_the_data_are_others(network: Result, tmp_path: Path) -> None:
    kept = Path("x.npz").read_bytes()
    try:
        write_images(Path("x.npz"), seed=5)
        ended = call("replay", role("net", "winner")["run_id"], "--results", "net")
    finally:
        Path("x.npz").write_bytes(kept)
    assert ended.exit_code == 2
    assert "its hash differs" in " ".join(ended.stderr.split())


def test_own_loss_and_metric_by_name(base: Path) -> None:
    search(
        "functions", *NET, "--loss", "nets.py:weighted_loss", "--metric",
        "nets.py:share_of_right", "--max-drop", "0.9", "--augment", "flip+shift", trials=2,
    )  # fmt: skip
    winner = role("functions", "winner")
    metric = winner["task"]["metric"]
    assert re.fullmatch("share_of_right#[0-9a-f]{6}", metric)
    assert winner["candidate"]["temperature"] is not None  # they are still classes
    assert set(column("functions/leaderboard.csv", "metric")) == {metric}
    assert call("leaderboard", "functions/leaderboard.csv").exit_code == 0


def test_a_dry_run_of_an_own_network_leaves_nothing(base: Path) -> None:
    ended = call("search", *TIMED, "--dry-run", "--results", "dry", *NET)
    assert ended.exit_code == 0, ended.stderr
    for words in ("conv1", "conv2", "within reach", "0 s (its weights are there)"):
        assert words in ended.stdout, ended.stdout
    assert not Path("dry").exists()


# Values from a table


@pytest.fixture(scope="module")
def table(base: Path) -> Result:
    return search("table", "--model", "mlp", "--data", "t.csv,label=y", *QUICK)


def test_values_are_searched_for_by_r2(table: Result) -> None:
    assert re.search(r"dense model: -?[\d.e-]+ validation r2 \(", table.stderr)
    assert "test r2" in table.stdout
    dense = role("table", "dense")
    for record in (dense, role("table", "winner")):
        test = record["scores"]["test"]
        assert test["lo"] <= test["value"] <= test["hi"] <= 1
    assert dense["task"]["classes"] == []
    accuracy = [line for line in table.stdout.splitlines() if "accuracy" in line]
    assert accuracy == []


def test_distilled_values_have_no_temperature(table: Result) -> None:
    for record in trials(Path("table")):
        assert record["candidate"]["temperature"] is None
        assert 0 <= record["candidate"]["kd_weight"] <= 1
        assert record["parity"]["passed"]
    assert set(column(study("table") / "trials.csv", "temperature")) == {""}


def test_what_was_done_to_the_table_is_told(table: Result) -> None:
    said = " ".join((table.stdout + table.stderr).split())
    assert "colour" in said
    assert "missing" in said


def test_the_winner_predicts_values(table: Result) -> None:
    folder = study("table") / "winner"
    card = (folder / "card.md").read_text()
    assert " r2 on the 45 samples" in " ".join(card.split())
    assert "temperature" not in card
    task = role("table", "winner")["task"]
    assert [column["name"] for column in task["columns"]] == ["a", "b", "c", "colour"]
    assert task["targets"] == ["y"]
    assert "| 3 to 5 | colour |" in card
    assert all(f"- {note}" in card for note in task["notes"])
    assert any("missing" in note for note in task["notes"])
    shape = role("table", "winner")["task"]["inputs"]["shape"]
    np.save(folder / "inputs.npy", np.zeros((5, *shape), np.float32))
    ended = subprocess.run(
        [sys.executable, folder / "run.py", folder / "inputs.npy"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "output" in ended.stdout


def test_a_table_is_replayed(table: Result) -> None:
    ended = call("replay", role("table", "winner")["run_id"], "--results", "table")
    assert ended.exit_code == 0, ended.stderr


# Signals, and images as TensorFlow has them


def write_signals(path: Path) -> NDArray[np.float32]:
    """Write waves of two channels and three speeds; return some."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    waves = np.sin(np.arange(32) * np.array([0.2, 0.6, 1.1])[labels][:, None])[:, None]
    x = (waves + 0.2 * rng.normal(size=(120, 2, 32))).astype(np.float32)
    np.savez(path, x=x, y=labels)
    return x[:5]


def write_nhwc(path: Path) -> NDArray[np.float32]:
    """Write small grey images `[N, 8, 8, 1]` of ten kinds; return some."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 10
    kinds = rng.random((10, 8, 8, 1))
    x = (kinds[labels] + 0.1 * rng.normal(size=(200, 8, 8, 1))).astype(np.float32)
    np.savez(path, x=x, y=labels)
    return x[:5]


@pytest.mark.parametrize(
    ("name", "model", "write", "options", "shape"),
    [
        ("signals", "cnn1d", write_signals, "", "2x32"),
        ("nhwc", f"onnx:{KERAS}", write_nhwc, ",layout=nhwc", "8x8x1"),
    ],
    ids=["signals", "nhwc"],
)
def test_a_winner_of_another_shape_is_run_and_replayed(
    base: Path, name: str, model: str, write: Any, options: str, shape: str
) -> None:
    inputs = write(Path(f"{name}.npz"))
    search(name, "--model", model, "--data", f"{name}.npz{options}", *QUICK, trials=2)
    folder, winner = study(name) / "winner", role(name, "winner")
    assert f"Inputs: float32, {shape} for one sample" in (folder / "card.md").read_text()
    np.save(folder / "inputs.npy", inputs)
    ended = subprocess.run(
        [sys.executable, folder / "run.py", folder / "inputs.npy"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.strip("[]\n").split()) == len(inputs)
    assert call("replay", winner["run_id"], "--results", name).exit_code == 0
    assert call("leaderboard", "--results", name).exit_code == 0


# Two outputs, from Python


def both_loss(outputs: Any, targets: Any) -> torch.Tensor:
    (logits, values), (classes, truth) = outputs, targets
    return F.cross_entropy(logits, classes) + F.l1_loss(values, truth) / 5


def closeness(outputs: Any, targets: Any) -> torch.Tensor:
    (logits, values), (classes, truth) = outputs, targets
    return (logits.argmax(1) == classes).float() - (values - truth).abs().mean(1) / 10


def given(results: str) -> dict[str, Any]:
    return {
        "loss": both_loss, "metric": closeness, "target": "fake", "budget": "60%", "trials": 3,
        "results": results, "recipe": {"teacher_epochs": 3, "trial_epochs": 1, "batch": 32},
    }  # fmt: skip


@pytest.fixture(scope="module")
def two(base: Path) -> Any:
    return harness.search(seeded(TwoHeads), two_output_data(), **given("two"))


def test_a_network_of_two_outputs_is_searched(two: Any) -> None:
    assert two.exit_code == 0
    winner = two.budgets[0].winner
    assert re.fullmatch("closeness#[0-9a-f]{6}", winner.task["metric"])
    assert winner.parity["passed"]
    assert winner.scores["test"]["n"] == 60
    import onnx

    graph = onnx.load(str(two.folder.path / winner.model["onnx"])).graph
    assert [one.name for one in graph.output] == ["output_0", "output_1"]
    shapes = [[d.dim_value for d in o.type.tensor_type.shape.dim] for o in graph.output]
    assert shapes == [[1, 3], [1, 2]]  # the heads are whole


def test_a_task_of_objects_says_so_and_is_replayed_from_them(two: Any) -> None:
    run_id = two.budgets[0].winner.run_id
    assert two.budgets[0].winner.task["source"] == {}
    with pytest.raises(ConfigError, match=r"given as Python objects.*`harness\.replay`"):
        harness.replay(run_id, results="two")
    ended = call("replay", run_id, "--results", "two")
    assert ended.exit_code == 2
    assert "harness.replay" in ended.stderr
    options = {k: v for k, v in given("two").items() if k not in ("budget", "trials", "target")}
    assert harness.replay(run_id, seeded(TwoHeads), two_output_data(), **options).same
    other_weights = seeded(TwoHeads, seed=1)  # the recorded ones take their place
    assert harness.replay(run_id, other_weights, two_output_data(), **options).same


def test_a_replay_of_another_network_says_that_it_is_another(two: Any) -> None:
    other = seeded(TwoHeads)
    other.fc2, other.classes, other.values = nn.Linear(32, 8), nn.Linear(8, 3), nn.Linear(8, 2)
    options = {k: v for k, v in given("two").items() if k not in ("budget", "trials", "target")}
    run_id = two.budgets[0].winner.run_id
    with pytest.raises(ConfigError, match="is not the one that .* was pruned from: its hash"):
        harness.replay(run_id, other, two_output_data(), **options)


def test_it_resumes_with_the_same_objects_and_no_others(two: Any) -> None:
    again = harness.search(seeded(TwoHeads), two_output_data(), **given("two"))
    assert [r.run_id for r in again.trials] == [r.run_id for r in two.trials]
    with pytest.raises(ConfigError, match="begun with model_sha256"):
        harness.search(seeded(TwoHeads, seed=1), two_output_data(), **given("two"))
    data = two_output_data()
    with pytest.raises(ConfigError, match="begun with data_sha256"):
        harness.search(seeded(TwoHeads), replace(data, sha256="0" * 64), **given("two"))


def test_two_outputs_need_a_loss_and_a_metric(base: Path) -> None:
    options = given("none")
    del options["metric"]
    with pytest.raises(ConfigError, match="a loss and a metric are needed"):
        harness.search(seeded(TwoHeads), two_output_data(), **options)
    assert not Path("none").exists()


def test_a_loss_that_fails_ends_the_search_with_its_words(base: Path) -> None:
    def broken(outputs: Any, targets: Any) -> torch.Tensor:
        raise KeyError("boxes")

    with pytest.raises(ConfigError, match="The loss failed: KeyError: 'boxes'"):
        harness.search(seeded(TwoHeads), two_output_data(), **{**given("b"), "loss": broken})
    assert not Path("b").exists()  # it is tried before anything is timed


def test_a_plan_from_python(base: Path) -> None:
    options = {k: v for k, v in given("plan").items() if k != "trials"}
    made = harness.plan(seeded(TwoHeads), two_output_data(), time="10min", **options)
    assert [group.name for group in made.groups] == ["fc1", "fc2"]
    assert made.reachable == (True,)
    assert made.trials is not None
    assert made.trials > 0
    assert not Path("plan").exists()


# A task file


def test_the_template_runs_as_it_is_written(base: Path) -> None:
    assert call("init", "parts.toml").exit_code == 0
    search("file", "--task", "parts.toml", *QUICK, "--recipe", "teacher_epochs=1", trials=2)
    winner = role("file", "winner")
    assert winner["task"]["name"].startswith("small-cnn-digits")
    assert len(winner["task"]["classes"]) == 10
    ended = call("replay", winner["run_id"], "--results", "file")
    assert ended.exit_code == 0, ended.stderr


def test_a_task_file_elsewhere_finds_its_neighbours(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        'model = "nets.py:build"\nweights = "w.safetensors"\n[data]\ntrain = "x.npz"\n'
        'test = "x2.npz"\n[recipe]\ntrial_epochs = 1\n[search]\nbudget = "60%"\ntrials = 2\n'
        'target = "fake"\nresults = "out"\n'
    )
    folder = base / "task"
    folder.mkdir()
    (folder / "t.toml").write_text(text)
    write_network(folder)
    write_images(folder / "x.npz")
    write_images(folder / "x2.npz", n=60, seed=3)
    monkeypatch.chdir(tmp_path)
    ended = call("search", "--task", str(folder / "t.toml"))
    assert ended.exit_code == 0, ended.stderr
    assert list(tmp_path.iterdir()) == []
    winner = role(folder / "out", "winner")
    assert winner["task"]["splits"]["test"] == 60
    replayed = call("replay", winner["run_id"], "--results", str(folder / "out"))
    assert replayed.exit_code == 0, replayed.stderr


# Less data


@pytest.fixture(scope="module")
def reduced(base: Path) -> Result:
    args = ("--task", "tiny", "--train-fraction", "0.5", "--coreset", "k-center")
    return search("less", *args, "--recipe", "batch=16")


def test_candidates_learn_from_a_part_of_the_samples(reduced: Result) -> None:
    for record in trials(Path("less")):
        training = record["training"]
        assert (training["samples"], training["of"], training["reduction"]) == (
            160, 320, "k-center",
        )  # fmt: skip


def test_what_less_data_cost_is_told_of_the_winner_alone(reduced: Result) -> None:
    training = role("less", "winner")["training"]
    whole = training["on_all_samples"]
    assert whole["epochs"] == training["epochs"] == 1  # as asked for
    assert whole["train_s"] > 0
    assert training["train_s"] > 0
    assert whole["score"]["n"] == 90  # the test split: the winner's validation score flatters it
    assert whole["score"]["lo"] <= whole["score"]["value"] <= whole["score"]["hi"]
    for name in ("uniform", "global"):
        assert "on_all_samples" not in role("less", name)["training"]
    (line,) = [line for line in reduced.stdout.splitlines() if line.startswith("less data:")]
    for part in (
        "160 of 320 samples (k-center, epochs 1)",
        "the same network trained on all",
        "pt, ",
    ):
        assert part in line, line


def test_all_samples_leave_no_such_line(network: Result) -> None:
    assert "less data" not in network.stdout
    assert "on_all_samples" not in role("net", "winner")["training"]


# Bad input

OWN = {"--model": "nets.py:build", "--data": "x.npz"}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"--model": "nets.py:bild"}, ["'bild'", "Did you mean 'build'"]),
        ({"--model": "none.py:build"}, ["none.py", "can't be read"]),
        ({"--model": "nets.py:broken"}, ["RuntimeError: no such layer", "nets.py"]),
        ({"--model": "smal-cnn"}, ["'smal-cnn'", "Did you mean 'small-cnn'"]),
        ({"--model": "mlp"}, ["mlp"]),  # takes no images
        ({"--model": "onnx:none.onnx"}, ["none.onnx"]),
        ({"--weights": "none.safetensors"}, ["none.safetensors"]),
        ({"--weights": "x.npz"}, ["x.npz"]),
        ({"--data": "none.npz"}, ["'none.npz'"]),
        ({"--data": "x.npz,wings=2"}, ["'wings'"]),
        ({"--data": "t.csv,label=z"}, ["'z'"]),
        ({"--data": "x.npz,normalize=some"}, ["normalize", "'some'"]),
        ({"--augment": "rotate"}, ["--augment", "'rotate'", "flip"]),
        ({"--loss": "mse"}, ["--loss", "cross_entropy", "'mse'"]),
        ({"--metric": "r2"}, ["--metric", "accuracy", "'r2'"]),
        ({"--loss": "nets.py:nothing"}, ["'nothing'"]),
        ({"--max-drop": "0.1"}, ["percentage points", "'0.1'"]),
        ({"--layers": "conv9"}, ["'conv9'", "conv1, conv2"]),
        ({"--task": "tiny"}, ["not both"]),
    ],
    ids=lambda value: (
        " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else ""
    ),
)
def test_bad_input_of_ones_own_is_one_message_and_leaves_nothing(
    base: Path, changed: dict[str, str], named: list[str]
) -> None:
    before = {path for path in base.rglob("*") if "__pycache__" not in path.parts}
    args = [part for pair in (OWN | changed).items() for part in pair]
    ended = call("search", *TIMED, "--trials", "2", "--results", "bad", *args)
    assert ended.exit_code == 2, (ended.exit_code, ended.stderr)
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert sum(line.startswith("error:") for line in lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    said = "".join(ended.stderr.split())
    for text in named:
        assert "".join(text.split()) in said, ended.stderr
    after = {path for path in base.rglob("*") if "__pycache__" not in path.parts}
    assert {p for p in after - before if "cache" not in p.parts} == set()


def test_results_among_the_images_are_refused_and_leave_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image_folder(tmp_path / "photos", 50, "ab"))
    before = set(Path().rglob("*"))
    ended = call("search", *TIMED, "--trials", "2", "--model", "small-cnn", "--data", ".")
    assert ended.exit_code == 2, ended.stderr
    said = " ".join(ended.stderr.split())
    assert "The results folder must lie outside of the image folder" in said
    assert said.count("error:") == 1
    assert set(Path().rglob("*")) == before


def test_a_metric_that_returns_rubbish_ends_the_search_without_a_winner(base: Path) -> None:
    def odd(outputs: Any, targets: Any) -> float:
        return float("nan")

    options = {**given("odd"), "metric": odd}
    with pytest.raises(ConfigError, match="'odd' must return one finite number"):
        harness.search(seeded(TwoHeads), two_output_data(), **options)
    assert not Path("odd").exists()


def test_json_of_every_record_is_plain(network: Result, table: Result, two: Any) -> None:
    for name in ("net", "table", "two"):
        for path in Path(name).glob("studies/*/records/*.json"):
            json.loads(path.read_text(), parse_constant=pytest.fail)

"""The winner's folder: model, weights, history, card, a script that runs it, picture."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from harness_results.card import replay_command
from harness_results.store import StudyFolder
from harness_results.winner import pruning_history, run_py, winner_folder, write_winner
from support.records import PRUNED, finals, record, store, task_facts, training

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_results.record import RunRecord

FILES = ["card.md", "model.onnx", "pruning.json", "run.py", "search.png", "weights.safetensors"]


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_the_folder_holds_all_that_is_needed(tmp_path: Path) -> None:
    made = finals()
    folder = store(tmp_path, made.values())
    write_winner(folder, [*made.values(), record("trial", "searched", index=2)], ["50%"])
    assert names(folder.winner) == FILES
    models = folder.models
    assert (folder.winner / "model.onnx").read_bytes() == (models / "trial-0002.onnx").read_bytes()
    weights = (models / "trial-0002.safetensors").read_bytes()
    assert (folder.winner / "weights.safetensors").read_bytes() == weights
    assert not list(folder.path.glob("winner.*"))


def test_the_pruning_history_says_what_was_removed_from_what(tmp_path: Path) -> None:
    made = finals()
    folder = store(tmp_path, made.values())
    write_winner(folder, list(made.values()), ["50%"])
    history = json.loads((folder.winner / "pruning.json").read_text())
    assert history == pruning_history(made["winner"])
    assert history["widths"] == PRUNED
    for group, removed in history["removed_channels"].items():
        assert history["dense_widths"][group] - len(removed) == history["widths"][group]


def test_the_card_tells_figures_machine_and_how_to_replay(tmp_path: Path) -> None:
    made = finals()
    folder = store(tmp_path, made.values())
    write_winner(folder, list(made.values()), ["50%"])
    card = (folder.winner / "card.md").read_text(encoding="utf-8")
    for part in (
        "90.00 % (86.00 to 94.00) accuracy on the 90 samples", "had then read once",
        "takes a batch of 1 at a time", "14.6 µs", "47.0%", "made up",
        "15000 calls in 5 fresh processes", f"`harness replay {made['winner'].run_id} --results",
        "| conv1 | 32 | 20 | 38% |", "609fd5c6ea.2d1ce66016", "criterion l2",
    ):  # fmt: skip
        assert part in card, part
    for role in made:
        assert f"\n| {role} |" in card


def card_of(tmp_path: Path, **overrides: Any) -> str:
    made = [
        record(role="dense", ratio=1.0, task=overrides.get("task", task_facts())),
        record(role="winner", index=2, **overrides),
    ]
    folder = store(tmp_path, made)
    write_winner(folder, made, ["50%"])
    return " ".join((folder.winner / "card.md").read_text(encoding="utf-8").split())


def test_the_card_tells_how_samples_are_prepared_and_the_classes_in_order(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    for part in (
        "float32, 1x8x8 for one sample", "(x * 0.00392157 - mean) / std", "mean 0.5 and std 0.25",
        "in this order: slow, middle, fast", "at temperature 4 with weight 0.7",
        "Trained on 320 of 320 samples, 1 epochs", f"dense network `{'de' * 8}`",
    ):  # fmt: skip
        assert part in card, part


@pytest.mark.parametrize(
    ("shape", "mean", "factor", "said", "unsaid"),
    [
        ([3, 8, 8], [0.1, 0.2, 0.3], 1 / 255, "by channel, x being pixels from 0 to 255", "-"),
        ([8, 8, 1], [0.1], 1 / 255, "std 1, x being pixels from 0 to 255", "by channel"),
        ([2, 64], [0.1, 0.2], 1.0, "mean 0.1, 0.2 and std 1 by channel.", "pixels"),
        ([4], [0.1, 0.2, 0.3, 0.4], 1.0, "and std 1.", "channel"),
    ],
    ids=["colours", "grey", "signals", "table"],
)
def test_the_card_says_what_is_scaled(
    tmp_path: Path, shape: list[int], mean: list[float], factor: float, said: str, unsaid: str
) -> None:
    scale = {"mean": mean, "std": [1.0], "factor": factor}
    task = task_facts(classes=[], inputs={"shape": shape, "dtype": "float32", "scale": scale})
    _, _, told = card_of(tmp_path, task=task).partition("Inputs:")
    assert said in told
    assert unsaid == "-" or unsaid not in told


def test_the_card_of_a_regression_shows_plain_numbers_and_no_classes(tmp_path: Path) -> None:
    inputs = {"shape": [5], "dtype": "float32", "scale": None}
    task = task_facts(metric="neg_mean_absolute_error", classes=[], inputs=inputs)
    candidate = record().candidate | {"temperature": None}
    card = card_of(tmp_path, task=task, candidate=candidate, test=(-1.25, -1.5, -1.0))
    for part in (
        "-1.25 (-1.5 to -1) neg mean absolute error on the 90 samples",
        "Inputs: float32, 5 for one sample.", "distilled with weight 0.7",
    ):  # fmt: skip
        assert part in card, part
    for part in ("accuracy", "class", "temperature", "prepared as", " %)", "images"):
        assert part not in card, part


def test_the_card_of_a_table_tells_which_features_come_of_which_column(tmp_path: Path) -> None:
    columns = [
        {"name": "age", "categories": [], "missing": 41.5},
        {"name": "a|b", "categories": ["blue", "green", "red"], "missing": None},
        {"name": "rich", "categories": [], "missing": 1.0},
    ]
    task = task_facts(
        metric="r2", classes=[], columns=columns, targets=["price", "rent"],
        notes=["age: 3 missing, set to the training median 41.5."],
    )  # fmt: skip
    card = card_of(tmp_path, task=task)
    for part in (
        "What is predicted: price, rent.",
        "| 0 | age | the number, 1 for true; 41.5 where it is missing |",
        r"| 1 to 3 | a\|b | 1 for the cell's text, else 0, in this order: blue, green, red |",
        "| 4 | rich |", "- age: 3 missing, set to the training median 41.5.",
    ):  # fmt: skip
        assert part in card, part


def test_the_card_of_other_data_has_no_such_table(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    for part in ("feature", "What is predicted", "Of model and data"):
        assert part not in card


def test_the_card_tells_that_less_data_was_used(tmp_path: Path) -> None:
    card = card_of(tmp_path, training=training(samples=160, reduction="k-center"))
    assert "Trained on 160 of 320 samples (k-center)" in card


def test_a_dense_winner_was_not_pruned(tmp_path: Path) -> None:
    dense = record(role="dense", ratio=1.0, budget="150%", feasible=True)
    won = record(role="winner", ratio=1.0, budget="150%", feasible=True, pruning=None,
                 candidate=dense.candidate)  # fmt: skip
    folder = store(tmp_path, [dense, won])
    write_winner(folder, [dense, won], ["150%"])
    assert "already within the budget" in (folder.winner / "card.md").read_text()
    assert pruning_history(won)["removed_channels"] == {}


@pytest.mark.parametrize(
    ("source", "results", "said"),
    [
        ({"task": "tiny"}, "results", "harness replay ID"),
        ({"task": "tiny"}, "my results", "harness replay ID --results 'my results'"),
        ({}, "results", "harness.replay('ID', model, data, ...)"),
        ({}, "out", "harness.replay('ID', model, data, ..., results='out')"),
    ],
)
def test_how_to_replay_depends_on_the_task_and_the_folder(
    source: dict[str, Any], results: str, said: str
) -> None:
    one = record(task=task_facts(source=source))
    assert replay_command(one, Path(results)).replace(one.run_id, "ID") == said


def test_the_card_of_a_task_of_objects_names_no_command(tmp_path: Path) -> None:
    card = card_of(tmp_path, task=task_facts(source={}))
    assert "harness replay" not in card
    assert "in Python, with the objects and options that the search was given, does that" in card


REGRESSION = task_facts(metric="r2", classes=[])


@pytest.mark.parametrize("task", [task_facts(), REGRESSION], ids=["classes", "values"])
def test_run_py_is_short_and_says_no_to_telemetry_before_the_import(task: dict[str, Any]) -> None:
    script = run_py(record(task=task).task)
    assert len(script.splitlines()) <= 14
    assert script.index("ORT_DISABLE_TELEMETRY") < script.index("import numpy as np, onnxruntime")
    compile(script, "run.py", "exec")


def answers(
    folder: Path,
    one: RunRecord,
    inputs: NDArray[Any],
    kind: int = onnx.TensorProto.FLOAT,
    batch: int = 1,
) -> list[str]:
    """Return what run.py prints without and with inputs, beside a file that turns the sign."""
    helper = onnx.helper
    shape = (batch, *inputs.shape[1:])
    info = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y", "z")]
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    (folder / "run.py").write_text(run_py(one.task))
    np.save(folder / "inputs.npy", inputs)
    said = []
    for arguments in ([], ["inputs.npy"]):
        done = subprocess.run(
            [sys.executable, "run.py", *arguments],
            cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
    return said


def test_run_py_classifies(tmp_path: Path) -> None:
    assert answers(tmp_path, record(), np.array([[5.0, 3.0, 4.0]])) == ["[0]", "[1]"]


def test_run_py_of_values_prints_all_outputs_by_name(tmp_path: Path) -> None:
    _, said = answers(tmp_path, record(task=REGRESSION), np.array([[-1.5, 2.25]]))
    for part in ("'y'", "'z'", "1.5", "-2.25", "2.25"):
        assert part in said, said


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_run_py_takes_any_number_of_samples(tmp_path: Path, batch: int) -> None:
    """The file's batch is fixed; five samples are no multiple of it."""
    _, said = answers(tmp_path, record(), -np.eye(3)[[2, 0, 1, 1, 2]], batch=batch)
    assert said == "[2 0 1 1 2]"
    _, said = answers(tmp_path, record(task=REGRESSION), np.arange(5.0)[:, None], batch=batch)
    assert said.count("[") == 2 * 6, said  # two outputs of five rows
    assert "[-4.]" in said, said


def test_run_py_feeds_whole_numbers_where_the_file_takes_them(tmp_path: Path) -> None:
    kind = onnx.TensorProto.INT64
    assert answers(tmp_path, record(), np.array([[5.0, 3.0, 4.0]]), kind) == ["[0]", "[1]"]


def test_an_old_winner_is_replaced_as_a_whole(tmp_path: Path) -> None:
    made = finals()
    folder = store(tmp_path, made.values())
    write_winner(folder, list(made.values()), ["50%"])
    (folder.winner / "leftover").write_text("x")
    later = record(role="winner", index=5, date="2026-02-01T00:00:00Z", test=(0.95, 0.9, 0.98))
    store(tmp_path, [later])
    write_winner(folder, [*made.values(), later], ["50%"])
    assert names(folder.winner) == FILES
    assert later.run_id in (folder.winner / "card.md").read_text()


def test_the_latest_final_wins_though_its_trial_is_an_older_one(tmp_path: Path) -> None:
    made = finals()
    folder = store(tmp_path, made.values())
    later = record(role="winner", index=1, date="2026-02-01T00:00:00Z")
    store(tmp_path, [later])
    write_winner(folder, folder.read(), ["50%"])
    assert later.run_id in (folder.winner / "card.md").read_text(encoding="utf-8")


def test_without_a_feasible_winner_none_is_left_lying(tmp_path: Path) -> None:
    made = finals()
    folder = store(tmp_path, made.values())
    write_winner(folder, list(made.values()), ["50%"])
    missed = record(role="winner", index=2, feasible=False, date="2026-02-01T00:00:00Z")
    write_winner(folder, [*made.values(), missed], ["50%"])
    assert not folder.winner.exists()
    assert not list(folder.path.glob("winner*"))


def test_a_search_without_finals_has_no_winner(tmp_path: Path) -> None:
    folder = store(tmp_path, [record("trial", "uniform")])
    write_winner(folder, folder.read(), ["50%"])
    assert not folder.winner.exists()


def test_a_front_has_a_folder_per_budget(tmp_path: Path) -> None:
    tight = {
        role: record(role=role, budget="30%", index=4, ratio=ratio, feasible=role == "winner")
        for role, ratio in (("dense", 1.0), ("winner", 0.29))
    }
    made = [*finals().values(), *tight.values()]
    folder = store(tmp_path, made)
    write_winner(folder, made, ["30%", "50%"])
    assert names(folder.winner) == ["30pct", "50pct"]
    for part, index in (("30pct", 4), ("50pct", 2)):
        assert names(folder.winner / part) == FILES
        model = (folder.winner / part / "model.onnx").read_bytes()
        assert model == (folder.models / f"trial-{index:04d}.onnx").read_bytes()


def test_a_front_keeps_the_points_that_were_met(tmp_path: Path) -> None:
    made = list(finals().values())
    folder = store(tmp_path, made)
    write_winner(folder, made, ["1%", "50%"])
    assert names(folder.winner) == ["50pct"]


@pytest.mark.parametrize("budget", ["50%", "1.5ms", "800us", "800µs"])
def test_a_budgets_folder_is_a_plain_name(tmp_path: Path, budget: str) -> None:
    folder = StudyFolder(tmp_path, "s")
    assert winner_folder(folder, budget, several=False) == folder.winner
    path = winner_folder(folder, budget, several=True)
    assert path.parent == folder.winner
    assert "%" not in path.name


def test_a_failed_copy_keeps_the_old_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finals()
    folder = store(tmp_path, made.values())
    write_winner(folder, list(made.values()), ["50%"])
    before = {p.name: hashlib.sha256(p.read_bytes()).digest() for p in folder.winner.iterdir()}

    def fail(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(KeyboardInterrupt):
        write_winner(folder, list(made.values()), ["50%"])
    after = {p.name: hashlib.sha256(p.read_bytes()).digest() for p in folder.winner.iterdir()}
    assert after == before

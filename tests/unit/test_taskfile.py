"""Task files: what is read, and every kind of bad TOML with its message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.tasks.recipe import Recipe
from harness.tasks.taskfile import TEMPLATE, is_task_file, read_task_file

WHOLE = """\
model = "nets/own.py:build"
weights = "w.safetensors"
trained = false
name = "parts"
loss = "own.py:loss"
metric = "pkg.module:metric"
augment = "flip"
train_fraction = 0.3
coreset = "k-center"
[data]
train = "a.csv"
label = "y"
[recipe]
trial_epochs = 3
[search]
target = "cpu"
budget = "50%"
trials = 4
time = "2min"
seed = "1"
max_drop = "1pt"
layers = ["a", "b"]
exclude = "c,d"
settings = ["granule=4"]
results = "out"
"""


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "parts.toml"
    path.write_text(text)
    return read_task_file(path)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "parts.toml") in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("task", "is_file"),
    [("digits", False), ("a.toml", True), (Path("x"), True), ("a.TOML", False), (None, False)],
)
def test_a_task_file_is_told_from_a_name(task: Any, is_file: bool) -> None:
    assert is_task_file(task) is is_file


def test_everything_is_read_and_paths_start_at_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, WHOLE) == {
        "model": f"{tmp_path}/nets/own.py:build", "weights": f"{tmp_path}/w.safetensors",
        "trained": False, "name": "parts", "loss": f"{tmp_path}/own.py:loss",
        "metric": "pkg.module:metric", "augment": "flip", "train_fraction": 0.3,
        "coreset": "k-center", "data": {"train": "a.csv", "label": "y"},
        "recipe": {"trial_epochs": 3}, "target": "cpu", "budget": "50%", "trials": 4,
        "time": "2min", "seed": "1", "max_drop": "1pt", "layers": ["a", "b"], "exclude": "c,d",
        "settings": ["granule=4"], "results": f"{tmp_path}/out", "base": tmp_path,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("small-cnn", "small-cnn"),
        ("timm:resnet18", "timm:resnet18"),
        ("pkg.nets:build", "pkg.nets:build"),
        ("onnx:m.onnx", "onnx:{}/m.onnx"),
        ("onnx:/elsewhere/m.onnx", "onnx:/elsewhere/m.onnx"),
        ("/elsewhere/own.py:Net", "/elsewhere/own.py:Net"),
        ("own.py:Net", "{}/own.py:Net"),
    ],
)
def test_only_models_in_files_are_looked_for_beside_it(
    tmp_path: Path, model: str, found: str
) -> None:
    read_model = read(tmp_path, f'model = "{model}"\ndata = "digits"\n')["model"]
    assert read_model == found.format(tmp_path)


def test_it_may_be_named_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.toml").write_text('model = "own.py:Net"\ndata = "d.csv"\n')
    monkeypatch.chdir(tmp_path)
    found = read_task_file(Path("tasks/t.toml"))
    assert found["model"] == f"{tmp_path}/tasks/own.py:Net"
    assert found["base"] == tmp_path / "tasks"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = \n", "is no TOML: Invalid value (at line 1"),
        ('model = "a"\nmodel = "b"\n', "is no TOML"),
        ("[data\n", "is no TOML"),
        ('data = "digits"\n', "lacks `model`"),
        ('model = "small-cnn"\n', "lacks `data`"),
        ("", "lacks `model`"),
        ('modle = "a"\n', "unknown key 'modle'"),
        ('budget = "50%"\n', "unknown key 'budget'"),
        ("model = 5\n", "model must be text. Received: 5"),
        ('data = ["a"]\n', "data must be text or a table. Received: ['a']"),
        ('trained = "yes"\n', "trained must be true or false. Received: 'yes'"),
        ("trained = 1\n", "trained must be true or false. Received: 1"),
        ("recipe = 3\n", "recipe must be a table. Received: 3"),
        ("search = 3\n", "search must be a table"),
        ("train_fraction = true\n", "train_fraction must be a number or text. Received: True"),
        ("train_fraction = [1]\n", "train_fraction must be a number or text"),
        ("weights = 1.5\n", "weights must be text"),
    ],
    ids=lambda value: value.strip()[:30].replace("\n", " "),
)
def test_bad_toml_is_named_with_what_was_expected(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bugdet = '50%'", "[search]: unknown key 'bugdet'"),
        ("model = 'a'", "[search]: unknown key 'model'"),
        ("budget = 50", "[search]: budget must be text. Received: 50"),
        ("time = 5", "[search]: time must be text. Received: 5"),
        ("trials = [4]", "[search]: trials must be a number or text"),
        ("settings = 'granule=4'", "[search]: settings must be a list. Received: 'granule=4'"),
        ("settings = [8]", "[search]: settings must be a list of texts. Received: [8]"),
        ("layers = ['a', 1]", "[search]: layers must be a list of texts. Received: ['a', 1]"),
        ("layers = 4", "[search]: layers must be text or a list"),
        ("seed = true", "[search]: seed must be a number or text. Received: True"),
    ],
)
def test_bad_search_options_are_named(tmp_path: Path, line: str, words: str) -> None:
    said = refused(tmp_path, f"model = 'small-cnn'\ndata = 'digits'\n[search]\n{line}\n")
    assert words in said


def test_a_misspelt_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    assert "Did you mean 'model'?" in refused(tmp_path, 'modle = "a"\n')
    text = "model = 'a'\ndata = 'b'\n[search]\nbugdet = '50%'\n"
    assert "Did you mean 'budget'?" in refused(tmp_path, text)


def test_a_file_that_is_missing_no_text_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml can't be read: No such.*harness init"):
        read_task_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        read_task_file(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it isn't UTF-8 text"):
        read_task_file(tmp_path / "b.toml")


# The template


def template() -> str:
    return TEMPLATE.replace("{name}", "parts.toml")


def test_the_template_is_a_task_file_as_it_is(tmp_path: Path) -> None:
    made = read(tmp_path, template())
    assert made == {
        "model": "small-cnn", "data": "digits", "target": "cpu", "budget": "50%", "base": tmp_path,
    }  # fmt: skip


def test_every_line_of_the_template_is_taken_once_uncommented(tmp_path: Path) -> None:
    whole = re.sub(r"^# (\w+ = |\[)", r"\1", template(), flags=re.MULTILINE)
    whole = whole.replace('data = "digits"\n', "")  # the table is in its place
    made = read(tmp_path, whole)
    for key in ("weights", "trained", "name", "augment", "coreset", "max_size", "results"):
        assert key in made, key
    assert made["data"]["train"] == "train.parquet"
    assert set(made["recipe"]) == set(Recipe.__slots__)
    Recipe(1, 1, 2, 1.0, 1.0, 0.0).with_values(made["recipe"], "the template")


def test_an_option_of_the_search_outside_its_table_is_sent_there(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text('budget = "50%"\nmodel = "mlp"\ndata = "digits"\n')
    with pytest.raises(ConfigError, match=r"unknown key 'budget'.*table \[search\]"):
        read_task_file(path)

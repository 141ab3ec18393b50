"""What a search can be asked for: from Python, the command line or a task file alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.api import request
from harness.api.options import SearchOptions
from harness.api.request import read_request
from harness.api.search import replay
from harness.api.target import chosen_target
from harness.errors import ConfigError
from harness.tasks import TASKS
from harness.tasks.base import Reduction, Task
from harness.tasks.spec import TaskSpec, spec_of_source
from harness_search.progress import Progress
from harness_search.settings import DEFAULT_TIME_S, Settings
from support.tiny import TinyNet, tiny, tiny_data


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "tiny", "support.tiny:tiny")


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[TaskSpec]:
    """Collect what tasks would be made from, without making them."""
    made: list[TaskSpec] = []

    def build(spec: TaskSpec, *_: Any) -> Task:
        made.append(spec)
        return tiny()

    monkeypatch.setattr(request, "build_task", build)
    return made


def load(model: Any = None, data: Any = None, **options: Any) -> tuple[Settings, Task]:
    return read_request(model, data, {"budget": "50%", **options}).load(Progress())  # type: ignore[typeddict-item]


def settings(**options: Any) -> Settings:
    return load(task="tiny", **options)[0]


def refused(model: Any = None, data: Any = None, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(model, data, **options)
    return str(caught.value)


# The defaults


def test_by_default_the_embedded_task_is_searched_on_the_cpu_for_three_minutes() -> None:
    request = read_request(None, None, {"budget": "50%"})
    made = request.settings
    assert (made.target.name, made.trials, made.time_s) == ("cpu", None, DEFAULT_TIME_S)
    assert (made.seed, made.results, request.remeasure) == (0, Path("results"), False)
    assert request.make_task(Progress()).name == "digits"


def test_trials_alone_set_no_time_limit() -> None:
    assert settings(trials=3).time_s is None
    assert settings(trials=3, time="90s").time_s == 90


def test_a_budget_is_needed() -> None:
    with pytest.raises(ConfigError, match="needs a budget: `--budget 10ms`.*--budget 50%"):
        read_request(None, None, {})


def test_what_is_absent_or_empty_is_the_default() -> None:
    empty: Any = {
        "target": None, "trials": None, "time": None, "layers": (), "exclude": "", "recipe": (),
        "settings": [], "max_drop": None, "study": None, "loss": None, "trained": False,
    }  # fmt: skip
    assert settings(**empty) == settings()


# Texts and numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ({"trials": "7"}, {"trials": 7}),
        ({"time": "2min"}, {"time": 120.0}),
        ({"time": "90s"}, {"time": 90}),
        ({"seed": "5"}, {"seed": 5}),
        ({"max_size": "2kB"}, {"max_size": 2000}),
        ({"max_drop": "1pt"}, {"max_drop": 0.01}),
        ({"layers": "conv1,conv2"}, {"layers": ["conv1", "conv2"]}),
        ({"exclude": " conv1 "}, {"exclude": ("conv1",)}),
        ({"blocks": "none"}, {"blocks": []}),
        ({"blocks": "a, b"}, {"blocks": ["a", "b"]}),
        ({"threads": "2"}, {"threads": 2}),
        ({"results": "out"}, {"results": Path("out")}),
        ({"train_fraction": "30%"}, {"train_fraction": 0.3}),
        ({"recipe": ["trial_epochs=3", "trial_lr = 0.1"]},
         {"recipe": {"trial_epochs": 3, "trial_lr": 0.1}}),
    ],
    ids=lambda value: next(iter(value)),
)  # fmt: skip
def test_quantities_come_as_texts_or_as_numbers(
    text: dict[str, Any], number: dict[str, Any]
) -> None:
    one, other = load(task="tiny", **text), load(task="tiny", **number)
    assert one[0] == other[0]
    assert (one[1].recipe, one[1].reduction) == (other[1].recipe, other[1].reduction)
    assert (one[0], one[1].recipe, one[1].reduction) != (
        settings(), tiny().recipe, Reduction(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"budget": "10"}, "Add a unit"),
        ({"budget": 50}, "`budget` must be text. Received: 50"),
        ({"trials": 0}, "`--trials`"),
        ({"trials": 2.5}, "'2.5'"),
        ({"trials": "many"}, "'many'"),
        ({"time": "5"}, "Add a unit"),
        ({"time": "0s"}, "above zero"),
        ({"time": 0}, "`time`"),
        ({"time": -1.0}, "`time`"),
        ({"time": float("nan")}, "`time`"),
        ({"seed": -1}, "`--seed`"),
        ({"seed": "x"}, "`--seed`"),
        ({"max_size": "2"}, "`--max-size`"),
        ({"max_size": 0}, "`max_size`"),
        ({"max_size": float("inf")}, "`max_size`"),
        ({"max_drop": "1"}, "percentage points"),
        ({"max_drop": 0}, "above zero"),
        ({"max_drop": -0.1}, "above zero"),
        ({"max_drop": float("nan")}, "above zero"),
        ({"study": "a/b"}, "`--study`"),
        ({"study": ""}, "`--study`"),
        ({"threads": 0}, "`--threads`"),
        ({"target": "cpuu"}, "Did you mean 'cpu'"),
        ({"statistic": "p95"}, "'p95'"),
        ({"train_fraction": 0}, "`--train-fraction`"),
        ({"train_fraction": 1.5}, "`--train-fraction`"),
        ({"train_fraction": 0.5, "coreset": "best"}, "one of random, k-center, herding"),
        ({"coreset": "herding"}, "say which with `--train-fraction`"),
        ({"coreset": "herding", "train_fraction": 1}, "`--coreset herding`"),
        ({"recipe": ["trial_epochs"]}, "KEY=VALUE. Received: 'trial_epochs'"),
        ({"recipe": ["=3"]}, "KEY=VALUE"),
        ({"recipe": {"epochs": 3}}, "unknown key 'epochs'"),
        ({"recipe": ["trial_epochs=0"]}, "trial_epochs must be a whole number from 1"),
        ({"settings": ["wings=2"]}, "'wings'"),
        ({"settings": [8]}, "`settings` must be a list of 'key=value', each a text"),
        ({"recipe": [1]}, "`recipe` must be a mapping, or a list of 'key=value', each a text"),
        ({"recipe": {1: 2}}, "unknown key 1"),
        ({"layers": [1]}, "`layers` must be names, each a text. Received: [1]"),
        ({"exclude": [0]}, "`exclude` must be names, each a text"),
        ({"blocks": "none,a"}, "or be 'none' alone. Received: 'none,a'"),
        ({"blocks": ","}, "`--blocks` must name residual blocks"),
        ({"target": 3}, "`target` must be a name or a Target"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_value_that_does_not_fit_is_refused(options: dict[str, Any], named: str) -> None:
    assert named in refused(task="tiny", **options)


def test_an_unknown_option_is_refused_with_what_there_is() -> None:
    said = refused(task="tiny", bugdet="50%")
    assert "Unknown option 'bugdet'" in said
    assert said.endswith("Did you mean 'budget'?")
    for name in SearchOptions.__annotations__:
        assert name in said


def test_options_are_checked_before_model_and_data_are_loaded(specs: list[TaskSpec]) -> None:
    with pytest.raises(ConfigError):
        read_request("small-cnn", "digits", {"budget": "50%", "recipe": {"epochs": 3}})
    with pytest.raises(ConfigError):
        read_request("small-cnn", "digits", {"budget": "50%", "coreset": "herding"})
    read_request("small-cnn", "digits", {"budget": "50%"})
    assert specs == []


# Which task


@pytest.mark.parametrize("own", [{"model": "small-cnn"}, {"data": "digits"}])
@pytest.mark.parametrize("task", ["tiny", "t.toml", tiny()], ids=["name", "file", "object"])
def test_a_task_and_a_model_or_data_are_too_much(own: dict[str, Any], task: Any) -> None:
    assert "Give `--task`, or `--model` and `--data`; not both" in refused(**own, task=task)


def test_a_model_needs_data_and_data_a_model() -> None:
    assert "`--model` needs `--data` beside it" in refused(model="small-cnn")
    assert "`--data` needs `--model` beside it" in refused(data="digits")


@pytest.mark.parametrize(
    "option",
    [
        {"weights": "w.pt"}, {"trained": True}, {"name": "n"}, {"loss": "mse"},
        {"metric": "r2"}, {"imitation": max}, {"augment": "flip"},
    ],
    ids=lambda value: next(iter(value)),
)  # fmt: skip
@pytest.mark.parametrize("task", ["tiny", None])
def test_what_belongs_to_an_own_model_is_refused_with_a_task(
    option: dict[str, Any], task: str | None
) -> None:
    said = refused(task=task, **option)
    assert f"`--{next(iter(option))}` goes with `--model` and `--data`, not with `--task`" in said


def test_an_unknown_task_is_named() -> None:
    assert "Did you mean 'tiny'?" in refused(task="tinny")


def test_a_ready_made_task_takes_recipe_and_reduction() -> None:
    made = replace(tiny(), reduction=Reduction(0.5, "herding"))
    assert load(task=made)[1].reduction == Reduction(0.5, "herding")
    _, task = load(task=made, train_fraction=0.25, recipe={"trial_epochs": 4})
    assert task.reduction == Reduction(0.25, "random")
    assert (task.recipe.trial_epochs, task.recipe.batch) == (4, 32)
    assert tiny().recipe.trial_epochs == 1


def test_a_drop_is_in_the_unit_of_the_tasks_metric() -> None:
    objective = tiny().objective
    metric = replace(objective.metric, name="r2")
    values = replace(tiny(), objective=replace(objective, metric=metric))
    assert load(task=values, max_drop="0.02")[0].max_drop == 0.02
    assert "'r2'" in refused(task=values, max_drop="1pt")


def test_all_that_is_said_of_a_task_reaches_it(
    specs: list[TaskSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("a,b\n")
    load(
        "own.py:build", "d.csv", weights="w.pt", trained=True, name="parts", loss="huber",
        metric="r2", augment="flip", recipe={"batch": 8}, train_fraction=0.5, coreset="k-center",
    )  # fmt: skip
    source = specs[0].source()
    assert source.pop("data")["source"].endswith(f"{tmp_path}/d.csv")
    assert source == {
        "model": f"{tmp_path}/own.py:build", "trained": True, "weights": f"{tmp_path}/w.pt",
        "loss": "huber", "metric": "r2",
    }  # fmt: skip
    (one,) = specs
    assert (one.name, one.augment, one.recipe) == ("parts", "flip", {"batch": 8})
    assert one.reduction == Reduction(0.5, "k-center")


# Task files


FILE = """\
model = "own.py:build"
data = "d.csv"
augment = "flip"
[recipe]
batch = 16
trial_epochs = 3
[search]
budget = "40%"
trials = 9
max_drop = "1pt"
results = "out"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "parts.toml"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_task_file_gives_what_the_options_leave_out(
    kind: Any, file: Path, specs: list[TaskSpec]
) -> None:
    request = read_request(None, None, {"task": kind(file)})
    made, _ = request.load(Progress())
    assert ([b.text for b in made.budgets], made.trials, made.max_drop) == (["40%"], 9, 0.01)
    assert made.results == file.parent / "out"
    (one,) = specs
    assert one.model == f"{file.parent}/own.py:build"
    assert (one.augment, one.base) == ("flip", file.parent)
    assert one.recipe == {"batch": 16, "trial_epochs": 3}


def test_options_come_before_the_task_file(file: Path, specs: list[TaskSpec]) -> None:
    made, _ = load(
        task=str(file), budget="70%", trials="2", results="mine", augment="shift",
        recipe=["trial_epochs=5"],
    )  # fmt: skip
    assert ([b.text for b in made.budgets], made.trials) == (["70%"], 2)
    assert made.results == Path("mine")
    assert specs[0].augment == "shift"
    made_of = tiny().recipe.with_values(specs[0].recipe, "here")
    assert (made_of.batch, made_of.trial_epochs) == (16, 5)


@pytest.mark.parametrize(
    ("held", "given", "threads", "granule"),
    [
        ("threads = 1", {"settings": ["threads=2"]}, 2, None),
        ("threads = 1", {"threads": 2}, 2, None),
        ('settings = ["threads=1"]', {"threads": "2"}, 2, None),
        ('settings = ["granule=8"]', {"settings": ["threads=2"]}, 2, 8),
        ('settings = ["granule=8", "threads=3"]', {"settings": ["granule=4"]}, 3, 4),
        ("threads = 3", {}, 3, None),
    ],
)
def test_target_options_come_before_the_task_files_one_by_one(
    file: Path, held: str, given: dict[str, Any], threads: int, granule: int | None
) -> None:
    file.write_text(f"{FILE}{held}\n")
    target = read_request(None, None, {"task": str(file), **given}).settings.target  # type: ignore[typeddict-item]
    assert (target.threads, target.granule) == (threads, granule)


@pytest.mark.parametrize("fraction", ["1", 1.0, "100%"])
def test_all_samples_leave_the_files_coreset_out(
    file: Path, fraction: Any, specs: list[TaskSpec]
) -> None:
    file.write_text(f'train_fraction = 0.5\ncoreset = "herding"\n{FILE}')
    load(task=str(file), train_fraction=fraction)
    assert specs[0].reduction == Reduction(1.0, "random")
    load(task=str(file), train_fraction=0.25)
    assert specs[1].reduction == Reduction(0.25, "herding")
    assert "`--coreset herding`" in refused(task=file, train_fraction=fraction, coreset="herding")


def test_a_wrong_recipe_is_blamed_on_the_file_that_holds_it(file: Path) -> None:
    file.write_text(FILE.replace("batch = 16", "batch = 1"))
    assert f"{file}, [recipe]: batch must be" in refused(task=file)
    file.write_text(FILE)
    assert "`--recipe`: batch must be" in refused(task=file, recipe=["batch=1"])


def test_data_may_be_a_path(specs: list[TaskSpec]) -> None:
    load("small-cnn", Path("d.csv"))
    assert specs[0].data == "d.csv"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"result": "nowhere", "modle": 3}, "Unknown option 'modle'"),
        ({"data": "digits"}, "`--data` needs `--model` beside it"),
        ({"results": 5}, "`results` must be a path"),
    ],
)
def test_a_replay_checks_its_options(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replay("xx", **given)


def test_a_bad_value_in_a_task_file_is_refused_like_an_option(file: Path) -> None:
    file.write_text(FILE.replace("trials = 9", "trials = 0"))
    with pytest.raises(ConfigError, match="--trials"):
        read_request(None, None, {"task": str(file)})
    file.write_text(FILE.replace("batch = 16", "batches = 16"))
    with pytest.raises(ConfigError, match="'batches'.*Did you mean 'batch'"):
        read_request(None, None, {"task": str(file)})


# What a task was made from


@pytest.mark.parametrize("as_table", [False, True])
def test_a_task_of_texts_can_be_made_again_in_any_folder(
    as_table: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,y\n")
    table = {"train": "a.csv", "test": "b.csv", "label": "y", "split_seed": 3}
    text = ",".join(f"{key}={value}" for key, value in table.items())
    monkeypatch.chdir(tmp_path)
    given = table if as_table else text
    spec = TaskSpec("own.py:Net", given, Path("w.pt"), loss="mse", base=tmp_path)
    source = json.loads(json.dumps(spec.source()))
    monkeypatch.chdir("/")
    again = spec_of_source(source)
    assert again.source() == source
    assert (again.model, again.weights) == (f"{tmp_path}/own.py:Net", tmp_path / "w.pt")
    assert again.data["train"].endswith(f"{tmp_path}/a.csv")
    assert again.data["split_seed"] == 3
    assert (again.loss, again.metric, again.trained) == ("mse", None, False)


@pytest.mark.parametrize(
    "change",
    [
        {"model": nn.Linear(2, 3)}, {"data": tiny_data()}, {"data": (torch.ones(2),) * 2},
        {"loss": max}, {"metric": max}, {"imitation": max},
    ],
    ids=["model", "data", "arrays", "loss", "metric", "imitation"],
)  # fmt: skip
def test_a_task_of_objects_can_not(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"model": "small-cnn", "data": "digits", **change}
    assert TaskSpec(**given).source() == {}


def test_a_network_and_data_given_as_objects_make_a_task() -> None:
    network = TinyNet()
    _, task = load(network, tiny_data(), name="mine", recipe={"batch": 8})
    assert (task.name, task.source) == ("mine", {})
    assert (task.network.name, task.network.pretrained) == ("tinynet", False)
    assert (task.recipe.batch, task.recipe.optimizer) == (8, "adamw")
    assert task.objective.metric.name == "accuracy"
    assert load(network, tiny_data())[1].name == "tinynet-stripes"


@pytest.mark.parametrize(
    ("name", "found"), [("my parts", "myparts"), ("../../x", "x"), ("a/b", "ab"), ("?", "task")]
)
def test_a_tasks_name_is_fit_for_files(name: str, found: str) -> None:
    assert load(TinyNet(), tiny_data(), name=name)[1].name == found


def test_a_trained_network_is_taken_as_it_is() -> None:
    _, task = load(TinyNet(), tiny_data(), trained=True)
    assert task.network.pretrained
    assert task.recipe.teacher_epochs == 0


def test_the_callers_network_is_left_as_it_was() -> None:
    network = TinyNet()
    _, task = load(network.train(), tiny_data())
    assert network.training
    assert not task.network.module.training
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Linear(64, 3), "samples of shape [1, 8, 8]"),
        (lambda x: x, "nn.Module"),
        (TinyNet().double(), "float32"),
        (nn.ReLU(), "no parameters"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), "[N, 3]"),
    ],
    ids=["shape", "function", "double", "empty", "outputs"],
)
def test_an_object_that_can_not_be_searched_is_refused(model: Any, named: str) -> None:
    assert named in refused(model, tiny_data())


def test_weights_go_with_a_model_given_as_text() -> None:
    assert "Weights go with a model given as text" in refused(
        TinyNet(), tiny_data(), weights="w.pt"
    )


@pytest.mark.parametrize("given", [5, {"granule": 8}, "granule=8", [8]])
def test_target_settings_are_a_list_of_texts(given: Any) -> None:
    with pytest.raises(ConfigError, match="`settings` must be a list of texts"):
        chosen_target("cpu", None, given)

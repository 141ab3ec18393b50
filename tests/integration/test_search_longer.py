"""The best candidates are trained on, with a made-up clock: a file's size is its time."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from harness.cli import app
from harness.training import loop
from support.cli import registered
from support.own import write_images
from support.running import read_records, trials

TASK = ("--model", "small-cnn", "--data", "x.npz", "--target", "fake", "--precision", "fp32")
QUICK = ("--recipe", "trial_epochs=1", "--recipe", "teacher_epochs=2", "--recipe", "batch=32")
LIMITS = ("--budget", "40%", "--trials", "3", "--time", "20min")


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a user's files, the current one; caches and settings are below it."""
    folder = tmp_path_factory.mktemp("longer")
    write_images(folder / "x.npz")
    cores = torch.get_num_threads()
    with registered(folder), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    torch.set_num_threads(cores)


def search(results: str, *args: str) -> Result:
    return CliRunner().invoke(app, ["search", *TASK, *QUICK, "--results", results, *args])


def study(results: str) -> Path:
    (found,) = (Path(results) / "studies").iterdir()
    return found


@pytest.fixture(scope="module")
def done(base: Path) -> Result:
    ended = search("results", *LIMITS)
    assert ended.exit_code == 0, (ended.stderr, ended.stdout)
    return ended


def longer(results: str) -> list[dict[str, Any]]:
    return [record for record in trials(Path(results)) if record["role"] == "longer"]


def test_the_best_is_trained_on_after_the_trials(done: Result) -> None:
    made = trials(Path("results"))
    assert [record["role"] for record in made[:3]] == ["global", "uniform", "searched"]
    assert longer("results") == made[3:]
    assert made[3:]
    for record in made[3:]:
        source = made[record["training"]["continues"]]
        assert record["candidate"] == source["candidate"]
        assert record["pruning"] == source["pruning"]
        assert record["model"]["sha256"] != source["model"]["sha256"]
        assert record["model"]["params"] == source["model"]["params"]
        before = source["training"].get("epochs_before", 0) + source["training"]["epochs"]
        assert record["training"]["epochs_before"] == before
        assert record["status"] == "complete"
    assert not list((study("results") / "models").glob("*.ckpt"))


def test_tables_say_so(done: Result) -> None:
    with (study("results") / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["role"] for row in rows] == [r["role"] for r in trials(Path("results"))]
    winner = next(r for r in read_records(Path("results")) if r["role"] == "winner")
    training = winner["training"]
    epochs = str(training["epochs"] + training.get("epochs_before", 0))
    line = next(line for line in done.stdout.splitlines() if line.startswith("epochs"))
    assert epochs in line.split()
    card = (study("results") / "winner" / "card.md").read_text()
    more = f"then, as one of the best, {training['epochs']} more."
    assert (more in " ".join(card.split())) is ("epochs_before" in training)


def test_a_trained_on_trial_is_replayed(done: Result) -> None:
    ended = CliRunner().invoke(app, ["replay", longer("results")[-1]["run_id"]])
    assert ended.exit_code == 0, (ended.stderr, ended.stdout)


def test_a_finished_study_is_left_as_it_is(done: Result) -> None:
    before = sorted(record["run_id"] for record in read_records(Path("results")))
    assert search("results", *LIMITS).exit_code == 0
    assert sorted(record["run_id"] for record in read_records(Path("results"))) == before


def test_more_trials_come_after_and_the_sampler_forgets_nothing(done: Result) -> None:
    shutil.copytree("results", "more")
    known = len(trials(Path("more")))
    ended = search("more", "--budget", "40%", "--trials", "4", "--time", "20min")
    assert ended.exit_code == 0, (ended.stderr, ended.stdout)
    made = trials(Path("more"))
    assert made[known]["role"] == "searched"
    assert {record["role"] for record in made[known + 1 :]} <= {"longer"}


def before_the_long_trainings(copy: str) -> Path:
    """Return a copy of the study as it was when three epochs of the first one were planned."""
    shutil.copytree("results", copy)
    folder = study(copy)
    for path in (folder / "records").glob("*.json"):
        record = json.loads(path.read_text())
        if record["role"] == "longer" or record["kind"] == "final":
            path.unlink()
    legs = json.loads((folder / "longer.json").read_text())
    (folder / "longer.json").write_text(json.dumps([{**legs[0], "epochs": 3}]))
    return folder


def test_an_interrupted_training_goes_on_to_the_same_weights(
    done: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_long_trainings("whole")
    assert search("whole", *LIMITS).exit_code == 0
    whole, folder = longer("whole")[0], before_the_long_trainings("parts")
    per_epoch = -(-whole["training"]["samples"] // whole["training"]["batch"])
    step, left = loop._Training._step, [2 * per_epoch + 2]

    def dies(self: Any, *args: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "_step", dies)
        assert search("parts", *LIMITS).exit_code == 130
    assert not longer("parts")
    assert list((folder / "models").glob("*.ckpt"))
    assert search("parts", *LIMITS).exit_code == 0
    again = longer("parts")[0]
    assert again["training"] == whole["training"]
    assert again["model"]["sha256"] == whole["model"]["sha256"]
    assert not list((folder / "models").glob("*.ckpt"))


def test_without_a_time_nothing_is_trained_on() -> None:
    assert search("untimed", "--budget", "40%", "--trials", "3").exit_code == 0
    assert len(trials(Path("untimed"))) == 3

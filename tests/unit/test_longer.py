"""Which candidates are trained on, and for how long."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.budget import parse_budgets
from harness.errors import ConfigError
from harness_search import longer
from harness_search.longer import planned, train_longer

BUDGETS = parse_budgets("50%")


def trial(index: int, value: float, role: str = "searched", **changes: Any) -> Any:
    made = SimpleNamespace(
        index=index, role=role, value=value, training={"epochs": 2},
        timings_s={"train": 4.0, "export": 0.5, "timing": 0.5, "teacher_outputs": 2.0},
        candidate={"widths": {"a": index}, "blocks": [], "precision": "fp32"},
    )  # fmt: skip
    vars(made).update(changes)
    return made


class Study:
    """A study whose clock is what its trainings took: 2 s an epoch, and 1 s around."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, until: float) -> None:
        self.clock, self.ran, self.dies_at = 0.0, list[Any](), -1
        train = SimpleNamespace(augmentation=None)
        self.bench: Any = SimpleNamespace(
            folder=SimpleNamespace(path=folder), settings=SimpleNamespace(budgets=BUDGETS),
            task=SimpleNamespace(
                data=SimpleNamespace(train=train), recipe=SimpleNamespace(trial_epochs=2)
            ),
            elapsed_s=lambda: self.clock, model_path=lambda name: folder / name,
            progress=SimpleNamespace(trial_done=lambda record: None),
        )  # fmt: skip
        monkeypatch.setattr(longer, "trains_longer", lambda bench: True)
        monkeypatch.setattr(longer, "longer_until_s", lambda bench, trials, budgets: until)
        monkeypatch.setattr(
            longer, "ranked_candidates",
            lambda bench, budget, trials: sorted(trials, key=lambda one: -one.value),
        )  # fmt: skip
        monkeypatch.setattr(longer, "_run", self._train)

    def _train(self, bench: Any, budget: Any, leg: Any, source: Any) -> Any:
        if len(self.ran) == self.dies_at:
            raise KeyboardInterrupt
        self.clock += 1.0 + 2.0 * leg.epochs
        self.ran.append((leg.index, leg.continues, leg.epochs))
        took = {**source.timings_s, "train": 2.0 * leg.epochs}
        return trial(
            leg.index, source.value + 0.01 * leg.index, "longer", candidate=source.candidate,
            training={"epochs": leg.epochs, "continues": leg.continues}, timings_s=took,
        )  # fmt: skip


TRIALS = [trial(0, 0.5), trial(1, 0.8), trial(2, 0.7), trial(3, 0.6)]


def test_the_best_three_go_on_and_the_best_of_them_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, monkeypatch, until=100.0)
    made = train_longer(study.bench, TRIALS, BUDGETS)
    # 95 s; 40 % of them among three: 12.7 s each, 5 epochs. Then 64 s: 31 epochs.
    assert study.ran == [(4, 1, 5), (5, 2, 5), (6, 3, 5), (7, 4, 31)]
    assert study.clock <= 100
    assert [record.index for record in made] == list(range(8))
    assert planned(study.bench.folder) == {4, 5, 6, 7}


def test_a_finished_study_has_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path, monkeypatch, until=100.0)
    made = train_longer(study.bench, TRIALS, BUDGETS)
    study.clock, count = 0.0, len(study.ran)
    assert train_longer(study.bench, made, BUDGETS) == made
    assert len(study.ran) == count


def test_after_more_trials_the_best_are_trained_on_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, monkeypatch, until=100.0)
    made = [*train_longer(study.bench, TRIALS, BUDGETS), trial(8, 0.99)]
    study.clock, before = 0.0, len(study.ran)
    train_longer(study.bench, made, BUDGETS)
    assert [continues for _, continues, _ in study.ran[before:]][:2] == [8, 7]


@pytest.mark.parametrize("done", range(4))
def test_what_was_planned_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    (tmp_path / "whole").mkdir()
    whole = Study(tmp_path / "whole", monkeypatch, until=100.0)
    train_longer(whole.bench, TRIALS, BUDGETS)
    (tmp_path / "parts").mkdir()
    study = Study(tmp_path / "parts", monkeypatch, until=100.0)
    study.dies_at, kept = done, list(TRIALS)
    train = study._train

    def keep(*args: Any) -> Any:
        kept.append(train(*args))
        return kept[-1]

    monkeypatch.setattr(longer, "_run", keep)
    with pytest.raises(KeyboardInterrupt):
        train_longer(study.bench, kept, BUDGETS)
    study.dies_at = -1
    train_longer(study.bench, list(kept), BUDGETS)
    assert study.ran == whole.ran


def test_little_time_goes_to_the_best_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, monkeypatch, until=20.0)
    train_longer(study.bench, TRIALS, BUDGETS)
    assert study.ran == [(4, 1, 9)]


@pytest.mark.parametrize("until", [-5.0, 0.0, 2.0])
def test_no_time_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: float
) -> None:
    study = Study(tmp_path, monkeypatch, until=until)
    assert train_longer(study.bench, TRIALS, BUDGETS) == TRIALS


def test_one_network_needs_no_round_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, monkeypatch, until=100.0)
    same = [trial(i, 0.5, candidate=TRIALS[0].candidate) for i in range(3)]
    train_longer(study.bench, same, BUDGETS)
    assert [(index, continues) for index, continues, _ in study.ran] == [(3, 0)]


def test_new_views_cost_the_teachers_outputs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, monkeypatch, until=20.0)
    study.bench.task.data.train = SimpleNamespace(augmentation="flip")
    train_longer(study.bench, TRIALS, BUDGETS)
    assert study.ran == [(4, 1, 6)]  # 3 s an epoch


def test_several_budgets_share_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path, monkeypatch, until=40.0)
    budgets = parse_budgets("30%,50%")
    study.bench.settings.budgets = budgets
    train_longer(study.bench, TRIALS[:1], budgets)
    assert study.ran == [(1, 0, 9), (2, 1, 9)]
    assert [leg["budget"] for leg in json.loads((tmp_path / "longer.json").read_text())] == [
        "30%", "50%"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "[{}]", '{"a": 1}', "5"])
def test_a_corrupt_plan_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    study = Study(tmp_path, monkeypatch, until=40.0)
    (tmp_path / "longer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"longer.json is corrupt: .* remove it"):
        train_longer(study.bench, TRIALS, BUDGETS)

"""What the time given affords."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.budget import parse_budgets
from harness.target import Target
from harness.tasks.base import Reduction
from harness_search import allowance
from harness_search.allowance import affords_another, longer_until_s, trains_longer
from harness_search.proposals import controls
from harness_search.settings import Settings

BUDGETS = parse_budgets("50%")
FINALS_S = 10.0


@pytest.fixture(autouse=True)
def finals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "finals_s", lambda bench, budgets: FINALS_S * budgets)


def bench(elapsed_s: float, fraction: float = 1.0, **options: Any) -> Any:
    settings = Settings(Target("cpu", "onnxruntime"), BUDGETS, **{"time_s": 110.0} | options)
    reduction = Reduction(fraction, "random") if fraction < 1 else Reduction()
    task = SimpleNamespace(
        reduction=reduction, epochs_on_all=1, recipe=SimpleNamespace(trial_epochs=2)
    )
    return SimpleNamespace(
        settings=settings, task=task, spaces={"50%": None}, elapsed_s=lambda: elapsed_s
    )


def trials(*ends: float, cost: float = 10.0, role: str = "searched") -> list[Any]:
    return [
        SimpleNamespace(role=role, search={"elapsed_s": end}, timings_s={"train": cost})
        for end in ends
    ]  # fmt: skip


def test_the_first_of_each_budget_always_runs() -> None:
    both = parse_budgets("30%,50%")
    assert affords_another(bench(1000.0), [], BUDGETS)
    assert not affords_another(bench(1000.0), trials(30.0), BUDGETS)
    assert affords_another(bench(1000.0), trials(30.0), both)
    assert not affords_another(bench(1000.0), trials(30.0, 40.0), both)


@pytest.mark.parametrize(("elapsed", "more"), [(58.0, True), (59.0, False)])
def test_a_part_of_the_time_is_kept_for_the_best(elapsed: float, more: bool) -> None:
    """The first trial began at 20 s, finals take 10 of 110 s: trials may take 48 s."""
    assert affords_another(bench(elapsed), trials(30.0, 40.0), BUDGETS) is more


@pytest.mark.parametrize(("elapsed", "more"), [(90.0, True), (91.0, False)])
def test_where_faster_is_better_all_of_it_is_for_trials(elapsed: float, more: bool) -> None:
    told = bench(elapsed, max_drop=0.01)
    assert not trains_longer(told)
    assert affords_another(told, trials(30.0, 40.0), BUDGETS) is more


def test_time_is_kept_for_what_less_data_costs() -> None:
    told = bench(79.0, fraction=0.5)  # one epoch of twice the samples takes 10 s, too
    assert not trains_longer(told)
    assert affords_another(told, trials(30.0, 40.0), BUDGETS)
    assert not affords_another(bench(81.0, fraction=0.5), trials(30.0, 40.0), BUDGETS)


def test_trainings_of_the_best_are_no_trials() -> None:
    known = [*trials(30.0, 40.0), *trials(95.0, role="longer", cost=50.0)]
    assert affords_another(bench(40.0, trials=3), known, BUDGETS)
    assert not affords_another(bench(40.0, trials=2), known, BUDGETS)


def test_without_a_time_only_the_number_counts() -> None:
    told = bench(1e6, time_s=None, trials=3)
    assert not trains_longer(told)
    assert affords_another(told, trials(30.0, 40.0), BUDGETS)
    assert not affords_another(told, trials(30.0, 40.0, 50.0), BUDGETS)


def test_the_best_are_trained_on_up_to_the_finals() -> None:
    assert longer_until_s(bench(60.0), trials(30.0, 60.0), 1) == 100.0
    assert longer_until_s(bench(60.0, trials=5), trials(30.0, 60.0), 1) == 100.0


def test_where_the_number_ends_the_search_they_are_trained_on_in_proportion() -> None:
    ended = longer_until_s(bench(50.0, trials=2), trials(30.0, 40.0), 1)
    assert ended == pytest.approx(20.0 + 20.0 / 0.6)  # 20 s of trials are 60 %
    assert longer_until_s(bench(90.0, trials=2), trials(30.0, 90.0), 1) == 100.0


def test_counting_takes_as_long_as_the_floors_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    emulated = Target("board", "fake", emulated_cpu="cortex-a76")
    settings = Settings(emulated, BUDGETS)
    told: Any = SimpleNamespace(settings=settings, target=emulated, probe_s=5.0)
    models = 2 + len(controls(settings))
    assert allowance.finals_s(told, 2) == 2 * 3 * models * 5.0

"""The end of a search as a person reads it: shares in per cent, other metrics as they are."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from harness.budget import parse_budgets
from harness.cli.dryrun import _groups_table
from harness.cli.summary import print_summary
from harness.target import Target
from harness_results.record import RunRecord
from harness_results.store import StudyFolder
from harness_search.engine import BudgetResult, SearchResult
from harness_search.settings import Settings
from support.records import record, task_facts, training

ROLES = {"dense": 0.95, "uniform": 0.80, "global": 0.82, "winner": 0.90}
ERROR = task_facts(metric="neg_mean_absolute_error", classes=[])


def made(task: dict[str, Any], scale: float = 1.0, **winner: Any) -> dict[str, RunRecord]:
    """Return finals whose scores are those of `ROLES`, times `scale`, within 0.04."""
    found = {}
    for index, (role, value) in enumerate(ROLES.items()):
        test = tuple(sorted((scale * (value - 0.04), scale * (value + 0.04))))
        found[role] = record(
            role=role, index=index, ratio=1.0 if role == "dense" else 0.47, task=task,
            test=(scale * value, *test), **(winner if role == "winner" else {}),
        )  # fmt: skip
    return found


def said(
    *finals: dict[str, RunRecord],
    notes: tuple[str, ...] = (),
    results: str = "results",
    trials: tuple[RunRecord, ...] = (),
) -> str:
    """Return the summary of finals under one budget, or under several."""
    settings = Settings(Target("fake", "fake"), parse_budgets("50%"), results=Path(results))
    folder = StudyFolder(settings.results, "s")
    ends = [
        BudgetResult(settings.budgets[0], one, None, below_floor=False, dense_wins=False)
        for one in finals
    ]
    floor = record("floor", "floor", index=None)
    result = SearchResult(folder, floor, list(trials), ends, 12.0, 0.0, settings, notes)
    console = Console(file=io.StringIO(), width=200, highlight=False)
    print_summary(console, result)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().replace("│", " ").split())


def test_a_share_is_told_in_per_cent_and_points() -> None:
    text = said(made(task_facts(metric="f1_macro")))
    for part in (
        "90.00 % f1 macro (86.00 to 94.00) on the test split",
        "-5.00 pt against the dense model: not resolved with 90 test samples",
        "test f1 macro 95.00 % 80.00 % 82.00 % 90.00 %",
    ):
        assert part in text, text


def test_another_metric_is_told_in_its_own_unit() -> None:
    text = said(made(ERROR, scale=-10.0))
    for part in (
        "-9 neg mean absolute error (-9.4 to -8.6) on the test split",
        "+0.5 against the dense model: not resolved",
        "test neg mean absolute error -9.5 -8 -8.2 -9",
    ):
        assert part in text, text
    assert " pt " not in text
    assert "accuracy" not in text


def test_a_clear_loss_is_called_worse_whatever_the_unit() -> None:
    finals = made(ERROR, scale=-10.0)
    finals["winner"] = record(role="winner", index=3, task=ERROR, test=(-20.0, -20.4, -19.6))
    assert "-10.5 against the dense model: worse with 90 test samples" in said(finals)


WHOLE = {"score": {"value": 0.93, "lo": 0.88, "hi": 0.98, "loss": 0.2, "n": 50}, "train_s": 90.0,
         "epochs": 2}  # fmt: skip


def test_what_less_data_cost_and_saved_is_told() -> None:
    own = training(samples=96, reduction="herding", train_s=30.0, on_all_samples=WHOLE)
    text = said(made(task_facts(), training=own, validation=0.92))
    assert (
        "less data: trained on 96 of 320 samples (herding, epochs 1) in 30 s; the same network "
        "trained on all, epochs 2, in 1 min 30 s reaches 93.00 % on the test split (88.00 to "
        "98.00): -3.00 pt, not resolved"
    ) in text


@pytest.mark.parametrize(("whole", "word"), [(0.99, "worse"), (0.70, "better")])
def test_a_clear_cost_of_less_data_is_called_so(whole: float, word: str) -> None:
    score = {**WHOLE["score"], "value": whole, "lo": whole - 0.01, "hi": whole + 0.01}
    own = training(samples=96, train_s=30.0, on_all_samples={**WHOLE, "score": score})
    finals = made(task_facts(), training=own)
    finals["winner"].scores["test"].update(value=0.85, lo=0.84, hi=0.86)
    text = said(finals)
    assert f"pt, {word}" in text


def test_all_samples_need_no_such_line() -> None:
    assert "less data" not in said(made(task_facts()))


def test_the_summary_names_the_call_where_a_task_was_given_as_objects() -> None:
    assert "harness replay 2026" in said(made(task_facts()))
    text = said(made(task_facts(source={})))
    assert "harness.replay('2026" in text
    assert "harness replay" not in text


def test_commands_can_be_copied_whatever_the_folder_is_called() -> None:
    results = f"my results/{'x' * 200}"
    text = said(made(task_facts()), results=results)
    assert f"--results '{results}' " in text
    assert f"harness leaderboard '{results}/leaderboard.csv'" in text


def test_a_front_tells_of_all_readings_of_the_test_split() -> None:
    search = record().search
    first, second = (
        {role: record(role=role, search=search | {"test_reads": reads}) for role in ROLES}
        for reads in (1, 2)
    )
    text = said(first, second)
    assert text.count("test split of 90 samples read 2 times by this study") == 2
    assert "once" not in text


def test_trials_that_failed_are_told_with_the_commonest_reason() -> None:
    reasons = ["TaskError: a[/b] c", "ExportError: d", "TaskError: a[/b] c"]
    failed = [record("trial", "searched", status="failed", reason=one) for one in reasons]
    trials = (record("trial", "uniform"), *failed)
    text = said(made(task_facts()), trials=trials)
    assert "3 of 4 trials failed: TaskError: a[/b] c (2 of them; the others in trials.csv)" in text
    assert "failed" not in said(made(task_facts()), trials=trials[:1])


def test_notes_of_model_and_data_are_told_as_they_are() -> None:
    text = said(made(task_facts()), notes=("37 of [1,000] samples are in two splits",))
    assert "note: 37 of [1,000] samples are in two splits" in text


ODD = "stage.[/b].conv"


def test_a_groups_name_is_told_as_it_is() -> None:
    finals = made(task_facts())
    for one in finals.values():
        one.candidate.update(widths={ODD: 20}, dense_widths={ODD: 32})
    assert f"{ODD} " in said(finals)


def test_a_dry_run_tells_a_groups_name_as_it_is() -> None:
    group = SimpleNamespace(name=ODD, width=32)
    plan = SimpleNamespace(groups=(group,), space=SimpleNamespace(allowed={ODD: (8, 16, 24, 32)}))
    console = Console(file=io.StringIO(), width=200)
    console.print(_groups_table(cast(Any, plan)))
    assert isinstance(console.file, io.StringIO)
    assert ODD in console.file.getvalue()

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.trial import TrialState

from harness.compression.pruning.importance import CRITERIA
from harness.errors import ResultsError
from harness_search.optuna_study import OptunaStudy, constraints
from harness_search.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_results.record import RunRecord

    MakeRecord = Callable[..., RunRecord]

SPACE = SearchSpace(
    {"conv1": 32, "conv2": 48}, {"conv1": (8, 16, 24, 32), "conv2": (8, 16, 24, 32, 40, 48)},
    CRITERIA, uses_temperature=True, precisions=("fp32",),
)  # fmt: skip
CONTROLS = 2


def study(path: Path, seed: int = 0, space: SearchSpace = SPACE) -> OptunaStudy:
    return OptunaStudy(path / "study.db", "s", space, seed)


def stored(path: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{path / 'study.db'}").trials


def outcome(make: MakeRecord, index: int, params: dict[str, Any] | None) -> RunRecord:
    """Make up how a trial ended, so that every kind of end occurs."""
    if params is None:
        return make(index, role="uniform", widths={"conv1": 16, "conv2": 24})
    quality = 0.9 - params["ratio.conv1"] / 10 - abs(params["kd_weight"] - 0.5) / 5
    share = 0.7 - params["ratio.conv1"] / 2
    status = "failed" if index == 5 else "complete" if share < 0.55 else "over_budget"
    return make(
        index, status=status, suggestion=params, value=quality,
        ratio=(share, share - 0.01, share + 0.01),
    )  # fmt: skip


def run(made: OptunaStudy, make: MakeRecord, upto: int) -> list[RunRecord]:
    """Go through trials as a search does; return their records."""
    records = []
    for index in range(upto):
        asked = made.ask(index) if index >= CONTROLS else None
        record = outcome(make, index, asked and asked[1])
        made.tell(asked and asked[0], record)
        records.append(record)
    return records


def reread(records: list[RunRecord]) -> list[RunRecord]:
    return [type(record)(**json.loads(record.to_json())) for record in records]


def folder(path: Path, name: str) -> Path:
    (path / name).mkdir()
    return path / name


def test_a_study_restored_from_records_suggests_what_one_that_went_through_does(
    tmp_path: Path, trial_record: MakeRecord
) -> None:
    through = study(folder(tmp_path, "through"))
    records = run(through, trial_record, 12)
    assert {record.status for record in records} == {"complete", "over_budget", "failed"}
    restored = study(folder(tmp_path, "restored"))
    restored.restore(reread(records))
    assert restored.ask(12)[1] == through.ask(12)[1]


def test_a_killed_study_suggests_the_same_again(tmp_path: Path, trial_record: MakeRecord) -> None:
    first = study(folder(tmp_path, "first"))
    records = run(first, trial_record, 9)
    _, expected = first.ask(9)
    again = study(tmp_path / "first")
    again.restore(records)
    assert again.ask(9)[1] == expected


def test_a_record_that_optuna_missed_is_added(tmp_path: Path, trial_record: MakeRecord) -> None:
    whole = study(folder(tmp_path, "whole"))
    records = run(whole, trial_record, 8)
    behind = study(folder(tmp_path, "behind"))
    run(behind, trial_record, 7)
    behind.ask(7)  # killed after the record was written and before Optuna was told
    again = study(tmp_path / "behind")
    again.restore(records)
    assert again.ask(8)[1] == whole.ask(8)[1]


def test_trials_left_running_are_failed(tmp_path: Path, trial_record: MakeRecord) -> None:
    made = study(tmp_path)
    records = run(made, trial_record, 4)
    made.ask(4)
    assert stored(tmp_path)[-1].state is TrialState.RUNNING
    study(tmp_path).restore(records)
    assert [trial.state for trial in stored(tmp_path)].count(TrialState.RUNNING) == 0
    assert stored(tmp_path)[-1].state is TrialState.FAIL


def test_restoring_twice_adds_no_finished_trial_twice(
    tmp_path: Path, trial_record: MakeRecord
) -> None:
    made = study(tmp_path)
    records = [r for r in run(made, trial_record, 8) if r.status != "failed"]
    made.restore(records)
    made.restore(records)
    told = [t.user_attrs["index"] for t in stored(tmp_path) if t.state is not TrialState.FAIL]
    assert sorted(told) == [record.index for record in records]


@pytest.mark.parametrize("restored", [False, True])
def test_an_untrained_trial_is_pruned_and_keeps_its_constraint(
    tmp_path: Path, trial_record: MakeRecord, restored: bool
) -> None:
    made = study(tmp_path)
    asked, params = made.ask(2)
    record = trial_record(2, status="over_budget", suggestion=params, ratio=(0.6, 0.58, 0.65))
    if restored:
        made.restore([record])
    else:
        made.tell(asked, record)
    trial = stored(tmp_path)[-1]
    assert trial.state is TrialState.PRUNED
    assert trial.constraints == pytest.approx({"probe": 0.3})
    assert trial.params == {name: params[name] for name in SPACE.distributions()}


def test_a_failed_trial_says_nothing_to_the_sampler(
    tmp_path: Path, trial_record: MakeRecord
) -> None:
    made = study(tmp_path)
    asked, params = made.ask(2)
    made.tell(asked, trial_record(2, status="failed", suggestion=params))
    assert stored(tmp_path)[0].state is TrialState.FAIL


def test_a_control_is_told_with_the_parameters_that_would_suggest_it(
    tmp_path: Path, trial_record: MakeRecord
) -> None:
    widths = {"conv1": 8, "conv2": 48}
    study(tmp_path).tell(None, trial_record(0, role="uniform", widths=widths, value=0.8))
    trial = stored(tmp_path)[0]
    assert trial.value == 0.8
    drawn = {
        name: value for name, value in SPACE.defaults().items() if name in SPACE.distributions()
    }
    assert trial.params == {"ratio.conv1": 0.75, "ratio.conv2": 0.0, **drawn}


@pytest.mark.parametrize("dense", [49, 112])
def test_a_control_at_the_floor_is_within_what_is_drawn(
    tmp_path: Path, trial_record: MakeRecord, dense: int
) -> None:
    space = replace(
        SPACE, dense={"conv1": dense}, allowed={"conv1": (*range(16, dense, 16), dense)}
    )
    made = study(tmp_path, space=space)
    made.tell(None, trial_record(0, role="uniform", widths={"conv1": 16}))
    assert stored(tmp_path)[0].params["ratio.conv1"] == pytest.approx(1 - 16 / dense)


def test_the_seed_and_the_number_decide_the_first_suggestions(tmp_path: Path) -> None:
    one, other = study(folder(tmp_path, "a"), seed=0), study(folder(tmp_path, "b"), seed=1)
    first, second, different = one.ask(2)[1], one.ask(3)[1], other.ask(2)[1]
    assert first != second
    assert first != different


def test_constraints_are_the_excess_over_the_budget(trial_record: MakeRecord) -> None:
    done = trial_record(0, ratio=(0.45, 0.44, 0.46))
    over = trial_record(0, status="over_budget", ratio=(0.6, 0.58, 0.75))
    assert constraints(done) == pytest.approx({"probe": -0.08, "final": -0.08})
    assert constraints(over) == pytest.approx({"probe": 0.5})
    assert constraints(trial_record(0, status="failed")) == {}
    assert constraints(trial_record(0, status="over_size"))["size"] > 0


def test_a_database_that_is_none_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(ResultsError, match="Move it away"):
        study(tmp_path)


def test_a_study_begun_anew_without_its_database_is_the_same(
    tmp_path: Path, trial_record: MakeRecord
) -> None:
    made = study(folder(tmp_path, "old"))
    records = run(made, trial_record, 10)
    shutil.copytree(tmp_path / "old", tmp_path / "kept")
    kept = study(tmp_path / "kept")
    kept.restore(records)
    anew = study(folder(tmp_path, "anew"))
    anew.restore(records)
    assert anew.ask(10)[1] == kept.ask(10)[1]

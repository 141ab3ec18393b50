"""Optuna's side of a study: suggestions that a restart does not change.

Records are the truth and Optuna's storage follows them: a trial that a record knows and Optuna
doesn't is added, one that Optuna left running is failed. The sampler is seeded anew for every
trial from the study's seed and the trial's number, so that a resumed study suggests what an
uninterrupted one would.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from sqlalchemy.exc import DatabaseError

from harness.errors import ResultsError
from harness.quantity import INSTRUCTIONS, TIME
from harness_search.tools import derived_seed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness_results.record import RunRecord
    from harness_search.space import SearchSpace

_STARTUP_TRIALS = 5
"""Trials before the sampler models anything, the warm starts among them."""
_INDEX = "index"


class OptunaStudy:
    """One Optuna study for one budget.

    Args:
        database: SQLite file, shared by the budgets of a front.
        name: Of the study.
        space: What is suggested.
        seed: The study's.
    """

    def __init__(self, database: Path, name: str, space: SearchSpace, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._seed, self._name, self._database = space, seed, name, database
        try:
            self._study = _open(database, name)
        except (DatabaseError, sqlite3.DatabaseError) as exc:
            if "full" in str(exc) or "disk I/O" in str(exc):
                raise ResultsError(
                    f"{database} could not be written: the disk is full or fails. "
                    "All records are whole: free some space and run the same command to go on."
                ) from exc
            raise ResultsError(
                f"{database} can't be read. Move it away and run the same command: it is made "
                "anew from the records."
            ) from exc

    def restore(self, records: Sequence[RunRecord]) -> None:
        """Bring the storage into line with the records."""
        told = {
            trial.user_attrs[_INDEX]: (trial.state, trial.value, trial.constraints)
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.is_finished() and trial.state is not TrialState.FAIL
        }
        kept = [record for record in records if record.status != "failed"]
        wanted = {record.index: (*_outcome(record), constraints(record)) for record in kept}
        if not told.items() <= wanted.items():
            # Records were taken away or measured again: the storage is made anew from them.
            optuna.delete_study(study_name=self._name, storage=self._study._storage)
            self._study, told = _open(self._database, self._name), {}
        for trial in self._study.get_trials(deepcopy=False):
            if not trial.state.is_finished():
                self._study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        for record in kept:
            if record.index not in told:
                self._add(record)

    def ask(self, index: int) -> tuple[optuna.Trial, dict[str, Any]]:
        """Return a new trial and its parameters."""
        seed = derived_seed(self._seed, index)
        self._study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_STARTUP_TRIALS, multivariate=True
        )
        trial = self._study.ask()
        trial.set_user_attr(_INDEX, index)
        return trial, self._space.suggest(trial)

    def tell(self, trial: optuna.Trial | None, record: RunRecord) -> None:
        """Report a recorded trial: the one that was asked for, or a control that nobody asked."""
        if trial is None:
            self._add(record)
            return
        for key, value in constraints(record).items():
            trial.set_constraint(key, value)
        state, score = _outcome(record)
        self._study.tell(trial, score, state=state)

    def _add(self, record: RunRecord) -> None:
        state, value = _outcome(record)
        drawn = self._space.distributions()
        # A session may draw what an earlier one didn't: a precision that now pays.
        known = {**self._space.params(record.candidate), **(record.suggestion or {})}
        params = {name: known[name] for name in drawn}
        for name, distribution in drawn.items():
            if isinstance(distribution, CategoricalDistribution):
                continue
            low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
            params[name] = min(max(params[name], low), high)  # rounding of 1 - width / dense
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value,
                params=params,
                distributions=drawn,
                user_attrs={_INDEX: record.index},
                constraints=constraints(record),
            )
        )


def _open(database: Path, name: str) -> optuna.Study:
    # We open the file ourselves: in a URL, a '?' in a folder's name would start options.
    storage = optuna.storages.RDBStorage(
        "sqlite:///study.db",
        engine_kwargs={"creator": lambda: sqlite3.connect(database, check_same_thread=False)},
    )
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True
    )


def constraints(record: RunRecord) -> dict[str, float]:
    """Return Optuna constraints, feasible at 0 or below: the excess over the budget, relative.

    `probe` speaks of the untrained network, `final` of the trained one.
    """
    found = {}
    for key, phase in (("probe", "probe"), ("final", "retimed")):
        if phase in record.latency:
            upper = judged(record.latency[phase], record.budget)[2]
            found[key] = upper / record.budget["value"] - 1
    if record.status == "over_size":
        found["size"] = 1.0
    return found


def judged(figures: dict[str, Any], budget: dict[str, Any]) -> list[float]:
    """Return `[value, low, high]` of what a budget bounds, from a record's figures."""
    keys = {
        "share": "ratio_{}",
        TIME.name: TIME.key("{}"),
        INSTRUCTIONS.name: INSTRUCTIONS.key("{}"),
    }
    triple: list[float] = figures[keys[budget["kind"]].format(budget["statistic"])]
    return triple


def _outcome(record: RunRecord) -> tuple[TrialState, float | None]:
    if record.status == "failed":
        return TrialState.FAIL, None
    if record.status != "complete":
        return TrialState.PRUNED, None  # keeps its constraint, and the sampler learns from it
    return TrialState.COMPLETE, record.scores["validation"]["value"]

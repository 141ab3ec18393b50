"""What the time given affords: more trials, a long training of the best, the finals."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from harness.measurement.plans import COUNT_FINAL
from harness.quantity import INSTRUCTIONS
from harness_search.proposals import controls
from harness_search.reduction import epochs_on_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.budget import Budget
    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench

LONGER = "longer"
"""Role of a trial that trains another one's network on."""
_LONGER_SHARE = 0.4
"""Of the time between the first trial and the finals: for training the best on."""


def is_short(record: RunRecord) -> bool:
    """Whether a trial tried something new, and didn't train another one's network on."""
    return record.role != LONGER


def trains_longer(bench: Workbench) -> bool:
    """Whether a part of the time is kept for training the best candidates on.

    Not where only the number of trials limits the search, where faster is better (`--max-drop`), or
    where what less data costs is to be told (`--train-fraction`).
    """
    settings, whole = bench.settings, bench.task.reduction.fraction >= 1
    return settings.time_s is not None and settings.max_drop is None and whole


def affords_another(
    bench: Workbench, trials: Sequence[RunRecord], budgets: Sequence[Budget]
) -> bool:
    """Whether the limits leave room for one more trial and all that follows.

    Each budget's first one always runs.

    Args:
        bench: The session.
        trials: All trials of the study, so far.
        budgets: Those that are searched.
    """
    settings, short = bench.settings, [record for record in trials if is_short(record)]
    if settings.trials is not None and len(short) >= settings.trials:
        return False
    if len(short) < len(budgets) or settings.time_s is None:
        return True
    spent = [sum(record.timings_s.values()) for record in short]
    rest = settings.time_s - finals_s(bench, len(budgets))
    if trains_longer(bench):
        rest = _began_s(short) + exploring_s(bench, rest - _began_s(short))
    elif bench.task.reduction.fraction < 1:  # the winner is trained on all samples, too
        training = [record.timings_s.get("train", 0.0) for record in short]
        longer = epochs_on_all(bench.task) / bench.task.recipe.trial_epochs
        rest -= len(budgets) * max(training) * longer / bench.task.reduction.fraction
    return bench.elapsed_s() + statistics.median(spent) <= rest


def longer_until_s(bench: Workbench, trials: Sequence[RunRecord], budgets: int) -> float:
    """Return up to when the best may be trained on, seconds since the study began.

    That is up to the finals; but where the number of trials ended the search, no longer in
    proportion to them than where time does.

    Args:
        bench: The session; `trains_longer`.
        trials: All trials of the study.
        budgets: How many have finals.
    """
    settings, short = bench.settings, [record for record in trials if is_short(record)]
    assert settings.time_s is not None
    end = settings.time_s - finals_s(bench, budgets)
    if not short or settings.trials is None or len(short) < settings.trials:
        return end
    began = _began_s(short)
    explored = max(float(record.search["elapsed_s"]) for record in short) - began
    return min(end, began + explored / (1 - _LONGER_SHARE))


def _began_s(short: Sequence[RunRecord]) -> float:
    """Return when the first trial began, seconds since the study did."""
    return min(float(r.search["elapsed_s"]) - sum(r.timings_s.values()) for r in short)


def exploring_s(bench: Workbench, rest_s: float) -> float:
    """Return which part of the seconds between the first trial and the finals are for trials."""
    return (1 - _LONGER_SHARE) * rest_s if trains_longer(bench) else rest_s


def finals_s(bench: Workbench, budgets: int) -> float:
    """Return what the final measurements will take, seconds: 7 processes of all models a budget.

    These are dense, controls and winner. Before them each is started alone three times. Counting
    instructions takes three processes, and no starts.
    """
    models = 2 + len(controls(bench.settings))
    if bench.target.quantity is INSTRUCTIONS:  # by the probe of the floors: what calls take varies
        return budgets * COUNT_FINAL.processes[0] * models * bench.probe_s
    per_model = 0.25 + 30 * max(0.01, 3 * bench.dense_figures["p50"])
    return budgets * (models * 3 * 0.4 + 7 * (0.6 + models * per_model))

"""The dry run: what a search would do and cost, from short measurements and no training."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.training import fit, torch_kept
from harness_results.store import StudyFolder
from harness_search import baseline
from harness_search.allowance import exploring_s, finals_s
from harness_search.depth import judging_s
from harness_search.engine import set_up
from harness_search.floors import measure_floors
from harness_search.ladder import highest_within, scaled_ladder
from harness_search.reach import models_timed, space_within, take_floors
from harness_search.teacher import cached_teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.compression.pruning.dependency.graph import Group
    from harness.tasks.base import Task
    from harness_results.record import RunRecord
    from harness_search.progress import Progress
    from harness_search.settings import Settings
    from harness_search.space import SearchSpace
    from harness_search.workbench import Workbench

_STEPS = 6
"""Training steps that the estimate times, the first two left out."""
_OVERHEAD_S = 1.0
"""Pruning and scoring a candidate."""
_PROBES = 2.5
"""How often a candidate is exported and timed, trained or not: a typical number."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search would do.

    Attributes:
        floors: The floor's record in every precision that could be timed, with the dense model's
            latency; not kept.
        groups: All prunable groups.
        space: Widths that each may take, and the precisions that are searched.
        reachable: Per budget, whether some floor is not clearly over it, nor over `--max-size`.
        dense: Per budget, whether the dense model is within it, so that nothing is pruned.
        seconds: Estimated cost by phase.
        trials: Trials that `--time` affords; None where only `--trials` limits.
        settings: What was asked for.
        notes: What a user should know of model and data.
    """

    floors: tuple[RunRecord, ...]
    groups: tuple[Group, ...]
    space: SearchSpace
    reachable: tuple[bool, ...]
    dense: tuple[bool, ...]
    seconds: dict[str, float]
    trials: int | None
    settings: Settings
    notes: tuple[str, ...]


@torch_kept()
def plan(settings: Settings, task: Task, progress: Progress) -> Plan:
    """Measure the floors, estimate the phases, and leave nothing behind.

    Raises:
        HarnessError: As `search`.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harness-plan-") as temporary:
        scratch = replace(settings, results=Path(temporary))
        folder = StudyFolder(scratch.results, settings.study_name(task.name))
        folder.create()
        bench = set_up(scratch, task, folder, progress, started)
        baseline.export_dense(bench, "untrained")
        setting_up = time.monotonic() - started
        measured = measure_floors(bench)
        floors = take_floors(bench, measured, [])
        progress.phase("timing a few training steps")
        timed = tuple(record for record in measured if record.status == "complete")
        seconds = _costs(bench, timed, setting_up)
    fixed = sum(seconds[name] for name in ("setup", "floor", "teacher", "blocks", "finals"))
    trials = None
    if settings.time_s is not None:
        left = max(0.0, settings.time_s - fixed)
        trying = exploring_s(bench, left)
        trials = int(trying / seconds["trial"])
        seconds["training the best on"] = left - trying
    if settings.trials is not None:
        trials = settings.trials if trials is None else min(trials, settings.trials)
    reachable = tuple(space_within(bench, floors, b, []) is not None for b in settings.budgets)
    dense = tuple(baseline.dense_suffices(bench, floors[0], b) for b in settings.budgets)
    return Plan(
        timed, bench.graph.groups, bench.space, reachable, dense, seconds, trials, settings,
        bench.notes,
    )  # fmt: skip


def _costs(bench: Workbench, floors: Sequence[RunRecord], setting_up: float) -> dict[str, float]:
    recipe, n = bench.task.recipe, len(bench.task.data.train)
    per_sample = _seconds_per_sample(bench)
    spent, models = floors[0].timings_s, models_timed(floors)
    timing = 2 * spent["timing"] / models  # of a candidate beside the dense network
    export = spent["export"] / (models - 1)
    share = _typical_share(bench)
    part = bench.task.reduction.fraction
    training = recipe.trial_epochs * part * n * per_sample * share
    cached = not recipe.teacher_epochs or cached_teacher(bench).exists()
    return {
        "setup": setting_up,
        "floor": sum(spent.values()),
        "teacher": 0.0 if cached else recipe.teacher_epochs * n * per_sample,
        "blocks": judging_s(bench),
        "trial": training + _PROBES * (timing + export) + _OVERHEAD_S,
        "of it training": training,
        "of it timing": _PROBES * timing,
        "finals": finals_s(bench, len(bench.settings.budgets))
        + (training / part * len(bench.settings.budgets) if part < 1 else 0.0),
    }


def _seconds_per_sample(bench: Workbench) -> float:
    """Return training seconds per sample of the dense network, from a few steps."""
    task, recipe = bench.task, bench.task.recipe
    part = task.data.train.take(torch.arange(min(_STEPS * recipe.batch, len(task.data.train))))
    marks: list[float] = []
    started = time.monotonic()
    with bench.lock.shared():
        fit(
            task.model(), part, task.objective, recipe, epochs=1, lr=recipe.teacher_lr, seed=0,
            on_batch=lambda done, total: marks.append(time.monotonic()),
        )  # fmt: skip
    # The first step warms up; with fewer than three there is none to spare.
    steps = marks[1:] if len(marks) > 2 else [started, *marks]
    return (steps[-1] - steps[0]) / (len(steps) - 1) / recipe.batch


def _typical_share(bench: Workbench) -> float:
    """Return the arithmetic of a uniform candidate at the widest budget, relative to dense."""
    model = bench.latency_models[bench.space.precisions[0]]
    budget = bench.settings.budgets[-1]
    ladder = scaled_ladder(bench.space, dict.fromkeys(bench.space.dense, 1.0))
    predicted = [model.predict(bench.graph.macs(widths)) for widths in ladder]
    limit = budget.as_share(bench.dense_figures[budget.statistic])
    rung = highest_within(predicted, limit, 0, len(ladder) - 1) or 0
    dense = sum(bench.graph.macs(bench.space.dense).values())
    return sum(bench.graph.macs(ladder[rung]).values()) / dense

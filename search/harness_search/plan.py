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
from harness_search.engine import finals_cost_s, set_up
from harness_search.ladder import highest_within, scaled_ladder
from harness_search.teacher import cached_teacher

if TYPE_CHECKING:
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
"""Pruning, exporting and scoring a candidate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search would do.

    Attributes:
        floor: The floor's record, with the dense model's latency; not kept.
        groups: All prunable groups.
        space: Widths that each may take.
        reachable: Per budget, whether the floor is not clearly over it, nor over `--max-size`.
        dense: Per budget, whether the dense model is within it, so that nothing is pruned.
        seconds: Estimated cost by phase.
        trials: Trials that `--time` affords; None where only `--trials` limits.
        settings: What was asked for.
        notes: What a user should know of model and data.
    """

    floor: RunRecord
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
    """Measure the floor, estimate the phases, and leave nothing behind.

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
        floor = baseline.measure_floor(bench)
        baseline.take_floor(bench, floor)
        progress.phase("timing a few training steps")
        seconds = _costs(bench, floor, setting_up)
    fixed = sum(seconds[name] for name in ("setup", "floor", "teacher", "finals"))
    trials = None
    if settings.time_s is not None:
        trials = max(0, int((settings.time_s - fixed) / seconds["trial"]))
    if settings.trials is not None:
        trials = settings.trials if trials is None else min(trials, settings.trials)
    limit = settings.max_size_bytes or floor.model["size_bytes"]
    fits = floor.model["size_bytes"] <= limit
    reachable = tuple(fits and baseline.floor_allows(floor, b) for b in settings.budgets)
    dense = tuple(baseline.dense_suffices(bench, floor, b) for b in settings.budgets)
    return Plan(
        floor, bench.graph.groups, bench.space, reachable, dense, seconds, trials, settings,
        bench.notes,
    )  # fmt: skip


def _costs(bench: Workbench, floor: RunRecord, setting_up: float) -> dict[str, float]:
    recipe, n = bench.task.recipe, len(bench.task.data.train)
    per_sample = _seconds_per_sample(bench)
    timing = floor.timings_s["timing"]
    share = _typical_share(bench)
    part = bench.task.reduction.fraction
    training = recipe.trial_epochs * part * n * per_sample * share
    cached = not recipe.teacher_epochs or cached_teacher(bench).exists()
    return {
        "setup": setting_up,
        "floor": timing,
        "teacher": 0.0 if cached else recipe.teacher_epochs * n * per_sample,
        "trial": training + 2.5 * timing + _OVERHEAD_S,
        "of it training": training,
        "of it timing": 2.5 * timing,
        "finals": finals_cost_s(bench, len(bench.settings.budgets))
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
    assert bench.latency_model is not None
    budget = bench.settings.budgets[-1]
    ladder = scaled_ladder(bench.space, dict.fromkeys(bench.space.dense, 1.0))
    predicted = [bench.latency_model.predict(widths) for widths in ladder]
    limit = budget.as_share(bench.dense_s[budget.statistic])
    rung = highest_within(predicted, limit, 0, len(ladder) - 1) or 0
    dense = sum(bench.graph.macs(bench.space.dense).values())
    return sum(bench.graph.macs(ladder[rung]).values()) / dense

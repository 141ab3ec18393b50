"""Before the first trial: the dense network, trained, exported and judged."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from harness.compression.quantisation.precision import FP32
from harness.errors import ExportError
from harness.models.saving import save_weights
from harness.units import format_metric, format_metric_range, metric_words
from harness_search.optuna_study import judged
from harness_search.stopwatch import Stopwatch
from harness_search.teacher import train_or_load

if TYPE_CHECKING:
    from pathlib import Path

    from harness.budget import Budget
    from harness.tasks.base import Task
    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench


def dense_suffices(bench: Workbench, record: RunRecord, budget: Budget) -> bool:
    """Whether the dense model itself is clearly within what is asked: nothing needs pruning.

    At the very edge a search is made all the same: the dense model's final might fall on the other
    side. Under `--max-drop` faster is better, so the dense model never suffices.
    """
    if FP32.name not in bench.space.precisions:
        return False
    if bench.settings.max_drop is not None or not _fits(bench, bench.dense.size_bytes):
        return False
    if budget.kind == "share":
        return budget.value >= 1.0
    high: float = judged(record.latency["dense"], asdict(budget))[2]
    return high <= 0.95 * budget.value


def prepare_teacher(bench: Workbench) -> dict[str, float]:
    """Train the dense network, or take it from the study or the cache; return seconds per phase.

    The weights are kept in the study, so that a resumed one has the very same teacher, and in the
    cache folder, where every study of the same task, data, recipe and torch finds them.
    """
    watch = Stopwatch()
    if bench.task.recipe.teacher_epochs:
        train_or_load(bench, _own_weights(bench), watch)
    save_weights(bench.network, _own_weights(bench))
    export_dense(bench, "dense")
    with watch.phase("score"):
        split = bench.task.data.validation
        outputs = bench.outputs(bench.dense, split)
        bench.dense_parity = bench.parity(bench.network, outputs, split)
        bench.dense_validation = asdict(bench.score(outputs, split))
    if not bench.dense_parity["passed"]:
        raise ExportError(
            "The exported dense model does not compute what the network computes (largest "
            f"difference {bench.dense_parity['max_error']} of the largest output, "
            f"{bench.dense_parity['argmax_differs']} classes differ): nothing measured on it could "
            "be trusted."
        )
    _say_how_good(bench)
    return watch.report()


def _say_how_good(bench: Workbench) -> None:
    """Tell the dense model's validation score at once, and warn where it is no better than chance.

    Weights that don't fit the data's preparation show here, before the time is spent.
    """
    score, task = bench.dense_validation, bench.task
    metric = task.objective.metric.name
    interval = format_metric_range(score["lo"], score["hi"], metric)
    bench.progress.note(
        f"dense model: {format_metric(score['value'], metric)} validation {metric_words(metric)} "
        f"({interval})"
    )
    chance = chance_level(task)
    if chance is not None and score["lo"] <= chance:
        bench.progress.note(
            f"warning: that can't be told from chance ({format_metric(chance, metric)}). "
            + (
                "Are the samples prepared as the weights expect (`normalize=` in `--data`), and "
                "are the classes in the same order?"
                if task.network.pretrained
                else "Train it longer (`--recipe teacher_epochs=N`), or check model and data."
            )
        )


def chance_level(task: Task) -> float | None:
    """Return what a constant prediction scores; None where only the user knows."""
    name, targets = task.objective.metric.name, task.data.validation.targets_of()
    if name == "accuracy" and isinstance(targets, torch.Tensor):
        return float(targets.bincount().max()) / len(targets)
    return {"balanced_accuracy": 1 / (task.data.outputs or 1), "r2": 0.0}.get(name)


def _own_weights(bench: Workbench) -> Path:
    return bench.model_path("dense.safetensors")


def export_dense(bench: Workbench, name: str) -> None:
    """Export the dense network as it is now: the reference of the measurements that follow."""
    bench.dense = bench.export(bench.network, bench.model_path(f"{name}.onnx"))


def _fits(bench: Workbench, size_bytes: int) -> bool:
    limit = bench.settings.max_size_bytes
    return limit is None or size_bytes <= limit

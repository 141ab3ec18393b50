"""What data reduction cost and saved: the winner's network, trained on all samples beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.compression.quantisation.precision import Precision
from harness.errors import BackendError, ExportError, TaskError
from harness.training import SoftTargets, fit

if TYPE_CHECKING:
    from harness.candidate import OnnxModel
    from harness.tasks.base import Task
    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench


def trained_on_all(bench: Workbench, trial: RunRecord) -> tuple[OnnxModel, float] | None:
    """Train a trial's network once more, on the whole training split, and export it.

    With the epochs that it would have had without the reduction: the same recipe shows fewer
    epochs of more samples. It is for the report alone and can't win.

    Args:
        bench: The session.
        trial: The trial whose network, distillation and seed are taken.

    Returns:
        The file, and the wall seconds of its training; None where candidates are trained on all
        samples anyway, or where this training failed.
    """
    try:
        return _trained(bench, trial)
    except (BackendError, ExportError, TaskError) as exc:  # the finals are worth more than this
        bench.progress.note(f"what less data cost is unknown: {exc}")
        return None


def epochs_on_all(task: Task) -> int:
    """Return a candidate's epochs if it were trained on all samples."""
    return task.epochs_on_all or task.recipe.trial_epochs


def _trained(bench: Workbench, trial: RunRecord) -> tuple[OnnxModel, float] | None:
    task = bench.task
    if task.reduction.fraction >= 1 or trial.training is None:
        return None
    bench.progress.phase(
        "training the winner's network on all samples, to tell what less data cost"
    )
    recipe, told, split = task.recipe, trial.candidate, task.data.train
    base = bench.base(told["blocks"])
    network = base.pruned(bench.network, bench.example[:1], trial.pruning or {})
    teacher, epochs = bench.teacher(split), epochs_on_all(task)
    if told["kd_weight"] > 0:
        for epoch in range(epochs):
            teacher(epoch)  # before the clock runs: candidates had theirs made, too
    soft = SoftTargets(teacher, told["temperature"] or 1.0, told["kd_weight"])

    def on_batch(done: int, total: int) -> None:
        bench.lock.breathe()
        bench.progress.advance(done, total)

    started = time.monotonic()
    with bench.lock.shared():
        fit(
            network, split, task.objective, recipe, epochs=epochs, lr=recipe.trial_lr,
            seed=trial.training["seed"], soft=soft, on_batch=on_batch,
        )  # fmt: skip
    seconds = time.monotonic() - started
    with bench.lock.shared():
        path = bench.model_path("on-all-samples.onnx")
        return bench.export(network, path, Precision(told["precision"])), seconds

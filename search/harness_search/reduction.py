"""What data reduction cost and saved: the winner's network, trained on all samples beside it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.compression.prune import prune
from harness.training import SoftTargets, fit

if TYPE_CHECKING:
    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench


def trained_on_all(bench: Workbench, trial: RunRecord) -> dict[str, Any] | None:
    """Train a trial's network once more, on the whole training split, and score it on validation.

    It is for the report alone and can't win.

    Args:
        bench: The session.
        trial: The trial whose network, distillation and seed are taken.

    Returns:
        `score` on the validation split (as in a record), `train_s` (wall seconds); None where
        candidates are trained on all samples anyway.
    """
    task = bench.task
    if task.reduction.fraction >= 1 or trial.training is None:
        return None
    bench.progress.phase(
        "training the winner's network on all samples, to tell what less data cost"
    )
    recipe, told, split = task.recipe, trial.candidate, task.data.train
    network = prune(bench.network, bench.graph, bench.example[:1], trial.pruning or {})
    teacher = bench.teacher(split)
    if told["kd_weight"] > 0:
        for epoch in range(recipe.trial_epochs):
            teacher(epoch)  # before the clock runs: candidates had theirs made, too
    soft = SoftTargets(teacher, told["temperature"] or 1.0, told["kd_weight"])

    def on_batch(done: int, total: int) -> None:
        bench.lock.breathe()
        bench.progress.advance(done, total)

    started = time.monotonic()
    with bench.lock.shared():
        fit(
            network, split, task.objective, recipe, epochs=recipe.trial_epochs,
            lr=recipe.trial_lr, seed=trial.training["seed"], soft=soft, on_batch=on_batch,
        )  # fmt: skip
    seconds = time.monotonic() - started
    with bench.lock.shared():
        model = bench.export(network, bench.model_path("probe.onnx"))
    outputs = bench.outputs(model, task.data.validation)
    return {"score": asdict(bench.score(outputs, task.data.validation)), "train_s": seconds}

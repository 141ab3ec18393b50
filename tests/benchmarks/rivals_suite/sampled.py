"""Plain Optuna, and chance: draw ratios, train each trial, then time it; the best feasible wins."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import optuna

from harness.budget import Decision, parse_budgets
from harness.compression.pruning.allocation import allowed_widths, nearest_widths
from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.importance import channel_scores
from harness.compression.pruning.prune import choose_channels, prune
from rivals_suite.distilling import distil

if TYPE_CHECKING:
    from pathlib import Path

    from harness_search.tools import Tools

_END_S = 3.0


def run(
    tools: Tools, share: str, granule: int, deadline: float, seed: int, folder: Path, tpe: bool
) -> dict[str, Any]:
    """Try networks until the time is over and leave the best feasible one's `model.onnx`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (budget,) = parse_budgets(share)
    sampler = optuna.samplers.TPESampler(seed=seed) if tpe else optuna.samplers.RandomSampler(seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    graph = pruning_graph(tools.network, tools.example[:1])
    allowed = allowed_widths(graph, granule, set())
    scores = channel_scores(tools.network, graph, [], tools.task.objective.loss, "l2")
    best: float | None = None
    costs: list[float] = []
    while not costs or time.monotonic() + statistics.median(costs) < deadline - _END_S:
        started = time.monotonic()
        trial = study.ask()
        kept = {name: 1 - trial.suggest_float(name, 0.0, 0.9) for name in allowed}
        widths = nearest_widths(allowed, kept)
        history = choose_channels(graph, scores, widths)
        network = prune(tools.network, graph, tools.example[:1], history)
        distil(tools, network, tools.task.recipe.trial_epochs, seed + trial.number)
        model = tools.export(network, folder / "trial.onnx")
        measured = tools.timed({"candidate": model}, budget)["candidate"]
        split = tools.task.data.validation
        value = tools.score(tools.outputs(model, split), split).value
        over = measured.stats.judged(budget).hi / budget.value - 1
        trial.set_constraint("latency", over)
        study.tell(trial, value)
        if budget.decide(measured.stats) is Decision.FEASIBLE and (best is None or value > best):
            best = value
            (folder / "trial.onnx").replace(folder / "model.onnx")
        costs.append(time.monotonic() - started)
    (folder / "trial.onnx").unlink(missing_ok=True)
    return {"trials": len(costs), "epochs": tools.task.recipe.trial_epochs}

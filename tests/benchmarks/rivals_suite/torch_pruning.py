"""Torch-Pruning by magnitude, bisected to the measured budget, then distilled to the end.

References:
    Fang et al. (2023), "DepGraph: towards any structural pruning".
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp
from torch import nn

from harness.budget import Decision, parse_budgets
from rivals_suite.distilling import distil, epochs_until

if TYPE_CHECKING:
    from pathlib import Path

    from harness.budget import Budget
    from harness_search.tools import Tools

_HALVINGS = 8
_END_S = 4.0
"""For the last export and the end of the process."""


def prune_to_budget(
    tools: Tools, budget: Budget, granule: int, everywhere: bool, path: Path
) -> tuple[nn.Module | None, dict[str, Any]]:
    """Return the largest network found within the budget, None for none, and what was tried."""
    low, high, best = 0.0, 1.0, None
    probes = 0
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        candidate = _pruned(tools, ratio, granule, everywhere)
        if candidate is None:
            high = ratio
            continue
        model = tools.export(candidate, path)
        measured = tools.timed({"candidate": model}, budget)["candidate"]
        probes += 1
        if budget.decide(measured.stats) is Decision.FEASIBLE:
            high, best = ratio, candidate
        else:
            low = ratio
    return best, {"probes": probes, "ratio": high}


def _pruned(tools: Tools, ratio: float, granule: int, everywhere: bool) -> nn.Module | None:
    network = copy.deepcopy(tools.network)
    head = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    pruner = tp.pruner.BasePruner(
        network, tools.example[:1], importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=everywhere, pruning_ratio=ratio, ignored_layers=[head], round_to=granule,
    )  # fmt: skip
    try:
        pruner.step()
        with torch.inference_mode():
            network.eval()(tools.example[:1])
    except (RuntimeError, ZeroDivisionError, ValueError):
        return None  # pruned to nothing
    return network


def run(tools: Tools, share: str, granule: int, deadline: float, seed: int, folder: Path,
        everywhere: bool) -> dict[str, Any]:  # fmt: skip
    """Prune, distil and leave `model.onnx` in the folder; tell what was done."""
    (budget,) = parse_budgets(share)
    network, told = prune_to_budget(tools, budget, granule, everywhere, folder / "probe.onnx")
    (folder / "probe.onnx").unlink(missing_ok=True)
    if network is None:
        return told
    epochs = epochs_until(tools, network, deadline - _END_S)
    started = time.monotonic()
    distil(tools, network, epochs, seed)
    told |= {"epochs": epochs, "train_s": time.monotonic() - started}
    tools.export(network, folder / "model.onnx")
    return told

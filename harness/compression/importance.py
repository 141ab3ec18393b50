"""Importance criteria: which channels of a group matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp
from torch.nn import functional as F

from harness.compression.graph import dependency_graph, group_members

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.graph import PruningGraph
    from harness.tasks.base import Split

CRITERIA = ("l2", "bn_scale", "taylor")
"""Weight magnitude (Li et al., 2017), batch-norm scale (Liu et al., 2017, "network slimming"),
first-order Taylor expansion of the loss (Molchanov et al., 2019)."""
_TAYLOR_SAMPLES = 512


def channel_scores(
    model: nn.Module, graph: PruningGraph, example: torch.Tensor, split: Split, criterion: str
) -> dict[str, torch.Tensor]:
    """Return a score per channel of every group, float `[width]`; each group's mean is 1.

    Args:
        model: The trained dense network; left as it was.
        graph: Its prunable groups.
        example: One sample, `[1, ...]`.
        split: Training samples, for criteria that need gradients.
        criterion: One of `CRITERIA`.
    """
    if criterion == "taylor":
        _accumulate_gradients(model, split)
    measure = {
        "l2": tp.importance.GroupMagnitudeImportance(p=2),
        "bn_scale": tp.importance.BNScaleImportance(),
        "taylor": tp.importance.GroupTaylorImportance(),
    }[criterion]
    dependencies = dependency_graph(model, example)
    try:
        return {
            group.name: _scores(measure, dependencies, model, group.name, group.width)
            for group in graph.groups
        }
    finally:
        model.zero_grad(set_to_none=True)


def _scores(measure: Any, graph: Any, model: nn.Module, name: str, width: int) -> torch.Tensor:
    scores = measure(group_members(graph, model, name, list(range(width))))
    if scores is None:  # the criterion says nothing of this group: all channels alike
        return torch.ones(width)
    scores = torch.as_tensor(scores).detach().float()
    normalised: torch.Tensor = scores / scores.mean().clamp_min(1e-12)
    return normalised


def _accumulate_gradients(model: nn.Module, split: Split) -> None:
    """Leave the loss's gradient over a few batches in the parameters."""
    model.eval().zero_grad(set_to_none=True)
    for rows in torch.split(torch.arange(min(_TAYLOR_SAMPLES, len(split))), 128):
        loss = F.cross_entropy(model(split.inputs[rows]), split.labels[rows])
        loss.backward()  # type: ignore[no-untyped-call]

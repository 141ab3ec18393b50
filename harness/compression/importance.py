"""Importance criteria: which channels of a group matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.compression.dependency.parts import attribute, module_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.compression.dependency.parts import Group, Member, PruningGraph
    from harness.data.split import Targets

CRITERIA = ("l2", "bn_scale", "taylor")
"""Weight magnitude (Li et al., 2017), batch-norm scale (Liu et al., 2017, "network slimming"),
first-order Taylor expansion of the loss (Molchanov et al., 2019)."""
# Not their base class: what is left of a batch norm whose statistics were folded into its scale,
# as in an ONNX file, has a scale that says nothing of importance.
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def channel_scores(
    model: nn.Module,
    graph: PruningGraph,
    batches: Iterable[tuple[torch.Tensor, Targets]],
    loss: Callable[[Any, Any], torch.Tensor],
    criterion: str,
) -> dict[str, torch.Tensor]:
    """Return a score per channel of every group, float `[width]`; each group's mean is 1.

    A channel's score is the mean over the weights that it consists of (its own, those of norms,
    and those of the layers that it goes into), each summed over the channel, as in torch-pruning's
    `GroupMagnitudeImportance` and `GroupTaylorImportance`. Biases don't count.

    Args:
        model: The trained dense network; left as it was.
        graph: Its prunable groups.
        batches: Training samples and their targets, for criteria that need gradients.
        loss: From the network's outputs and targets to a scalar.
        criterion: One of `CRITERIA`.
    """
    if criterion != "taylor":
        return {group.name: _scores(model, group, criterion) for group in graph.groups}
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        _accumulate_gradients(model, batches, loss)
        return {group.name: _scores(model, group, criterion) for group in graph.groups}
    finally:
        model.zero_grad(set_to_none=True)
        for parameter in frozen:
            parameter.requires_grad_(False)


def applicable_criteria(model: nn.Module, graph: PruningGraph) -> tuple[str, ...]:
    """Return the criteria that say something of this network."""
    return CRITERIA if _with_scale(model, graph) * 2 >= len(graph.groups) else ("l2", "taylor")


def inapplicable_criteria(model: nn.Module, graph: PruningGraph) -> tuple[str, ...]:
    """Return a line for each criterion that is left out, with the reason."""
    if "bn_scale" in applicable_criteria(model, graph):
        return ()
    found, of = _with_scale(model, graph), len(graph.groups)
    return (
        f"The criterion bn_scale is left out: {found} of {of} groups have a batch norm with a "
        "scale of its own.",
    )


def _with_scale(model: nn.Module, graph: PruningGraph) -> int:
    def has_scale(group: Group) -> bool:
        return any(_is_scale(model, member) for member in group.members)

    return sum(has_scale(group) for group in graph.groups)


def _is_scale(model: nn.Module, member: Member) -> bool:
    module = model.get_submodule(module_of(member.name))
    return isinstance(module, _BATCH_NORMS) and member.name.endswith("weight")


def _scores(model: nn.Module, group: Group, criterion: str) -> torch.Tensor:
    """Return the mean of all members' scores `[width]`; ones where the criterion has none."""
    found = [
        score
        for member in group.members
        if (score := _member_score(model, member, criterion)) is not None
    ]
    if not found:
        return torch.ones(group.width)
    scores = torch.stack(found).mean(0)
    normalised: torch.Tensor = scores / scores.mean().clamp_min(1e-12)
    return normalised


def _member_score(model: nn.Module, member: Member, criterion: str) -> torch.Tensor | None:
    """Return a member's share in each channel's score, float `[width]`; None if it has none."""
    weight = attribute(model, member.name)
    if not isinstance(weight, nn.Parameter) or member.name.endswith("bias"):
        return None
    if criterion == "bn_scale":
        values = weight.detach().abs() if _is_scale(model, member) else None
    elif criterion == "taylor":
        values = None if weight.grad is None else (weight.detach() * weight.grad).abs()
    else:
        values = weight.detach().square()
    if values is None:
        return None
    if member.groups > 1:  # [out, in / groups]: the groups' inputs beside each other
        values = torch.cat(values.chunk(member.groups), dim=1)
    by_entry = values.float().movedim(member.dim, 0).reshape(values.shape[member.dim], -1).sum(1)
    return by_entry[torch.from_numpy(member.entries)].sum(1)


def _accumulate_gradients(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, Targets]],
    loss: Callable[[Any, Any], torch.Tensor],
) -> None:
    """Leave the loss's gradient over a few batches in the parameters."""
    model.eval().zero_grad(set_to_none=True)
    with torch.enable_grad():
        for inputs, targets in batches:
            loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]

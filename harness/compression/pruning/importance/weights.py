"""Criteria that read weights, and gradients beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from harness.compression.pruning.dependency.costs import OUT, side_of
from harness.compression.pruning.dependency.parts import attribute, module_of
from harness.compression.pruning.dependency.tracing import LAYERS

if TYPE_CHECKING:
    from harness.compression.pruning.dependency.parts import Group, Member

# Not their base class: what is left of a batch norm whose statistics were folded into its scale,
# as in an ONNX file, has a scale that says nothing of importance.
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def weight_scores(model: nn.Module, group: Group, criterion: str) -> torch.Tensor | None:
    """Return a score per channel, float `[width]`; None where the criterion says nothing.

    It is the mean over the weights that a channel consists of (its own, those of norms, and those
    of the layers that it goes into), each summed over the channel, as in torch-pruning's
    `GroupMagnitudeImportance` and `GroupTaylorImportance`. Biases don't count.

    For `taylor` a weight counts |w dL/dw|, of the gradient summed over all batches. Molchanov et
    al. (2019) square w dL/dw instead, and average over batches; the mean of the absolute values of
    each batch chose no better channels of ResNet-20 on CIFAR-10.

    Args:
        model: The network; for `taylor` with gradients.
        group: One of its groups.
        criterion: `"l2"`, `"l1"`, `"bn_scale"` or `"taylor"`.
    """
    found = [
        score
        for member in group.members
        if (score := _member_score(model, member, criterion)) is not None
    ]
    return torch.stack(found).mean(0) if found else None


def has_scale(model: nn.Module, group: Group) -> bool:
    """Return whether a batch norm scales a group's channels."""
    return any(_is_scale(model, member) for member in group.members)


def has_filters(model: nn.Module, group: Group) -> bool:
    """Return whether a group's channels are made by weights that can be held against each other."""
    return any(_filters(model, member) is not None for member in group.members)


def filter_distances(model: nn.Module, group: Group) -> torch.Tensor | None:
    """Return how far each channel's filters are from those of the group's other channels.

    He et al. (2019), "Filter pruning via geometric median": the sum of the Euclidean distances of
    a filter to all others of its layer is least for the filter that the others can stand for.
    Each layer's sums are divided by their mean, so that wide layers say no more than others.

    Args:
        model: The network.
        group: One of its groups.

    Returns:
        Float `[width]`, the mean over the layers that the channels are outputs of; None where the
        filters of all these layers are equal, or there are none.
    """
    found = []
    for member in group.members:
        filters = _filters(model, member)
        if filters is not None:
            # As products they would be faster, and of near filters no more than noise.
            sums = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
            if sums.sum() > 0:
                found.append(sums / sums.mean())
    return torch.stack(found).mean(0) if found else None


def _filters(model: nn.Module, member: Member) -> torch.Tensor | None:
    """Return all weights that make each channel, float `[width, n]`; None where it makes none."""
    weight = attribute(model, member.name)
    if not isinstance(weight, nn.Parameter) or weight.dim() < 2:
        return None
    module = model.get_submodule(module_of(member.name))
    if isinstance(module, LAYERS) and side_of(module, member) != OUT:
        return None
    by_entry = weight.detach().float().movedim(member.dim, 0).reshape(weight.shape[member.dim], -1)
    return by_entry[torch.from_numpy(member.entries)].flatten(1)


def _is_scale(model: nn.Module, member: Member) -> bool:
    module = model.get_submodule(module_of(member.name))
    return isinstance(module, _BATCH_NORMS) and member.name.endswith("weight")


def _member_score(model: nn.Module, member: Member, criterion: str) -> torch.Tensor | None:
    """Return a member's share in each channel's score, float `[width]`; None if it has none."""
    weight = attribute(model, member.name)
    if not isinstance(weight, nn.Parameter) or member.name.endswith("bias"):
        return None
    if criterion == "bn_scale":
        values = weight.detach().abs() if _is_scale(model, member) else None
    elif criterion == "taylor":
        values = None if weight.grad is None else (weight.detach() * weight.grad).abs()
    elif criterion == "l1":
        values = weight.detach().abs()
    else:
        values = weight.detach().square()
    if values is None:
        return None
    if member.groups > 1:  # [out, in / groups]: the groups' inputs beside each other
        values = torch.cat(values.chunk(member.groups), dim=1)
    by_entry = values.float().movedim(member.dim, 0).reshape(values.shape[member.dim], -1).sum(1)
    return by_entry[torch.from_numpy(member.entries)].sum(1)

"""Structured pruning: a new, smaller network with exactly the widths asked."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from harness.compression.graph import dependency_graph, group_members
from harness.errors import ConfigError, TaskError
from harness.export import layer_macs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from harness.compression.graph import PruningGraph

History = dict[str, list[int]]
"""What was removed: per group, the dense model's channel numbers, ascending."""


def choose_channels(
    graph: PruningGraph, scores: Mapping[str, torch.Tensor], widths: Mapping[str, int]
) -> History:
    """Return which channels go, so that the highest-scored ones of each group stay.

    Args:
        graph: The prunable groups.
        scores: Per group, `[width]`.
        widths: Channels to keep per group.

    Raises:
        ConfigError: If a width is below 1 or above the dense one.
    """
    history: History = {}
    for group in graph.groups:
        keep = widths[group.name]
        if not 1 <= keep <= group.width:
            raise ConfigError(
                f"Group {group.name!r} must keep 1 to {group.width} channels. Received: {keep}."
            )
        order = torch.argsort(scores[group.name], stable=True)
        if keep < group.width:
            history[group.name] = sorted(order[: group.width - keep].tolist())
    return history


def prune(
    model: nn.Module, graph: PruningGraph, example: torch.Tensor, history: History
) -> nn.Module:
    """Return a copy of `model` without the channels in `history`.

    The guard around torch-pruning: every realised width is checked against what was asked (it
    skips a group without a word where it is over-asked), and the result must run.

    Args:
        model: The dense network; left as it was.
        graph: Its prunable groups.
        example: One sample, `[1, ...]`.
        history: Channels to remove per group.

    Raises:
        ConfigError: If a group or channel doesn't exist.
        TaskError: If the result has other widths than asked, or doesn't run.
    """
    widths = graph.dense_widths()
    for name, channels in history.items():
        if name not in widths or not set(channels) < set(range(widths[name])):
            raise ConfigError(
                f"The pruning history asks for channels of {name!r} that don't exist."
            )
    smaller = copy.deepcopy(model).eval()
    dependencies = dependency_graph(smaller, example)
    for name, channels in history.items():
        members = group_members(dependencies, smaller, name, channels)
        if not dependencies.check_pruning_group(members):
            raise TaskError(
                f"Removing {len(channels)} channels of {name!r} would leave a layer empty."
            )
        members.prune()
    for group in graph.groups:
        expected = group.width - len(history.get(group.name, ()))
        layer = smaller.get_submodule(group.name)
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        if weight.shape[0] != expected:
            raise TaskError(
                f"Group {group.name!r}: asked for {expected} channels, received {weight.shape[0]}."
            )
    try:
        realised = layer_macs(smaller, example)
    except RuntimeError as exc:
        raise TaskError(f"The pruned network doesn't run: {exc}") from exc
    kept = {name: width - len(history.get(name, ())) for name, width in widths.items()}
    for name, macs in graph.macs(kept).items():
        if round(macs) != realised.get(name):
            raise TaskError(
                f"Layer {name!r}: expected {macs:.0f} multiply-accumulates at the widths asked, "
                f"received {realised.get(name)}: a layer was not pruned with its group."
            )
    return smaller

"""Structured pruning: a new, smaller network with exactly the widths asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.compression.pruning.dependency.cutting import copied, cut, places, settle_norms
from harness.compression.pruning.dependency.parts import History
from harness.compression.pruning.dependency.verify import wrong_macs
from harness.errors import ConfigError, TaskError
from harness.export import layer_macs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from harness.compression.pruning.dependency.graph import PruningGraph
    from harness.compression.pruning.dependency.parts import Group

__all__ = ["History", "choose_channels", "last_channels", "prune", "pruned_params"]


def choose_channels(
    graph: PruningGraph, scores: Mapping[str, torch.Tensor], widths: Mapping[str, int]
) -> History:
    """Return which channels go, so that the highest-scored ones of each group's blocks stay.

    Args:
        graph: The prunable groups.
        scores: Per group, `[width]`.
        widths: Channels to keep per group.

    Raises:
        ConfigError: If a width is below 1, above the dense one, or no multiple of the blocks.
    """
    history: History = {}
    for group in graph.groups:
        keep = widths[group.name]
        if not 1 <= keep <= group.width:
            raise ConfigError(
                f"Group {group.name!r} must keep 1 to {group.width} channels. Received: {keep}."
            )
        if keep % group.blocks:
            raise ConfigError(
                f"Group {group.name!r} must keep equally many channels in each of its "
                f"{group.blocks} parts, so a multiple of {group.blocks}. Received: {keep}."
            )
        if keep < group.width:
            history[group.name] = _lowest(scores[group.name], group.blocks, keep)
    return history


def last_channels(graph: PruningGraph, widths: Mapping[str, int]) -> History:
    """Return that the last channels of each group's blocks go: any network of these widths.

    Args:
        graph: The prunable groups.
        widths: Channels to keep per group.

    Raises:
        ConfigError: As `choose_channels`.
    """
    falling = {group.name: torch.arange(group.width, 0, -1) for group in graph.groups}
    return choose_channels(graph, falling, widths)


def _lowest(scores: torch.Tensor, blocks: int, keep: int) -> list[int]:
    size = len(scores) // blocks
    order = torch.argsort(scores.view(blocks, size), dim=1, stable=True)
    gone = order[:, : size - keep // blocks] + torch.arange(blocks)[:, None] * size
    return sorted(gone.reshape(-1).tolist())


def prune(
    model: nn.Module, graph: PruningGraph, example: torch.Tensor, history: History
) -> nn.Module:
    """Return a copy of `model` without the channels in `history`.

    The result is checked: it must run, with exactly the multiply-accumulates that the graph
    predicts for every layer.

    Args:
        model: The dense network; left as it was.
        graph: Its prunable groups.
        example: One sample, `[1, ...]`.
        history: Channels to remove per group.

    Raises:
        ConfigError: If a group or channel doesn't exist, or the parts of a group would differ.
        TaskError: If the result has other widths than asked, or doesn't run.
    """
    _check(graph, history)
    removed = places(graph.groups, history)
    smaller = copied(model, (name for name, _, _ in removed)).eval()
    try:
        cut(smaller, removed)
        settle_norms(smaller, example)
        realised = layer_macs(smaller, example)
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(f"The pruned network doesn't run: {exc}") from exc
    if (why := wrong_macs(graph, history, realised)) is not None:
        raise TaskError(f"The network was not pruned as asked: {why}.")
    return smaller


def pruned_params(model: nn.Module, graph: PruningGraph, widths: Mapping[str, int]) -> int:
    """Return how many parameters are left at the given widths, those of norms and biases too.

    They are counted in a copy that is really cut; it isn't run.

    Args:
        model: The dense network; left as it was.
        graph: Its prunable groups.
        widths: Channels to keep per group.

    Raises:
        ConfigError: As `choose_channels`.
    """
    removed = places(graph.groups, last_channels(graph, widths))
    smaller = copied(model)
    cut(smaller, removed)
    return sum(parameter.numel() for parameter in smaller.parameters())


def _check(graph: PruningGraph, history: History) -> None:
    groups = {group.name: group for group in graph.groups}
    for name, channels in history.items():
        group = groups.get(name)
        if group is None or not set(channels) < set(range(group.width)):
            raise ConfigError(
                f"The pruning history asks for channels of {name!r} that don't exist."
            )
        if len(set(_left(group, channels))) > 1:
            raise ConfigError(
                f"The pruning history leaves parts of {name!r} that differ in size: its "
                f"{group.blocks} equal parts must keep equally many channels."
            )


def _left(group: Group, channels: list[int]) -> list[int]:
    size = group.width // group.blocks
    gone = torch.bincount(torch.tensor(channels, dtype=torch.int64) // size, minlength=group.blocks)
    left: list[int] = (size - gone).tolist()
    return left

"""Which criteria say something of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compression.pruning.importance.scores import CRITERIA
from harness.compression.pruning.importance.weights import has_filters, has_scale

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.pruning.dependency.parts import Group, PruningGraph

_NEEDED = {
    "bn_scale": "a batch norm with a scale of its own",
    "fpgm": "weights that make their channels",
}
"""What criteria need of a group that don't say something of every one."""


def applicable_criteria(model: nn.Module, graph: PruningGraph) -> tuple[str, ...]:
    """Return what a search may choose from: the criteria that say something of this network.

    That is of half of its groups at least. Chance is none of them; `l2` comes first.
    """
    return tuple(
        criterion
        for criterion in CRITERIA
        if criterion != "random"
        and len(silent_groups(model, graph, criterion)) * 2 <= len(graph.groups)
    )


def inapplicable_criteria(model: nn.Module, graph: PruningGraph) -> tuple[str, ...]:
    """Return a line for each criterion that is left out, with the reason."""
    chosen, of = applicable_criteria(model, graph), len(graph.groups)
    return tuple(
        f"The criterion {criterion} is left out: "
        f"{of - len(silent_groups(model, graph, criterion))} of {of} groups have {needed}."
        for criterion, needed in _NEEDED.items()
        if criterion not in chosen
    )


def silent_groups(model: nn.Module, graph: PruningGraph, criterion: str) -> tuple[str, ...]:
    """Return the groups that a criterion says nothing of, so that their channels count alike."""
    return tuple(g.name for g in graph.groups if not _speaks(model, g, criterion))


def _speaks(model: nn.Module, group: Group, criterion: str) -> bool:
    if criterion == "bn_scale":
        return has_scale(model, group)
    return criterion != "fpgm" or has_filters(model, group)

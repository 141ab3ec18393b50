"""What the step `prune` tells beside its result."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from harness.units import format_share

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from harness.compression.pruning.dependency.parts import PruningGraph
    from harness.compression.steps.base import Listener

_NEAR = 0.005
"""Shares that differ by less are told alike."""


def tell_whole(graph: PruningGraph, listener: Listener) -> None:
    """Tell which layers stay whole, a line for each reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in graph.unprunable:
        by_reason[one.reason].append(one.name)
    for reason, found in by_reason.items():
        listener.note(f"left whole: {', '.join(found)}: {reason}")


def tell_silent(criterion: str, silent: Collection[str], listener: Listener) -> None:
    """Tell which groups a criterion says nothing of."""
    if silent:
        listener.note(
            f"the criterion {criterion} says nothing of {', '.join(silent)}: channels count alike "
            "there"
        )


def tell_ratio(
    asked: float,
    widths: Mapping[str, int],
    dense: Mapping[str, int],
    fixed: Collection[str],
    listener: Listener,
) -> None:
    """Tell which share of the channels goes, where it isn't the one that was asked.

    Args:
        asked: Share of channels removed, above 0 and below 1.
        widths: Channels that each group keeps.
        dense: Channels that each group has.
        fixed: Groups whose channels don't count.
        listener: Is told.
    """
    counted = [name for name in dense if name not in fixed]
    there = sum(dense[name] for name in counted)
    gone = there - sum(widths[name] for name in counted)
    if there and abs(gone / there - asked) >= _NEAR:
        listener.note(
            f"asked to remove {format_share(asked)} of the channels, {format_share(gone / there)} "
            "go: groups keep whole steps of their channels"
        )


def tell_layers(
    asked: Mapping[str, int | float],
    widths: Mapping[str, int],
    dense: Mapping[str, int],
    listener: Listener,
) -> None:
    """Tell which groups keep another share than the one asked, by a channel or more.

    Args:
        asked: Channels that groups keep, or the share of them.
        widths: Channels that each group keeps.
        dense: Channels that each group has.
        listener: Is told.
    """
    for name, share in asked.items():
        if isinstance(share, float) and abs(widths[name] - share * dense[name]) >= 1:
            listener.note(
                f"{name} keeps {widths[name]} of {dense[name]} channels, not "
                f"{format_share(share)}: groups keep whole steps of their channels"
            )


def tell_sparse(sparse: Collection[str], listener: Listener) -> None:
    """Tell what becomes of weights that are sparse already.

    Args:
        sparse: Their names.
        listener: Is told.
    """
    if sparse:
        listener.note(
            "sparse layers lose channels as well: what is zero stays zero, but the share of zeros "
            "changes, and a pattern N:M may not hold any more. Put 'sparsify' after 'prune' where "
            "it has to."
        )

"""Widths from what a user asks for: a share of the network, or named groups' widths."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING

from harness.compression.pruning.allocation import allowed_widths, nearest_widths, widest_within
from harness.compression.pruning.prune import pruned_params
from harness.errors import ConfigError
from harness.units import format_share

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from torch import nn

    from harness.compression.pruning.allocation import Ladder
    from harness.compression.pruning.dependency.parts import PruningGraph, Widths

COSTS = {
    "params": "parameters",
    "macs": "multiply-accumulates",
    "channels": "channels that may go",
}
"""What a goal may be a share of, for people."""


def cost_of(
    kind: str, model: nn.Module, graph: PruningGraph, fixed: Collection[str]
) -> Callable[[Widths], float]:
    """Return what networks of given widths cost; exact, and the wider the more.

    Args:
        kind: One of `COSTS`. Parameters are all that the network has, those of norms and biases
            too; multiply-accumulates are those of convolution and linear layers for one sample.
        model: The dense network; left as it is.
        graph: Its prunable groups.
        fixed: Groups whose channels don't count, as they all stay.
    """
    if kind == "params":
        return lambda widths: pruned_params(model, graph, widths)
    if kind == "macs":
        return lambda widths: sum(graph.macs(widths).values())
    return lambda widths: sum(width for name, width in widths.items() if name not in fixed)


def reach(
    ladder: Ladder, kind: str, kept: float, cost: Callable[[Widths], float], advice: str
) -> Widths:
    """Return the widest network of a ladder that costs at most a share of the dense one.

    Args:
        ladder: Networks, smallest first, the dense one last.
        kind: One of `COSTS`, for people.
        kept: The share, above 0 and below 1.
        cost: From `cost_of`.
        advice: What to do if there is none, for people.

    Raises:
        ConfigError: If even the smallest network costs more.
    """
    dense = cost(ladder[-1])
    # Shares such as 57 % are no exact numbers.
    found = widest_within(ladder, cost, kept * dense * (1 + 1e-9))
    if found is None:
        # Rounded up, so that the share told is one that can be reached.
        least = math.ceil(cost(ladder[0]) / dense * 1000) / 1000
        raise ConfigError(
            f"Pruning can't reach the goal: asked to keep at most {format_share(kept)} of the "
            f"{COSTS[kind]}, the smallest network that the options allow keeps "
            f"{format_share(least)}. {advice}"
        )
    return found


def widths_by_name(graph: PruningGraph, granule: int, kept: Mapping[str, int | float]) -> Widths:
    """Return the widths that a user gives by name; groups without one stay whole.

    Args:
        graph: The prunable groups.
        granule: Steps of the widths that shares come to.
        kept: Channels (whole numbers, taken as they are) or the share of them, by group.

    Raises:
        ConfigError: If a name is no group's.
    """
    check_names(graph, kept)
    shares = {name: one for name, one in kept.items() if isinstance(one, float)}
    counts = {name: one for name, one in kept.items() if isinstance(one, int)}
    return {**nearest_widths(allowed_widths(graph, granule), shares), **counts}


def check_names(graph: PruningGraph, names: Iterable[str]) -> None:
    """Check that names are groups'.

    Raises:
        ConfigError: If one isn't; says what it may have meant.
    """
    known = graph.dense_widths()
    for name in names:
        if name not in known:
            raise ConfigError(
                f"There is no prunable group {name!r}.{_hint(graph, name)} Expected one of: "
                f"{', '.join(known)}."
            )


def _hint(graph: PruningGraph, name: str) -> str:
    """Return why a name is no group's, or which one is near; empty for nothing."""
    for one in graph.unprunable:
        if one.name == name:
            return f" It is left whole: {one.reason}."
    owners = [part.group for one in graph.layers if one.name == name for part in one.outs]
    if owners:
        return f" Its channels go with those of {', '.join(owners)}."
    near = difflib.get_close_matches(name, graph.dense_widths(), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""

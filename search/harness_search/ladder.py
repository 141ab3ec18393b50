"""Ladders: from one idea of an architecture to networks of every size, floor to dense.

Fitting an idea to a budget then is choosing a rung. A rung holds at least the channels of the one
below it in every group.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from harness_search.space import SearchSpace

Widths = dict[str, int]
Ladder = list[Widths]


def scaled_ladder(space: SearchSpace, densities: Mapping[str, float]) -> Ladder:
    """Return the networks whose widths are proportional to `densities`, smallest first.

    Uniform pruning is the ladder of equal densities.

    Args:
        space: Allowed widths.
        densities: Share of channels kept per group, above 0; only their proportions matter.
    """
    # A group takes the next width up once the common scale makes that the nearest one.
    steps: list[tuple[float, str, int]] = []
    for name, widths in space.allowed.items():
        for lower, upper in pairwise(widths):
            scale = (lower + upper) / 2 / (space.dense[name] * densities[name])
            steps.append((scale, name, upper))
    rungs, current = [space.floor()], space.floor()
    steps.sort(key=lambda step: step[0])
    for i, (scale, name, width) in enumerate(steps):
        current = {**current, name: width}
        # Groups that step at the same scale step together: equal ratios stay equal.
        if i + 1 == len(steps) or steps[i + 1][0] > scale * (1 + 1e-9):
            rungs.append(current)
    return rungs


def ranked_ladder(space: SearchSpace, scores: Mapping[str, torch.Tensor]) -> Ladder:
    """Return the networks that keep the most important granules of all groups, smallest first.

    This is global pruning: one ranking over all groups, each group's scores with mean 1 (as
    Torch-Pruning's global pruner has it), a granule being worth the mean of its channels.

    Args:
        space: Allowed widths.
        scores: Importance per channel, `[width]` per group.
    """
    granules: list[tuple[float, int, str]] = []
    for name, widths in space.allowed.items():
        descending = scores[name].sort(descending=True).values
        for lower, upper in pairwise(widths):
            granules.append((-float(descending[lower:upper].mean()), upper, name))
    rungs, current = [space.floor()], space.floor()
    # Sorted scores make a group's granules descend, so each step adds the group's next one.
    for _, width, name in sorted(granules):
        current = {**current, name: width}
        rungs.append(current)
    return rungs


def highest_within(rungs: Sequence[float], limit: float, low: int, high: int) -> int | None:
    """Return the highest index in `[low, high]` whose value is within `limit`; None for none."""
    return next((i for i in range(high, low - 1, -1) if rungs[i] <= limit), None)

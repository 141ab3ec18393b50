"""Ladders: from one idea of an architecture to networks of every size, floor to dense.

Fitting an idea to a budget then is choosing a rung. A rung holds at least the channels of the one
below it in every group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compression.pruning import allocation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from harness_search.space import SearchSpace

Widths = dict[str, int]
Ladder = allocation.Ladder


def scaled_ladder(space: SearchSpace, densities: Mapping[str, float]) -> Ladder:
    """Return the networks whose widths are proportional to `densities`, smallest first.

    Uniform pruning is the ladder of equal densities.

    Args:
        space: Allowed widths.
        densities: Share of channels kept per group, above 0; only their proportions matter.
    """
    return allocation.scaled_ladder(space.allowed, densities)


def ranked_ladder(space: SearchSpace, scores: Mapping[str, torch.Tensor]) -> Ladder:
    """Return the networks that keep the most important granules of all groups, smallest first.

    This is global pruning: one ranking over all groups, each group's scores with mean 1 (as
    Torch-Pruning's global pruner has it), a granule being worth the mean of its channels.

    Args:
        space: Allowed widths.
        scores: Importance per channel, `[width]` per group.
    """
    return allocation.ranked_ladder(space.allowed, scores)


def highest_within(rungs: Sequence[float], limit: float, low: int, high: int) -> int | None:
    """Return the highest index in `[low, high]` whose value is within `limit`; None for none."""
    return next((i for i in range(high, low - 1, -1) if rungs[i] <= limit), None)

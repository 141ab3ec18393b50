"""How many channels each group keeps: allowed widths, and networks of every size made of them.

Reaching a goal is choosing a rung of a ladder: the widest one within a limit.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from harness.compression.pruning.dependency.parts import PruningGraph, Widths

Allowed = dict[str, tuple[int, ...]]
"""Widths that each group may take, ascending, the dense one last; one alone where it is fixed."""
Ladder = list[dict[str, int]]
"""Networks from the narrowest to the dense one. A rung holds at least the channels of the one below
it in every group."""
FLOOR = 0.1
"""Which share of a group's channels global pruning leaves at least, so that no layer collapses."""


def allowed_widths(
    graph: PruningGraph, granule: int, fixed: Collection[str] = (), floor: float = 0.0
) -> Allowed:
    """Return the widths that each group may take: whole granules, and the dense width.

    Args:
        graph: The prunable groups.
        granule: Steps of the channel counts; where a group has blocks, its steps are such that all
            blocks keep equally many.
        fixed: Groups that stay at their dense width.
        floor: Share of a group's channels that stays at least, 0 (one granule) to 1.
    """
    return {
        group.name: (group.width,)
        if group.name in fixed
        else _steps(_step(granule, group.blocks, group.width), group.width, floor)
        for group in graph.groups
    }


def _step(granule: int, blocks: int, width: int) -> int:
    """Return by how many channels a group's widths differ: whole granules, equal in all blocks."""
    step = math.lcm(granule, blocks)
    return step if step < width else blocks * math.ceil(granule / blocks)


def _steps(step: int, width: int, floor: float) -> tuple[int, ...]:
    # A share such as 0.1 is no exact number: 10 % of 30 channels are 3, not 3.0000000000000004.
    least = floor * width - 1e-9
    return (*(count for count in range(step, width, step) if count >= least), width)


def nearest_widths(allowed: Mapping[str, Sequence[int]], kept: Mapping[str, float]) -> Widths:
    """Return the allowed widths nearest to a share of the dense ones; of two as near, the wider.

    Args:
        allowed: Widths per group.
        kept: Share of channels kept, above 0 and at most 1, per group; 1 where it is left out.
    """
    found = {}
    for name, widths in allowed.items():
        aim = kept.get(name, 1.0) * widths[-1]
        found[name] = min(reversed(widths), key=lambda width: abs(width - aim))
    return found


def scaled_ladder(
    allowed: Mapping[str, Sequence[int]], densities: Mapping[str, float] | None = None
) -> Ladder:
    """Return the networks whose widths are proportional to `densities`, smallest first.

    Uniform pruning is the ladder of equal densities.

    Args:
        allowed: Widths per group.
        densities: Share of channels kept per group, above 0; only their proportions matter. None
            for equal ones.
    """
    # A group takes the next width up once the common scale makes that the nearest one.
    steps: list[tuple[float, str, int]] = []
    for name, widths in allowed.items():
        density = 1.0 if densities is None else densities[name]
        for lower, upper in pairwise(widths):
            steps.append(((lower + upper) / 2 / (widths[-1] * density), name, upper))
    current = _narrowest(allowed)
    rungs = [current]
    steps.sort(key=lambda step: step[0])
    for i, (scale, name, width) in enumerate(steps):
        current = {**current, name: width}
        # Groups that step at the same scale step together: equal ratios stay equal.
        if i + 1 == len(steps) or steps[i + 1][0] > scale * (1 + 1e-9):
            rungs.append(current)
    return rungs


def ranked_ladder(
    allowed: Mapping[str, Sequence[int]], scores: Mapping[str, torch.Tensor]
) -> Ladder:
    """Return the networks that keep the most important granules of all groups, smallest first.

    This is global pruning: one ranking over all groups, a granule being worth the mean of its
    channels.

    Args:
        allowed: Widths per group.
        scores: Importance per channel, `[width]` per group, of a scale that groups share: with
            mean 1, as Torch-Pruning's global pruner has it, or `adaptive`.
    """
    granules: list[tuple[float, int, str]] = []
    for name, widths in allowed.items():
        descending = scores[name].sort(descending=True).values
        for lower, upper in pairwise(widths):
            granules.append((-float(descending[lower:upper].mean()), upper, name))
    current = _narrowest(allowed)
    rungs = [current]
    # Sorted scores make a group's granules descend, so each step adds the group's next one.
    for _, width, name in sorted(granules):
        current = {**current, name: width}
        rungs.append(current)
    return rungs


def adaptive(scores: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return layer-adaptive scores: each over the sum of itself and all higher ones of its group.

    Lee et al. (2021), "Layer-adaptive sparsity for the magnitude-based pruning", with channels for
    weights. The best channel of every group has 1, so that none collapses, and wide groups, which
    have most of the parameters, lose most.

    One network spoke for it, on 700 validation images, so that 3 points are chance: ResNet-20 on
    CIFAR-10 by l2, without training but with norms calibrated. 70 % of the parameters leave 77 %
    accuracy in this way, 52 % with mean 1 in each group, 72 % uniformly; 50 % leave 52 %, 34 % and
    37 %. For 70 % of the multiply-accumulates, of which wide groups have no more than others, it is
    the other way round: 51 %, 70 % and 73 %.

    Args:
        scores: Importance per channel, from 0, `[width]` per group.

    Returns:
        0 to 1, `[width]` per group, in the same order within each group.
    """
    found = {}
    for name, values in scores.items():
        descending, order = values.sort(descending=True, stable=True)
        shares = descending / descending.cumsum(0).clamp_min(1e-12)
        found[name] = torch.empty_like(shares).scatter(0, order, shares)
    return found


def _narrowest(allowed: Mapping[str, Sequence[int]]) -> Widths:
    return {name: widths[0] for name, widths in allowed.items()}


def widest_within(ladder: Ladder, cost: Callable[[Widths], float], limit: float) -> Widths | None:
    """Return the widest network of a ladder whose cost is within a limit; None for none.

    Args:
        ladder: Networks, smallest first.
        cost: Of a network; it never falls from rung to rung.
        limit: The most that it may be.
    """
    within, above = -1, len(ladder)
    while above - within > 1:
        middle = (within + above) // 2
        if cost(ladder[middle]) <= limit:
            within = middle
        else:
            above = middle
    return None if within < 0 else ladder[within]

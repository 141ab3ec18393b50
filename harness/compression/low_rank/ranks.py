"""What a layer's rank keeps and costs, and one threshold over all layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.low_rank.separable import matrix_of
from harness.errors import ConfigError
from harness.units import format_share

if TYPE_CHECKING:
    from collections.abc import Mapping

_HALVINGS = 50
"""Of the interval in which the threshold lies."""


class RankCurve:
    """A layer's ranks: which save parameters, and how much of its weights' energy each keeps.

    Args:
        layer: Of `separable.KINDS`.
        scheme: `"channel"` or `"spatial"`.
        granule: Ranks are multiples of it, where one saves parameters.

    Attributes:
        params: Of the layer's weights.
        each: Parameters of the two layers, per rank.
        full: The rank at which two layers compute the same as one.
        steps: Ranks that save parameters, ascending; empty where none does.
    """

    def __init__(self, layer: Any, scheme: str, granule: int = 1) -> None:
        self._layer, self._scheme = layer, scheme
        self._energy: list[float] | None = None
        shape = matrix_of(layer, scheme).shape
        self.params = int(layer.weight.numel())
        self.each, self.full = sum(shape), min(shape)
        largest = (self.params - 1) // self.each
        self.steps = range(granule, largest + 1, granule) or range(1, largest + 1)

    def rank(self, threshold: float) -> int | None:
        """Return the smallest rank of `steps` whose energy is at least a threshold; None for none.

        Args:
            threshold: 0 to 1.
        """
        energy = self._energies()
        return next((rank for rank in self.steps if energy[rank - 1] >= threshold), None)

    def saved(self, threshold: float) -> int:
        """Return how many parameters the rank of a threshold saves; 0 where the layer is whole."""
        rank = self.rank(threshold)
        return 0 if rank is None else self.params - rank * self.each

    def _energies(self) -> list[float]:
        """Return the energy that each rank from 1 keeps; 1 throughout where all weights are 0."""
        if self._energy is None:
            sizes = torch.linalg.svdvals(matrix_of(self._layer, self._scheme)).square()
            whole = sizes.sum()
            kept = sizes.cumsum(0) / whole if whole > 0 else torch.ones_like(sizes)
            self._energy = kept.tolist()
        return self._energy


def bisected(curves: Mapping[str, RankCurve], total: int, keep: float) -> dict[str, int]:
    """Return the ranks by the largest threshold at which parameters are within a share.

    Args:
        curves: By layer; those that have ranks which save parameters.
        total: Parameters of the whole network.
        keep: The share that stays, at most.

    Raises:
        ConfigError: If more stays even at the smallest ranks.
    """

    def left(threshold: float) -> float:
        return (total - sum(curve.saved(threshold) for curve in curves.values())) / total

    if left(0.0) > keep:
        least = math.ceil(left(0.0) * 1000) / 1000  # so that it can be reached
        raise ConfigError(
            f"Low rank can't get to {format_share(keep)} of the parameters: {format_share(least)} "
            f"are left at the smallest ranks of the {len(curves)} layers that can be separated. "
            "Give a larger share, or use 'prune' beside it."
        )
    low, high = 0.0, 1.0 + 1e-6  # above 1 all layers are whole
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) <= keep else (low, middle)
    ranks = {name: curve.rank(low) for name, curve in curves.items()}
    return {name: rank for name, rank in ranks.items() if rank is not None}

"""A latency model fitted as the search measures, one per precision: it proposes.

Latency relative to the dense model is a fixed part, plus a part for each residual block that is
there, plus a cost per layer in proportion to its multiply-accumulates. The prior gives every layer
the same cost per MAC, takes what isn't spent on those from the floor, and spreads it evenly over
layers; every measured network then corrects all costs, by regularised non-negative least squares.
It holds for widths on the target's granule; between granules latency has cliffs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import lsq_linear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_MEASUREMENT_ERROR = 0.02
"""Relative; how far a single measurement is trusted."""
_PRIOR_ERROR = 0.5
"""Relative; how far a layer's cost per MAC may be from the common one."""
_LEAST_ERROR = 0.01


class LatencyModel:
    """Predicts latency as a share of the dense model's.

    Args:
        dense: Multiply-accumulates per layer of the dense network.
        blocks: Layers in each residual block that may be left out.
        floor: Multiply-accumulates per layer of the smallest network.
        floor_share: Its measured latency, as a share of the dense model's.
        dense_share: Latency of the dense network in the precision that is modelled, as a share of
            the dense float32 model's; 1 for float32 itself.
    """

    def __init__(
        self,
        dense: Mapping[str, float],
        blocks: Mapping[str, Sequence[str]],
        floor: Mapping[str, float],
        floor_share: float,
        dense_share: float = 1.0,
    ) -> None:
        self._dense, self._blocks = dense, blocks
        total = sum(dense.values())
        floor_macs = sum(floor.values()) / total
        # The same for every layer that is there, however narrow.
        there = len(floor) / len(dense)
        constant = (floor_share - dense_share * floor_macs) / max(1e-3, there - floor_macs)
        constant = min(0.95 * dense_share, max(1e-3 * dense_share, constant))
        per_block = [constant * len(layers) / len(dense) for layers in blocks.values()]
        per_layer = [(dense_share - constant) * macs / total for macs in dense.values()]
        self._prior = np.array([constant - sum(per_block), *per_block, *per_layer])
        self._costs = self._prior
        self._rows: list[NDArray[np.float64]] = []
        self._shares: list[float] = []
        self.add(dense, dense_share)
        self.add(floor, floor_share)

    def predict(self, macs: Mapping[str, float]) -> float:
        """Return the latency of a network as a share of the dense model's.

        Args:
            macs: Multiply-accumulates per layer; a layer that isn't there has no entry.
        """
        return float(self._features(macs) @ self._costs)

    def add(self, macs: Mapping[str, float], share: float) -> None:
        """Take in a measurement: the latency of a network as a share of the dense model's."""
        self._rows.append(self._features(macs))
        self._shares.append(share)
        shares = np.array(self._shares)
        precision = 1 / (_MEASUREMENT_ERROR * shares)
        stiffness = 1 / (_PRIOR_ERROR * self._prior + 1e-4)
        matrix = np.vstack([np.array(self._rows) * precision[:, None], np.diag(stiffness)])
        target = np.concatenate([shares * precision, self._prior * stiffness])
        self._costs = lsq_linear(matrix, target, bounds=(0.0, np.inf)).x

    def error(self) -> float:
        """Return the root mean square of the relative residuals, at least 1 %."""
        shares: NDArray[Any] = np.array(self._shares)
        residuals = np.array(self._rows) @ self._costs / shares - 1
        return max(_LEAST_ERROR, float(np.sqrt(np.mean(residuals**2))))

    def _features(self, macs: Mapping[str, float]) -> NDArray[np.float64]:
        there = (any(name in macs for name in layers) for layers in self._blocks.values())
        relative = (macs.get(name, 0.0) / dense for name, dense in self._dense.items())
        return np.array([1.0, *map(float, there), *relative])

"""A latency model fitted as the search measures, one per precision: it proposes.

Latency relative to the dense model is a fixed part plus a cost per layer in proportion to its
multiply-accumulates. The prior gives every layer the same cost per MAC and takes the fixed part
from the floor; every measured network then corrects layer costs, by regularised non-negative
least squares. It holds for widths on the target's granule; between granules latency has cliffs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import lsq_linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from harness.compression.pruning.dependency.graph import PruningGraph

_MEASUREMENT_ERROR = 0.02
"""Relative; how far a single measurement is trusted."""
_PRIOR_ERROR = 0.5
"""Relative; how far a layer's cost per MAC may be from the common one."""
_LEAST_ERROR = 0.01


class LatencyModel:
    """Predicts latency as a share of the dense model's.

    Args:
        graph: The prunable groups.
        floor: Widths of the smallest network.
        floor_share: Its measured latency, as a share of the dense model's.
        dense_share: Latency of the dense network in the precision that is modelled, as a share of
            the dense float32 model's; 1 for float32 itself.
    """

    def __init__(
        self,
        graph: PruningGraph,
        floor: Mapping[str, int],
        floor_share: float,
        dense_share: float = 1.0,
    ) -> None:
        self._graph = graph
        self._dense = graph.macs(graph.dense_widths())
        total = sum(self._dense.values())
        floor_macs = sum(graph.macs(floor).values()) / total
        fixed = (floor_share - dense_share * floor_macs) / (1 - floor_macs)
        fixed = min(0.95 * dense_share, max(1e-3 * dense_share, fixed))
        per_layer = [(dense_share - fixed) * macs / total for macs in self._dense.values()]
        self._prior = np.array([fixed, *per_layer])
        self._costs = self._prior
        self._rows: list[NDArray[np.float64]] = []
        self._shares: list[float] = []
        self.add(graph.dense_widths(), dense_share)
        self.add(floor, floor_share)

    def predict(self, widths: Mapping[str, int]) -> float:
        """Return the latency of a network as a share of the dense model's."""
        return float(self._features(widths) @ self._costs)

    def add(self, widths: Mapping[str, int], share: float) -> None:
        """Take in a measurement: the latency of `widths` as a share of the dense model's."""
        self._rows.append(self._features(widths))
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

    def _features(self, widths: Mapping[str, int]) -> NDArray[np.float64]:
        macs = self._graph.macs(widths)
        return np.array([1.0, *(macs[name] / dense for name, dense in self._dense.items())])

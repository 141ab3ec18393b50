"""Values in order of time: do they drift, do they depend on each other, what are they worth?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.floating[Any]]

DRIFT = 0.03
"""A change from the first to the last third that is worth a flag."""


def lag1_autocorrelation(values: Values) -> float:
    """Return the lag-1 autocorrelation of `values`; 0.0 where it is undefined."""
    centred = values - values.mean()
    power = float(centred @ centred)
    return float(centred[:-1] @ centred[1:]) / power if power > 0 else 0.0


def is_autocorrelated(values: Values) -> bool:
    """Whether 10 or more values are positively autocorrelated beyond chance (one-sided 97.5 %)."""
    return values.size >= 10 and lag1_autocorrelation(values) > 1.96 / math.sqrt(values.size)


def effective_size(values: Values) -> float:
    """Return how many independent values `values` are worth: n (1 - r) / (1 + r) for AR(1).

    A positive r counts even where chance could explain it: with some twenty values it can't be
    told from none, and intervals that left it out were a tenth too narrow on identical models. A
    negative one never makes an interval narrower; below 10 values r is too uncertain to be used.

    References:
        Bayley & Hammersley (1946), "The effective number of independent observations".
    """
    if values.size < 10:
        return float(values.size)
    r = min(max(lag1_autocorrelation(values), 0.0), 0.95)
    return max(2.0, values.size * (1 - r) / (1 + r))


def has_trend(logs: Values, material: float = 0.01) -> bool:
    """Whether values drift over time: the Theil-Sen slope's 95 % interval excludes 0.

    Args:
        logs: Log latencies in order of time, `[rounds]`; NaNs are left out.
        material: A drift over the whole window smaller than this fraction is none.
    """
    values = logs[np.isfinite(logs)]
    if values.size < 5:
        return True
    slope, _, low, high = stats.theilslopes(values)
    return bool((low > 0 or high < 0) and abs(slope) * values.size > material)


def drifted(logs: Values) -> bool:
    """Whether the last third of a process differs from the first, by more than `DRIFT` and chance.

    Args:
        logs: Log latencies or log ratios in order of time; fewer than 9 say nothing.
    """
    if logs.size < 9:
        return False
    third = logs.size // 3
    first, last = logs[:third], logs[-third:]
    change = float(np.median(last) - np.median(first))
    error = math.sqrt((float(first.var(ddof=1)) + float(last.var(ddof=1))) / third)
    return abs(change) > max(DRIFT, 3 * error)

"""How many of each class, so that classes keep their shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def quotas(totals: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Return how many samples of each class make up `wanted`, by largest remainders.

    Args:
        totals: Samples per class, `[K]`.
        wanted: Samples in all.

    Returns:
        int64 `[K]`, at least one of each class that has samples; so it may add up to more than
        `wanted` where there are many classes.
    """
    exact = totals * wanted / max(1, totals.sum())
    quota: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - quota), kind="stable")[: max(0, wanted - int(quota.sum()))]
    quota[rest] += 1
    least: NDArray[np.int64] = np.minimum(totals, 1)
    return np.maximum(quota, least)

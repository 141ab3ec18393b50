"""How well predictions fit a split, with an interval."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from harness.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_RESAMPLES = 500
_SEED = 20260101


@dataclass(frozen=True, slots=True)
class Change:
    """By how much a metric rises from one network to another, judged on the same samples.

    Attributes:
        value: The difference; above 0 is better.
        lo, hi: Its paired 95 % interval over samples.
    """

    value: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Score:
    """How well predictions fit a split.

    Attributes:
        value: The task's metric; higher is better.
        lo, hi: Its 95 % interval over samples.
        loss: Mean loss, in the unit of the task's loss.
        n: Samples.
    """

    value: float
    lo: float
    hi: float
    loss: float
    n: int


def share_of_hits(hits: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the share of samples `[N]` that were right, with its 95 % interval.

    References:
        Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    count, n = int(hits.sum()), len(hits)
    interval = stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
    return count / n, float(interval.low), float(interval.high)


def difference_of_hits(
    before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Return by how much the share of hits rises, with its paired 95 % interval.

    Args:
        before: `[N]`, whether each sample was right.
        after: The same samples, judged by another network.

    References:
        Bonett & Price (2012), "Adjusted Wald confidence interval for a difference of binomial
        proportions based on paired data": only samples on which both differ count.
    """
    n = len(before)
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    middle = up - down
    half = float(stats.norm.ppf(0.975)) * ((up + down - middle**2) / (n + 2)) ** 0.5
    value = (won - lost) / n
    return value, min(middle - half, value), max(middle + half, value)


def resampled_difference(
    before: Callable[[NDArray[np.int64]], Any],
    after: Callable[[NDArray[np.int64]], Any],
    n: int,
    name: str,
) -> tuple[float, float, float]:
    """Return by how much a metric rises, with the paired 95 % bootstrap interval over samples.

    Args:
        before: As `metric` of `resampled`.
        after: The same metric of another network's outputs.
        n: Samples.
        name: Of the metric, for messages.

    Raises:
        TaskError: As `resampled`.
    """

    def difference(rows: NDArray[np.int64]) -> Any:
        return np.asarray(after(rows), np.float64) - np.asarray(before(rows), np.float64)

    return resampled(difference, n, name)


def resampled(
    metric: Callable[[NDArray[np.int64]], Any], n: int, name: str
) -> tuple[float, float, float]:
    """Return a metric of `n` samples with its 95 % bootstrap interval over samples.

    Args:
        metric: From sample numbers `[M]` to the figure on those samples: one number, or one per
            sample, of which the mean is taken.
        n: Samples.
        name: Of the metric, for messages.

    Raises:
        TaskError: If the metric fails, is no finite number on all samples, or isn't defined on
            most resamples.

    References:
        Efron & Tibshirani (1993), "An introduction to the bootstrap": the percentile interval.
    """
    everything = np.arange(n)
    try:
        found = np.asarray(metric(everything), dtype=np.float64)
    except Exception as exc:  # a user's own code raises what it likes
        raise TaskError(f"The metric {name!r} failed: {type(exc).__name__}: {exc}") from exc
    if found.shape not in ((), (n,)) or not np.isfinite(found).all():
        raise TaskError(
            f"The metric {name!r} must return one finite number, or one per sample ({n}). "
            f"Received an array of shape {found.shape}, {np.isfinite(found).sum()} of them finite."
        )
    per_sample = found.shape == (n,)

    def on(rows: NDArray[np.int64]) -> float:
        try:
            return float(found[rows].mean() if per_sample else metric(rows))
        except Exception:  # a user's own code; as where it returns no number: not defined on these
            return np.nan

    rng = np.random.default_rng(_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample may lack a class, of which a metric warns
        drawn = np.array([on(rng.integers(0, n, n)) for _ in range(_RESAMPLES)])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < _RESAMPLES / 2:
        raise TaskError(
            f"The metric {name!r} can be computed on {len(drawn)} of {_RESAMPLES} resamples only, "
            "so it has no interval. Use more samples, or a metric that is defined on any of them."
        )
    value = float(found.mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, min(float(low), value), max(float(high), value)

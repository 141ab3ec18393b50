"""Data reduction: candidates are trained on a part of the training split that stands for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.data.quotas import quotas
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.data.split import Split

METHODS = ("random", "k-center", "herding")


def reduce_split(
    split: Split,
    fraction: float,
    method: str,
    *,
    features: Callable[[], torch.Tensor] | None,
    seed: int,
) -> Split:
    """Return a part of a split; the same for the same samples, features and seed.

    - `random`: drawn at random; classes keep their shares.
    - `k-center`: samples so spread out that every other one has one of them near by. The first are
      one per class, the sample nearest to the class's mean; where there are no classes, one at
      random.
    - `herding`: samples whose mean features stay nearest to the mean of all; within each class.

    Args:
        split: What to take from.
        fraction: Which part, above 0 and at most 1; every class keeps a sample.
        method: One of `METHODS`.
        features: Returns float32 `[N, d]`, such as the teacher's outputs; not called for `random`.
        seed: Of what is random.

    Raises:
        ConfigError: If the fraction or the method is none, or the method lacks features.

    References:
        Sener & Savarese (2018), "Active learning for convolutional neural networks: a core-set
        approach": greedy k-center, a 2-approximation of the least covering radius.
        Welling (2009), "Herding dynamical weights to learn".
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"The fraction must be above 0 and at most 1. Received: {fraction!r}.")
    if method not in METHODS:
        raise ConfigError(f"Unknown method {method!r} of reduction. Known: {', '.join(METHODS)}.")
    if fraction == 1:
        return split
    groups = _classes(split)
    sizes = np.array([len(group) for group in groups], np.int64)
    quota = quotas(sizes, max(min(2, len(split)), round(fraction * len(split))))
    if method == "random":
        rng = np.random.default_rng(seed)
        parts = [rng.permutation(g.numpy())[:n] for g, n in zip(groups, quota, strict=True)]
        return _take(split, np.concatenate(parts))
    found = _checked(features, len(split), method)
    if method == "herding":
        chosen = [g[_herded(found[g], int(n))] for g, n in zip(groups, quota, strict=True)]
        return _take(split, torch.cat(chosen).numpy())
    first = _first_centres(found, groups, seed)
    return _take(split, _centres(found, first, int(quota.sum())).numpy())


def _take(split: Split, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Split:
    return split.take(torch.from_numpy(np.sort(rows)))


def _classes(split: Split) -> list[torch.Tensor]:
    """Return the rows of each class; all rows in one where targets are no classes."""
    targets = split.targets_of()
    if isinstance(targets, tuple) or targets.ndim != 1 or targets.dtype != torch.int64:
        return [torch.arange(len(split))]
    return [torch.nonzero(targets == label).flatten() for label in np.unique(targets.numpy())]


def _checked(features: Callable[[], torch.Tensor] | None, count: int, method: str) -> torch.Tensor:
    if features is None:
        raise ConfigError(f"{method!r} needs features of the samples. Use 'random'.")
    found = features().detach().float()
    if found.ndim != 2 or len(found) != count or not found.isfinite().all():
        raise ConfigError(
            f"{method!r} needs finite features [{count}, d]. Received: {list(found.shape)}."
        )
    return found


def _first_centres(features: torch.Tensor, groups: list[torch.Tensor], seed: int) -> torch.Tensor:
    if len(groups) == 1:
        return torch.from_numpy(np.random.default_rng(seed).integers(0, len(features), 1))
    nearest = [
        rows[(features[rows] - features[rows].mean(0)).square().sum(1).argmin()] for rows in groups
    ]
    return torch.stack(nearest)


def _centres(features: torch.Tensor, first: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` rows: `first`, then ever the one that is farthest from all before it."""
    # |x - c|^2 = |x|^2 - 2 x.c + |c|^2 needs one product of a matrix and a vector per centre.
    # Centred, so that these terms don't cancel.
    features = features - features.mean(0)
    norms = features.square().sum(1)
    distance = torch.full((len(features),), torch.inf)
    chosen = torch.empty(count, dtype=torch.int64)
    for index in range(count):
        row = first[index] if index < len(first) else distance.argmax()
        chosen[index] = row
        to_row = torch.addmv(norms + norms[row], features, features[row], alpha=-2)
        torch.minimum(distance, to_row.clamp_(min=0), out=distance)
        distance[row] = -1  # stays the least: none is chosen twice
    return chosen


def _herded(features: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` rows by Welling's rule: x = argmax w.x, then w += mean - x; none twice."""
    mean = features.mean(0)
    weights = mean.clone()
    left = torch.zeros(len(features))
    chosen = torch.empty(count, dtype=torch.int64)
    for index in range(count):
        row = torch.addmv(left, features, weights).argmax()
        chosen[index] = row
        left[row] = -torch.inf
        weights += mean - features[row]
    return chosen

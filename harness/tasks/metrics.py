"""Metrics: how well predictions fit, with an interval. Higher is always better.

Errors therefore have their sign turned and a name that says so, as scikit-learn's scorers do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.errors import TaskError
from harness.tasks.identity import identity_of
from harness.tasks.score import (
    difference_of_hits,
    resampled,
    resampled_difference,
    share_of_hits,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Figure = Callable[["NDArray[np.int64]"], Any]
"""From sample numbers `[M]` to the figure on those samples: one number, or one per sample."""
OnRows = Callable[[tuple[torch.Tensor, ...], Any], Figure]
"""From outputs (float64) and targets of all samples to the figure on any of them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of merit.

    Attributes:
        name: As in the leaderboard.
        on_rows: Computes it.
        hits: Whether it is the share of samples that are right, one by one.
        own: Whether it is a function of the user's own.
    """

    name: str
    on_rows: OnRows
    hits: bool = False
    own: bool = False

    @property
    def _given(self) -> str:
        """The name that a user gave it, for messages."""
        return self.name.partition("#")[0] if self.own else self.name

    def judge(self, outputs: tuple[torch.Tensor, ...], targets: Any) -> tuple[float, float, float]:
        """Return the figure of outputs (float64), each `[N, ...]`, with its 95 % interval."""
        figure, n = self.on_rows(outputs, targets), len(outputs[0])
        if self.hits:
            return share_of_hits(figure(np.arange(n)))
        return resampled(figure, n, self._given)

    def change(
        self, before: tuple[torch.Tensor, ...], after: tuple[torch.Tensor, ...], targets: Any
    ) -> tuple[float, float, float]:
        """Return by how much the figure rises from one network's outputs to another's.

        Both see the same samples, so that the difference's 95 % interval is paired.
        """
        one, other = (self.on_rows(outputs, targets) for outputs in (before, after))
        everything = np.arange(len(before[0]))
        if self.hits:
            return difference_of_hits(one(everything), other(everything))
        return resampled_difference(one, other, len(everything), self._given)


def _classes(outputs: tuple[torch.Tensor, ...], targets: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    if len(outputs) != 1 or outputs[0].ndim != 2:
        shapes = ", ".join(str(tuple(part.shape)) for part in outputs)
        raise TaskError(f"Expected logits [{len(targets)}, classes]. Received: {shapes}.")
    return targets.numpy(), outputs[0].numpy().argmax(1)


def _accuracy(outputs: tuple[torch.Tensor, ...], targets: Any) -> Figure:
    truth, found = _classes(outputs, targets)
    return lambda rows: truth[rows] == found[rows]


def _balanced_accuracy(
    truth: NDArray[np.int64], found: NDArray[np.int64], hits: NDArray[np.int64]
) -> float:
    """Return the mean over classes of the share found of their samples.

    References:
        Brodersen et al. (2010), "The balanced accuracy and its posterior distribution".
    """
    there = truth > 0
    return float((hits[there] / truth[there]).mean())


def _f1_macro(truth: NDArray[np.int64], found: NDArray[np.int64], hits: NDArray[np.int64]) -> float:
    """Return the mean over classes of F1, which is 2 hits / (samples + predictions)."""
    both = truth + found
    there = both > 0
    return float((2 * hits[there] / both[there]).mean())


def _of_classes(name: str, function: Callable[..., float]) -> Metric:
    """Return a metric of classes.

    Args:
        name: As in the leaderboard.
        function: From what it needs of the confusion matrix, each int64 `[classes]`: samples of
            each class, predictions of it, and those that are right (row sums, column sums and
            diagonal: the matrix itself would be large for many classes).
    """

    def on_rows(outputs: tuple[torch.Tensor, ...], targets: Any) -> Figure:
        truth, found = _classes(outputs, targets)
        classes = max(outputs[0].shape[1], int(truth.max()) + 1)

        def on(rows: NDArray[np.int64]) -> float:
            t, f = truth[rows], found[rows]
            return function(*(np.bincount(x, minlength=classes) for x in (t, f, t[t == f])))

        return on

    return Metric(name, on_rows)


def _r2(truth: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return the coefficient of determination, mean over columns."""
    total = ((truth - truth.mean(0)) ** 2).sum(0)
    if not (total > 0).all():
        return math.nan  # not defined where all targets are alike
    return float((1 - ((truth - found) ** 2).sum(0) / total).mean())


def _minus_mae(truth: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    return -float(np.abs(truth - found).mean())


def _minus_rmse(truth: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    return -float(np.sqrt(((truth - found) ** 2).mean(0)).mean())


def _of_values(
    name: str, function: Callable[[NDArray[np.float64], NDArray[np.float64]], float]
) -> Metric:
    def on_rows(outputs: tuple[torch.Tensor, ...], targets: Any) -> Figure:
        truth = targets.double().reshape(len(targets), -1).numpy()
        if len(outputs) != 1 or outputs[0].reshape(len(outputs[0]), -1).shape != truth.shape:
            shapes = ", ".join(str(tuple(part.shape)) for part in outputs)
            raise TaskError(f"Expected values {truth.shape}. Received: {shapes}.")
        found = outputs[0].reshape(len(truth), -1).numpy()
        return lambda rows: function(truth[rows], found[rows])

    return Metric(name, on_rows)


METRICS: dict[str, dict[str, Metric]] = {
    "classification": {
        "accuracy": Metric("accuracy", _accuracy, hits=True),
        "balanced_accuracy": _of_classes("balanced_accuracy", _balanced_accuracy),
        "f1_macro": _of_classes("f1_macro", _f1_macro),
    },
    "regression": {
        "r2": _of_values("r2", _r2),
        "neg_mean_absolute_error": _of_values("neg_mean_absolute_error", _minus_mae),
        "neg_root_mean_squared_error": _of_values("neg_root_mean_squared_error", _minus_rmse),
    },
}
"""By the kind of data and name; the first is the default."""


def user_metric(function: Callable[[Any, Any], Any]) -> Metric:
    """Return a metric from a user's function, named as it is with a part of its identity.

    So another function of the same name is never ranked against it; see `identity_of`.

    Args:
        function: From outputs and targets (tensors, or tuples of tensors where the network or the
            data have several) to one number, or to one per sample; higher is better.
    """
    given = getattr(function, "__name__", type(function).__name__)

    def on_rows(outputs: tuple[torch.Tensor, ...], targets: Any) -> Figure:
        def on(rows: NDArray[np.int64]) -> Any:
            picked = torch.from_numpy(rows)
            parts = tuple(part[picked].float() for part in outputs)
            truth = (
                tuple(part[picked] for part in targets)
                if isinstance(targets, tuple)
                else targets[picked]
            )
            return function(parts[0] if len(parts) == 1 else parts, truth)

        return on

    return Metric(f"{given}#{identity_of(function)[:6]}", on_rows, own=True)

"""The seam: what a user brings. A model, its data in three splits, and a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy import special, stats

from harness.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray
    from torch import nn

    Predict = Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]


@dataclass(frozen=True, slots=True)
class Split:
    """Samples in memory.

    Attributes:
        inputs: float32 `[N, C, H, W]`, normalised.
        labels: int64 `[N]`.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How networks of this task are trained.

    Attributes:
        teacher_epochs: For the dense model.
        trial_epochs: For a candidate's distillation.
        batch: Samples per step.
        teacher_lr: Peak learning rate for the dense model; `trial_lr` for a candidate.
        weight_decay: L2 penalty.
    """

    teacher_epochs: int
    trial_epochs: int
    batch: int
    teacher_lr: float
    trial_lr: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class Score:
    """How well predictions fit a split.

    Attributes:
        accuracy: Fraction of samples classified rightly.
        lo, hi: 95 % Wilson interval of that.
        loss: Mean cross-entropy in nats.
        n: Samples.
    """

    accuracy: float
    lo: float
    hi: float
    loss: float
    n: int


class Task(ABC):
    """A model, its data and its metric."""

    name: ClassVar[str]
    description: ClassVar[str]
    metric: ClassVar[str] = "accuracy"
    recipe: Recipe

    @abstractmethod
    def model(self) -> nn.Module:
        """Return the dense model, untrained; the same initial weights at every call."""

    @abstractmethod
    def train(self) -> Split:
        """Return the split that networks are trained on."""

    @abstractmethod
    def validation(self) -> Split:
        """Return the split that candidates are chosen by."""

    @abstractmethod
    def test(self) -> Split:
        """Return the split that is read once, for what is reported at the end."""

    @abstractmethod
    def data_sha256(self) -> str:
        """Return a hash of all samples and labels."""

    def example_input(self, batch: int) -> torch.Tensor:
        """Return one batch of real samples, float32 `[batch, ...]`."""
        inputs = self.validation().inputs
        return inputs[[i % len(inputs) for i in range(batch)]]

    def score(self, predict: Predict, split: Split) -> Score:
        """Score predictions on a split.

        Args:
            predict: From inputs `[N, ...]` to logits `[N, classes]`; torch or a session.
            split: What to score on.

        Raises:
            TaskError: If the outputs are not one finite row of logits per sample.

        References:
            Wilson (1927), "Probable inference, the law of succession, and statistical inference".
        """
        labels = split.labels.numpy()
        logits = np.asarray(predict(split.inputs.numpy()), dtype=np.float64)
        if logits.ndim != 2 or len(logits) != len(labels) or not np.isfinite(logits).all():
            raise TaskError(
                f"Expected finite logits [{len(labels)}, classes]. Received shape {logits.shape}."
            )
        hits = int((logits.argmax(1) == labels).sum())
        interval = stats.binomtest(hits, len(labels)).proportion_ci(0.95, method="wilson")
        losses = special.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
        return Score(
            hits / len(labels), float(interval.low), float(interval.high),
            float(losses.mean()), len(labels),
        )  # fmt: skip

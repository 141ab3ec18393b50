"""Losses, and distances between a student and its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from harness.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.data.split import Data

LOSSES = {"classification": ("cross_entropy",), "regression": ("mse", "mae", "huber")}
"""By the kind of data; the first is the default."""
_ERRORS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}


@dataclass(frozen=True, slots=True)
class RelativeError:
    """Errors of predicted values `[N, k]` in standard deviations of the training targets.

    Columns in different units then count alike, and a learning rate fits whatever the unit.

    Attributes:
        kind: `"mse"`, `"mae"` or `"huber"`.
        mean, spread: Mean and standard deviation (above 0) of each column.
        standardised: Whether the network predicts values of mean 0 and deviation 1.
    """

    kind: str
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    standardised: bool = False

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean over samples and columns."""
        mean, spread = torch.tensor(self.mean), torch.tensor(self.spread)
        found, truth = (x.reshape(len(x), -1) for x in (outputs, targets))
        found = found if self.standardised else (found - mean) / spread
        truth = ((truth - mean) / spread).to(found.dtype)
        return _ERRORS[self.kind](found, truth)


@dataclass(frozen=True, slots=True)
class UserLoss:
    """A user's own function, whose failures are told as such.

    Attributes:
        function: From outputs and targets to a scalar tensor.
        what: Its part, for messages.
    """

    function: Callable[[Any, Any], Any]
    what: str = "loss"

    def __call__(self, outputs: Any, targets: Any) -> torch.Tensor:
        """Return the scalar.

        Raises:
            TaskError: If the function fails, or returns something else.
        """
        try:
            found = self.function(outputs, targets)
        except Exception as exc:  # a user's own code raises what it likes
            raise TaskError(f"The {self.what} failed: {type(exc).__name__}: {exc}") from exc
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise TaskError(f"The {self.what} must return a scalar tensor. Received: {shape}.")
        return found.reshape(())


@dataclass(frozen=True, slots=True)
class UserImitation:
    """A user's own distance between a student and its teacher.

    Attributes:
        function: From the outputs of both to a scalar tensor.
    """

    function: Callable[[Any, Any], Any]

    def __call__(
        self, outputs: Any, teacher: Any, temperature: float, spread: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Return the scalar; temperature and spread have no part in it.

        Raises:
            TaskError: If the function fails, or returns something else.
        """
        return UserLoss(self.function, "imitation")(outputs, teacher)


def named_loss(
    data: Data, chosen: str | Callable[..., Any], standardised: bool
) -> Callable[[Any, Any], torch.Tensor]:
    """Return a loss by its name, or a user's own.

    Args:
        data: Says what kind of targets there are.
        chosen: The name or the function.
        standardised: Whether a network that regresses predicts values of mean 0 and deviation 1.
    """
    if callable(chosen):
        return UserLoss(chosen)
    if data.kind == "classification":
        return F.cross_entropy
    return RelativeError(chosen, *mean_and_spread(data), standardised)


def mean_and_spread(data: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each training target; 1 where a deviation is 0."""
    targets = data.train.targets_of()
    assert isinstance(targets, torch.Tensor)
    columns = targets.reshape(len(targets), -1).double()
    if not (columns.std(0, correction=0) > 0).any():
        raise ConfigError("All targets of the training split are equal: there is nothing to learn.")
    spread = columns.std(0, correction=0)
    return tuple(columns.mean(0).tolist()), tuple(float(s) if s > 0 else 1.0 for s in spread)


def softened(
    outputs: Any, teacher: Any, temperature: float, spread: tuple[torch.Tensor, ...] = ()
) -> torch.Tensor:
    """Return T^2 KL(teacher || student) of logits `[B, classes]`, both softened by T.

    References:
        Hinton, Vinyals & Dean (2015), "Distilling the knowledge in a neural network".
    """
    del spread
    student = F.log_softmax(outputs / temperature, dim=1)
    soft = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(student, soft, log_target=True, reduction="batchmean")


def squared(
    outputs: Any, teacher: Any, temperature: float, spread: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Return squared differences relative to the spread of the teacher's outputs.

    Each output and each of its columns count alike, whatever their size; the temperature has no
    part in it.

    Args:
        outputs: The student's, `[B, ...]`, or several.
        teacher: The teacher's.
        temperature: Not used.
        spread: By output its standard deviation over all samples, `[1, ...]`, above 0.

    References:
        Ba & Caruana (2014), "Do deep nets really need to be deep?": L2 on outputs.
    """
    del temperature
    pairs = [(outputs, teacher)]
    if isinstance(outputs, (tuple, list)):
        pairs = list(zip(outputs, teacher, strict=True))
    parts = [((s - t) / d).square().mean() for (s, t), d in zip(pairs, spread, strict=True)]
    return torch.stack(parts).mean()

"""A user's own loss, metric and imitation are tried on a few samples before anything is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.errors import ConfigError, TaskError
from harness.models.finals import finished
from harness.tasks.losses import UserImitation
from harness.tasks.objective import as_tuple, one_or_all
from harness.training import predict

if TYPE_CHECKING:
    from torch import nn

    from harness.data.split import Split
    from harness.tasks.base import Task

_SAMPLES = 64


def try_objective(task: Task) -> None:
    """Compute loss, gradients, imitation and metric once, on the untrained network.

    Raises:
        ConfigError: If that fails: the functions don't fit the network's outputs or the targets.
    """
    rows = torch.arange(min(_SAMPLES, len(task.data.validation)))
    network = task.model()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    try:
        _try_training(task, network, rows)
        if task.objective.metric.own:  # others are known to fit their targets
            _try_metric(task, network, task.data.validation.take(rows))
    except Exception as exc:  # a user's own code raises what it likes
        raise ConfigError(
            f"Loss, metric or imitation don't fit the network or the targets: {exc} They were "
            "tried on validation samples, before anything was timed."
        ) from exc


def _try_training(task: Task, network: nn.Module, rows: torch.Tensor) -> None:
    split, objective = task.data.validation, task.objective.anew()
    outputs = network(split.batch(rows))
    loss = objective.loss(outputs, split.targets_of(rows))
    _backward(loss, "loss")
    if isinstance(objective.imitation, UserImitation):
        outputs = network(split.batch(rows))
        teacher = one_or_all(tuple(part.detach() for part in as_tuple(outputs)))
        _backward(objective.imitation(outputs, teacher, 1.0, ()), "imitation")


def _backward(loss: torch.Tensor, what: str) -> None:
    if not loss.requires_grad:
        raise TaskError(f"The {what} does not depend on the network's outputs: it has no gradient.")
    loss.backward()  # type: ignore[no-untyped-call]


def _try_metric(task: Task, network: nn.Module, part: Split) -> None:
    """Score a few samples; all that a search would score where the metric wants more."""
    whole = task.data.validation
    network = finished(network, task.network.finals)
    try:
        task.score(predict(network, part.chunks()), part)
    except TaskError:
        if len(part) == len(whole):
            raise
        task.score(predict(network, whole.chunks()), whole)

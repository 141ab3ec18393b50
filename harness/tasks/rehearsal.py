"""A user's own loss and metric are tried on a few samples before anything is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.errors import ConfigError, TaskError
from harness.models.finals import finished
from harness.training import predict

if TYPE_CHECKING:
    from harness.tasks.base import Task

_SAMPLES = 64


def try_objective(task: Task) -> None:
    """Compute loss, gradient and metric once, on the untrained network.

    Raises:
        ConfigError: If that fails: the functions don't fit the network's outputs or the targets.
    """
    split = task.data.validation
    rows = torch.arange(min(_SAMPLES, len(split)))
    part, network = split.take(rows), task.model()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    try:
        loss = task.objective.loss(network(split.batch(rows)), split.targets_of(rows))
        if not loss.requires_grad:
            raise TaskError(
                "The loss does not depend on the network's outputs: it has no gradient."
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if task.data.kind == "other":
            # Others are known to fit these targets, but may want more samples than these.
            outputs = predict(finished(network, task.network.finals), part.chunks())
            task.score(outputs, part)
    except Exception as exc:  # a user's own code raises what it likes
        raise ConfigError(
            f"Loss and metric don't fit the network or the targets: {exc} They were tried on "
            f"{len(rows)} validation samples, before anything was timed."
        ) from exc

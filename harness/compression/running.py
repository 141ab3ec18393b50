"""Run a network whose own code may raise anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.errors import TaskError
from harness.tasks.objective import as_tuple

if TYPE_CHECKING:
    from torch import nn


def outputs_of(model: nn.Module, inputs: torch.Tensor, what: str) -> tuple[torch.Tensor, ...]:
    """Return a network's outputs, each `[N, ...]`, in evaluation mode.

    Args:
        model: The network; it is put into evaluation mode.
        inputs: A batch `[N, ...]`.
        what: The network's name in the error, such as `"The network"`.

    Raises:
        TaskError: If it doesn't run.
    """
    model.eval()
    try:
        with torch.inference_mode():
            return as_tuple(model(inputs))
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(f"{what} doesn't run: {type(exc).__name__}: {exc}") from exc

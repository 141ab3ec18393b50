"""What a network returns for samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.manner import fp32
from harness.tasks.objective import as_tuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from harness.tasks.objective import Arrays
    from harness.training.soft import Views


def predict(model: nn.Module, batches: Iterable[torch.Tensor]) -> Arrays:
    """Return a network's fp32 outputs, each `[N, ...]`, over batches of prepared samples."""
    return tuple(part.numpy() for part in predict_tensors(model, batches))


def predict_tensors(model: nn.Module, batches: Iterable[torch.Tensor]) -> Views:
    """Return a network's fp32 outputs, each `[N, ...]`, over batches of prepared samples."""
    model.eval()
    with torch.inference_mode():
        parts = [as_tuple(fp32(model(batch))) for batch in batches]
    # Cloned outside inference mode, so that autograd may use them as constants.
    return tuple(torch.cat(column).clone() for column in zip(*parts, strict=True))

"""Batches, optimizer and learning rate of a training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from harness.tasks.recipe import Recipe

_RISE = 0.2
"""The part of the steps in which the learning rate rises."""


def batches_of(order: torch.Tensor, batch: int) -> list[torch.Tensor]:
    """Split rows int64 `[N]` into batches; a last one of a single sample joins its neighbour.

    Batch norm can't be trained on one sample.
    """
    parts = list(torch.split(order, batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def make_optimizer(model: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over all parameters of a network."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr, weight_decay=recipe.weight_decay)


def one_cycle(optimizer: torch.optim.Optimizer, total: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule over `total` steps: up for a fifth of them, then down along a cosine.

    References:
        Smith & Topin (2018), "Super-convergence": the one-cycle schedule.
    """
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _pace(done, total))


def _pace(done: int, total: int) -> float:
    """Return the share of the peak learning rate for the step after `done` of `total`; above 0."""
    rising = max(1, round(_RISE * total))
    if done < rising:
        return (done + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (done - rising + 1) / (total - rising + 1)))

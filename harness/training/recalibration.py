"""Batch norm's statistics, estimated anew.

References:
    Li et al. (2020), "EagleEye: fast sub-net evaluation for efficient neural network pruning":
    statistics of the dense network mislead the judgement of a pruned one.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from harness.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norms that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def recalibrate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Give a network's batch norms the statistics of these samples, in place.

    They are averages over batches, all of equal weight. Only batch norms are in training mode
    meanwhile: dropout and the like stay off. The parameters are left as they are.

    Args:
        model: The network; it is put into evaluation mode.
        batches: Prepared samples, each `[B, ...]`; one of a single sample has no statistics and is
            left out. Without any other, everything stays as it is.

    Raises:
        Exception: Whatever the network's own code raises.
    """
    model.eval()
    norms = batch_norms(model).values()
    counted = (batch for batch in batches if len(batch) > 1)
    first = next(counted, None) if norms else None
    if first is None:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
        norm.train()
    with torch.inference_mode():
        for batch in itertools.chain([first], counted):
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def recalibrated(model: nn.Module, batches: Iterable[torch.Tensor]) -> nn.Module:
    """Return a copy of a network whose batch norms have the statistics of these samples.

    Args:
        model: The network; left as it is.
        batches: As `recalibrate` takes them.

    Returns:
        The copy, in evaluation mode.

    Raises:
        TaskError: If the network doesn't run, or statistics are not finite.
    """
    made = copy.deepcopy(model)
    try:
        recalibrate(made, batches)
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(f"The network doesn't run: {type(exc).__name__}: {exc}") from exc
    for name, norm in batch_norms(made).items():
        statistics = norm.running_mean, norm.running_var
        if not all(t is None or bool(t.isfinite().all()) for t in statistics):
            raise TaskError(f"Batch norm {name!r} has statistics that are not finite.")
    return made

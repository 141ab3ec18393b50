"""Batch norm's statistics, estimated anew.

References:
    Li et al. (2020), "EagleEye: fast sub-net evaluation for efficient neural network pruning":
    statistics of the dense network mislead the judgement of a pruned one.
"""

from __future__ import annotations

import copy
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


def recalibrated(model: nn.Module, batches: Iterable[torch.Tensor]) -> nn.Module:
    """Return a copy of a network whose batch norms have the statistics of these samples.

    They are averages over batches, all of equal weight. Only batch norms are in training mode
    meanwhile: dropout and the like stay off. The parameters are left as they are.

    Args:
        model: The network; left as it is.
        batches: Prepared samples, each `[B, ...]` with B of 2 or more, of like sizes.

    Returns:
        The copy, in evaluation mode.

    Raises:
        TaskError: If the network doesn't run, or statistics are not finite.
    """
    made = copy.deepcopy(model).eval()
    norms = batch_norms(made)
    momenta = {name: norm.momentum for name, norm in norms.items()}
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
        norm.train()
    try:
        with torch.inference_mode():
            for batch in batches:
                made(batch)
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(f"The network doesn't run: {type(exc).__name__}: {exc}") from exc
    for name, norm in norms.items():
        norm.momentum = momenta[name]
        statistics = norm.running_mean, norm.running_var
        if not all(t is None or bool(t.isfinite().all()) for t in statistics):
            raise TaskError(f"Batch norm {name!r} has statistics that are not finite.")
    return made.eval()

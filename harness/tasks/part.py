"""The part of the training split that candidates are trained on, as a task's reduction says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.data.reduce import reduce_split
from harness.training import predict_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import nn

    from harness.data.split import Split
    from harness.tasks.base import Task


def training_part(
    task: Task, teacher: nn.Module, seed: int, breathe: Callable[[], None] = lambda: None
) -> Split:
    """Return what candidates are trained on: all training samples, or the part asked for.

    Args:
        task: Its data and reduction.
        teacher: The trained dense network; its outputs are what samples are told apart by.
        seed: Of what is random.
        breathe: Called before every batch that the teacher is run on.
    """
    reduction, split = task.reduction, task.data.train

    def features() -> torch.Tensor:
        outputs = predict_tensors(teacher, breathing(split.chunks(), breathe))
        return torch.cat([part.reshape(len(part), -1) for part in outputs], dim=1)

    return reduce_split(split, reduction.fraction, reduction.method, features=features, seed=seed)


def breathing(
    batches: Iterable[torch.Tensor], breathe: Callable[[], None]
) -> Iterator[torch.Tensor]:
    """Yield batches as they are; call `breathe` before each."""
    for batch in batches:
        breathe()
        yield batch

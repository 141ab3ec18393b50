"""The part of the training split that candidates are trained on, as a task's reduction says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.data.reduce import reduce_split
from harness.errors import HarnessError, TaskError
from harness.training import predict_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import nn

    from harness.data.split import Split
    from harness.tasks.base import Task
    from harness.training import Views


def training_part(
    task: Task, teacher: nn.Module, seed: int, breathe: Callable[[], None] = lambda: None
) -> Split:
    """Return what candidates are trained on: all training samples, or the part asked for.

    Args:
        task: Its data and reduction.
        teacher: The trained dense network; its outputs are what samples are told apart by.
        seed: Of what is random.
        breathe: Called before every batch that the teacher is run on.

    Raises:
        TaskError: As `teacher_outputs`.
    """
    reduction, split = task.reduction, task.data.train

    def features() -> torch.Tensor:
        outputs = teacher_outputs(teacher, split.chunks(), breathe)
        return torch.cat([part.reshape(len(part), -1) for part in outputs], dim=1)

    return reduce_split(split, reduction.fraction, reduction.method, features=features, seed=seed)


def teacher_outputs(
    teacher: nn.Module, batches: Iterable[torch.Tensor], breathe: Callable[[], None]
) -> Views:
    """Return a teacher's outputs, each float32 `[N, ...]`, on batches of prepared samples.

    Raises:
        TaskError: If it fails, or they are not finite: nothing can be learnt from them.
    """
    try:
        outputs = predict_tensors(teacher, breathing(batches, breathe))
    except HarnessError:
        raise
    except Exception as exc:  # a network's own code raises what it likes
        raise TaskError(
            f"The teacher can't be run on all training samples: {type(exc).__name__}: {exc}"
        ) from exc
    for part in outputs:
        wrong = int((~part.isfinite()).reshape(len(part), -1).any(1).sum())
        if wrong:
            raise TaskError(
                f"Expected a teacher whose outputs are finite. Received: {wrong:,} of "
                f"{len(part):,} training samples for which they are not. Look at its weights and "
                "at those samples."
            )
    return outputs


def breathing(
    batches: Iterable[torch.Tensor], breathe: Callable[[], None]
) -> Iterator[torch.Tensor]:
    """Yield batches as they are; call `breathe` before each."""
    for batch in batches:
        breathe()
        yield batch

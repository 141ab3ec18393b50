"""What a student learns from its teacher's outputs, and the loss that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness.tasks.objective import one_or_all
from harness.training.predicting import predict_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.data.split import Split, Targets
    from harness.tasks.objective import Objective, Tensors
    from harness.training.features import Watch

_SPREAD_SAMPLES = 1024
"""Of how many samples a live teacher's outputs are compared with each other before training."""
Views = tuple[torch.Tensor, ...]
"""A teacher's outputs on one view of a split, each float32 `[N, ...]`, in the split's order."""


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """What a student learns from its teacher.

    Attributes:
        outputs: The teacher's on a view of the split, by the view's number; or the teacher itself,
            in evaluation mode, which is then run on every batch.
        temperature: Softens both sides; above 0.
        weight: Of the imitation in the loss, 0 (targets only) to 1.
        identity: What tells these outputs from another teacher's; for checkpoints.
    """

    outputs: Callable[[int], Views] | nn.Module
    temperature: float
    weight: float
    identity: str = ""


def student_loss(
    objective: Objective,
    outputs: Tensors,
    targets: Targets,
    soft: SoftTargets | None,
    teacher: Tensors | None,
    spread: Views = (),
) -> torch.Tensor:
    """Return (1 - w) loss(targets) + w imitation(teacher), a scalar.

    Args:
        objective: Says what loss and imitation are.
        outputs: The student's, of a batch.
        targets: Of the batch.
        soft: The weight w and the temperature; None for targets only.
        teacher: The teacher's outputs on the batch; None for targets only.
        spread: Standard deviation of each of the teacher's outputs over all samples.
    """
    hard = objective.loss(outputs, targets)
    if soft is None or soft.weight == 0 or teacher is None:
        return hard
    imitation = objective.imitation(outputs, teacher, soft.temperature, spread)
    return (1 - soft.weight) * hard + soft.weight * imitation


class Teacher:
    """A teacher's outputs on batch after batch, looked up or computed.

    Args:
        soft: Where they come from; None for none.
        split: What is trained on.
        objective: Says whether the spread of the outputs is needed.
        watch: Of features; its teacher is run on every batch in any case.

    Attributes:
        spread: Standard deviation of each output over samples, `[1, ...]`, above 0.
    """

    def __init__(
        self, soft: SoftTargets | None, split: Split, objective: Objective, watch: Watch | None
    ) -> None:
        wanted = None if soft is None or soft.weight == 0 else soft.outputs
        self._live = wanted if isinstance(wanted, nn.Module) else None
        self._look_up = None if isinstance(wanted, nn.Module) else wanted
        self._view: Views = ()
        self._watch = watch
        self.spread: Views = ()
        if self._live is not None and not objective.uses_temperature:
            count = min(_SPREAD_SAMPLES, len(split))
            some = split.take(torch.arange(count) * len(split) // count)
            self.spread = _spread(predict_tensors(self._live, some.chunks()))

    def start(self, view: int) -> None:
        """Take the number of the view that is shown from now on."""
        if self._look_up is not None:
            self._view = self._look_up(view)
            self.spread = _spread(self._view)

    def outputs(self, rows: torch.Tensor, inputs: torch.Tensor) -> Tensors | None:
        """Return the outputs for a batch; None where nobody imitates them.

        Args:
            rows: int64 `[B]`, of the split.
            inputs: The view of these rows, `[B, ...]`.
        """
        said = None if self._watch is None else self._watch.teach(inputs)
        if self._look_up is not None:
            return one_or_all(tuple(part[rows] for part in self._view))
        if self._live is None:
            return None
        if said is None or self._watch is None or self._watch.teacher is not self._live:
            said = predict_tensors(self._live, [inputs])
        return one_or_all(said)


def _spread(outputs: Views) -> Views:
    """Return each output's standard deviation over samples, `[1, ...]`; 1 where it is constant."""
    found = (part.std(0, correction=0, keepdim=True) for part in outputs)
    return tuple(torch.where(std > 0, std, 1.0) for std in found)

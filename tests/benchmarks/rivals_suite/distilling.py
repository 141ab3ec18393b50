"""The distillation that every rival ends with, for as long as its time lasts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from harness.manner import find_manner
from harness.training import SoftTargets, fit

if TYPE_CHECKING:
    from torch import nn

    from harness_search.tools import Tools

TEMPERATURE, WEIGHT = 4.0, 0.7
"""Those of the search's controls."""
_STEPS, _WARM = 12, 4
_MARGIN = 0.05


def distil(tools: Tools, student: nn.Module, epochs: int, seed: int) -> None:
    """Train a network in place from the dense one's outputs."""
    task, recipe, split = tools.task, tools.task.recipe, tools.train_split()
    soft = SoftTargets(tools.teacher(split), TEMPERATURE, WEIGHT)
    with tools.lock.shared():
        fit(
            student, split, task.objective, recipe, epochs=epochs, lr=recipe.trial_lr, seed=seed,
            soft=soft, manner=find_manner(student, split, task.objective, recipe),
        )  # fmt: skip


def epochs_until(tools: Tools, student: nn.Module, deadline: float) -> int:
    """Return how many epochs end before a monotonic time; at least one."""
    task, recipe, split = tools.task, tools.task.recipe, tools.train_split()
    started = time.monotonic()
    teacher = tools.teacher(split)
    teacher(0)
    teaching = time.monotonic() - started
    part = split.take(torch.arange(min(_STEPS * recipe.batch, len(split))))
    marks: list[float] = []
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with tools.lock.shared():
        fit(
            student, part, task.objective, recipe, epochs=1, lr=recipe.trial_lr, seed=0,
            on_batch=lambda done, total: marks.append(time.monotonic()),
        )  # fmt: skip
    student.load_state_dict(state)
    step = (marks[-1] - marks[_WARM]) / (len(marks) - 1 - _WARM)
    per_epoch = step * len(split) / recipe.batch
    if split.augmentation is not None:
        per_epoch += teaching
    return max(1, int((deadline - time.monotonic()) * (1 - _MARGIN) / per_epoch))

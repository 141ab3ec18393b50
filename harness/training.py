"""One training loop: targets alone for the dense model, a teacher's outputs too for a student."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.errors import HarnessError, TaskError
from harness.manner import Manner, find_manner, fp32, set_memory_format
from harness.tasks.objective import as_tuple, one_or_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import nn

    from harness.data.split import Split, Targets
    from harness.tasks.objective import Arrays, Objective, Tensors
    from harness.tasks.recipe import Recipe

_RISE = 0.2
"""The part of the steps in which the learning rate rises."""
_LARGEST_GRADIENT = 5.0
"""Norm to which gradients are clipped, so that one bad batch can't throw a network off."""
Views = tuple[torch.Tensor, ...]
"""A teacher's outputs on one view of a split, each float32 `[N, ...]`, in the split's order."""


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """What a student learns from its teacher.

    Attributes:
        outputs: The teacher's on a view of the split, by the view's number.
        temperature: Softens both sides; above 0.
        weight: Of the imitation in the loss, 0 (targets only) to 1.
    """

    outputs: Callable[[int], Views]
    temperature: float
    weight: float


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


def fit(
    model: nn.Module,
    split: Split,
    objective: Objective,
    recipe: Recipe,
    *,
    epochs: int,
    lr: float,
    seed: int,
    soft: SoftTargets | None = None,
    manner: Manner | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> nn.Module:
    """Train `model` in place and return it in evaluation mode.

    The learning rate rises for a fifth of the steps and falls along a cosine, as in the one-cycle
    schedule of Smith & Topin (2018). Epoch e shows view e of the samples.

    Args:
        model: The network.
        split: What to train on.
        objective: The loss.
        recipe: Batch, optimizer, weight decay.
        epochs: Passes over the split.
        lr: Peak learning rate.
        seed: Of the order of samples.
        soft: Distil from these; None trains on the targets alone.
        manner: Memory layout and precision; None for the fastest that the network allows.
        on_batch: Called after every step with the steps done and in all.

    Raises:
        TaskError: If the loss stops being finite.
    """
    objective = objective.anew()
    manner = manner or find_manner(model, split, objective, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of dropout and the like
        return _fitted(model, split, objective, recipe, epochs, lr, seed, soft, manner, on_batch)


def _fitted(
    model: nn.Module, split: Split, objective: Objective, recipe: Recipe, epochs: int, lr: float,
    seed: int, soft: SoftTargets | None, manner: Manner, on_batch: Callable[[int, int], None],
) -> nn.Module:  # fmt: skip
    rng = torch.Generator().manual_seed(seed)
    manner.prepare(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # a user's network may come frozen; all of it is trained
    model.train()
    optimizer = _optimizer(model, recipe, lr)
    total = epochs * len(_batches(torch.arange(len(split)), recipe.batch))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _pace(done, total))
    step = 0
    for epoch in range(epochs):
        soft_view = soft.outputs(epoch) if soft is not None and soft.weight > 0 else None
        spread = _spread(soft_view or ())
        for rows in _batches(torch.randperm(len(split), generator=rng), recipe.batch):
            optimizer.zero_grad()
            inputs, targets = split.batch(rows, epoch), split.targets_of(rows)
            teacher = None if soft_view is None else one_or_all(tuple(t[rows] for t in soft_view))
            with _told():
                outputs = manner.outputs(model, inputs)
                loss = student_loss(objective, outputs, targets, soft, teacher, spread)
                loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            step += 1
            on_batch(step, total)
        if not torch.isfinite(loss):
            raise TaskError(
                f"Training diverged: the loss is {loss.item()} at step {step}. Lower the learning "
                "rate (`--recipe trial_lr=...`, `teacher_lr=...`)."
            )
    set_memory_format(model, torch.contiguous_format)
    return model.eval()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what a user's network raises in training into a `TaskError`."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as exc:  # a network's own code raises what it likes
        raise TaskError(f"The network can't be trained: {type(exc).__name__}: {exc}") from exc


def _spread(outputs: Views) -> Views:
    """Return each output's standard deviation over samples, `[1, ...]`; 1 where it is constant."""
    found = (part.std(0, correction=0, keepdim=True) for part in outputs)
    return tuple(torch.where(std > 0, std, 1.0) for std in found)


def _pace(done: int, total: int) -> float:
    """Return the share of the peak learning rate for the step after `done` of `total`; above 0."""
    rising = max(1, round(_RISE * total))
    if done < rising:
        return (done + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (done - rising + 1) / (total - rising + 1)))


def _optimizer(model: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr, weight_decay=recipe.weight_decay)


def _batches(order: torch.Tensor, batch: int) -> list[torch.Tensor]:
    """Split rows into batches; a last one of a single sample joins its neighbour.

    Batch norm can't be trained on one sample.
    """
    parts = list(torch.split(order, batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


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


def use_all_cores() -> int:
    """Let torch use every core that this process may run on; return how many."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    return cores


@contextlib.contextmanager
def torch_kept() -> Iterator[None]:
    """Give torch's random numbers and its thread count back as they were, whatever happens.

    Training runs on the CPU, so its generator is the only one that is looked after.
    """
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)

"""The training loop."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness.errors import HarnessError, TaskError
from harness.manner import Manner, find_manner, set_memory_format
from harness.training.checkpoint import Checkpoint, digest_of, tensors_of
from harness.training.schedule import batches_of, make_optimizer, one_cycle
from harness.training.soft import SoftTargets, Teacher, student_loss
from harness.training.zeros import Zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from harness.data.split import Split
    from harness.tasks.objective import Objective
    from harness.tasks.recipe import Recipe
    from harness.training.features import Features, Watch

_LARGEST_GRADIENT = 5.0
"""Norm to which gradients are clipped, so that one bad batch can't throw a network off."""
_COMPARED = 64
"""Samples by which a checkpoint's data are told from others."""


@dataclass(frozen=True, slots=True, eq=False)
class _Course:
    """What `fit` is asked for; see there."""

    split: Split
    objective: Objective
    recipe: Recipe
    epochs: int
    lr: float
    seed: int
    soft: SoftTargets | None
    features: Features | None
    sparse: tuple[str, ...]
    views: int | None
    manner: Manner


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
    features: Features | None = None,
    sparse: Collection[str] = (),
    views: int | None = None,
    manner: Manner | None = None,
    checkpoint: Path | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> nn.Module:
    """Train `model` in place and return it in evaluation mode.

    The learning rate rises for a fifth of the steps and falls along a cosine, as in the one-cycle
    schedule of Smith & Topin (2018).

    Args:
        model: The network.
        split: What to train on.
        objective: The loss.
        recipe: Batch, optimizer, weight decay.
        epochs: Passes over the split.
        lr: Peak learning rate.
        seed: Of the order of samples.
        soft: Distil from these; None trains on the targets alone.
        features: Imitate the teacher's inside, too; None for not.
        sparse: Names of parameters whose zeros stay zero.
        views: Epoch e shows view e modulo this number of the samples; None for view e.
        manner: Memory layout and precision; None for the fastest that the network allows.
        checkpoint: File in which the state is kept. A call with the same arguments goes on from
            there, to the very weights that it would have come to uninterrupted on this machine.
            One of other arguments, or damaged, is overwritten. It stays at the end, so that the
            same call returns at once, until the caller has kept the result and removes it. None
            for none.
        on_batch: Called after every step with the steps done and in all.

    Raises:
        ConfigError: If there is no parameter of a name in `sparse`.
        TaskError: If the loss stops being finite, or the network fails.
    """
    course = _Course(
        split, objective.anew(), recipe, epochs, lr, seed, soft,
        features if features is not None and features.weight > 0 else None, tuple(sparse), views,
        manner or find_manner(model, split, objective, recipe),
    )  # fmt: skip
    watching = contextlib.nullcontext() if course.features is None else course.features.watch(model)
    with torch.random.fork_rng(devices=[]), watching as watch:
        torch.manual_seed(seed)  # of dropout and the like
        return _Training(model, course, watch, checkpoint).run(on_batch)


class _Training:
    """A network on its way through a course."""

    def __init__(
        self, model: nn.Module, course: _Course, watch: Watch | None, path: Path | None
    ) -> None:
        self._model, self._course, self._watch = model, course, watch
        modules = (model, *_own_modules(course.objective))
        identity = "" if path is None else _identity(course, modules)
        course.manner.prepare(model)
        for parameter in model.parameters():
            parameter.requires_grad_(True)  # a user's network may come frozen; all of it is trained
        model.train()
        self._optimizer = make_optimizer(model, course.recipe, course.lr)
        self._per_epoch = len(batches_of(torch.arange(len(course.split)), course.recipe.batch))
        self._schedule = one_cycle(self._optimizer, course.epochs * self._per_epoch)
        self._zeros = Zeros(model, course.sparse)
        with _told():
            self._teacher = Teacher(course.soft, course.split, course.objective, watch)
        self._checkpoint = Checkpoint(path, identity, modules, self._optimizer, self._schedule)

    def run(self, on_batch: Callable[[int, int], None]) -> nn.Module:
        """Train from the beginning, or from where a checkpoint stands."""
        course = self._course
        rng = torch.Generator().manual_seed(course.seed)
        step, total = self._checkpoint.load(rng), course.epochs * self._per_epoch
        for epoch in range(step // self._per_epoch, course.epochs):
            view = epoch if course.views is None else epoch % course.views
            self._teacher.start(view)
            drawn_from = rng.get_state()
            order = torch.randperm(len(course.split), generator=rng)
            for rows in batches_of(order, course.recipe.batch)[step % self._per_epoch :]:
                loss = self._step(rows, view)
                step += 1
                on_batch(step, total)
                if step % self._per_epoch:
                    self._checkpoint.save(step, drawn_from, at_once=False)
            if not torch.isfinite(loss):
                raise TaskError(
                    f"Training diverged: the loss is {loss.item()} at step {step}. Lower the "
                    "learning rate (`--recipe trial_lr=...`, `teacher_lr=...`, or a step's "
                    "`lr=...`)."
                )
            self._checkpoint.save(step, rng.get_state(), at_once=True)
        set_memory_format(self._model, torch.contiguous_format)
        return self._model.eval()

    def _step(self, rows: torch.Tensor, view: int) -> torch.Tensor:
        """Learn from one batch and return its loss."""
        course = self._course
        self._optimizer.zero_grad()
        inputs, targets = course.split.batch(rows, view), course.split.targets_of(rows)
        with _told():
            teacher = self._teacher.outputs(rows, inputs)
            outputs = course.manner.outputs(self._model, inputs)
            loss = student_loss(
                course.objective, outputs, targets, course.soft, teacher, self._teacher.spread
            )
            if self._watch is not None:
                loss = loss + self._watch.loss()
            loss.backward()  # type: ignore[no-untyped-call]
        self._zeros.clear_gradients()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        self._zeros.restore()
        self._schedule.step()
        return loss


def _own_modules(objective: Objective) -> list[nn.Module]:
    """Return a user's losses that are modules: they may remember what they have seen."""
    given = (getattr(part, "function", part) for part in (objective.loss, objective.imitation))
    return [part for part in given if isinstance(part, nn.Module)]


def _identity(course: _Course, modules: Collection[nn.Module]) -> str:
    """Return what a training depends on: arguments, initial weights, samples in so far."""
    split, soft, features = course.split, course.soft, course.features
    count = min(_COMPARED, len(split))
    rows = torch.arange(count) * len(split) // count
    targets = split.targets_of(rows)
    facts = (
        torch.__version__, course.recipe, course.objective.description, course.epochs, course.lr,
        course.seed, course.sparse, course.views, course.manner, len(split), split.augmentation,
        None if soft is None else (soft.temperature, soft.weight, soft.identity),
        None if features is None else (features.weight, features.pairs, features.identity),
    )  # fmt: skip
    named = enumerate(targets if isinstance(targets, tuple) else (targets,))
    tensors = {
        "inputs": split.batch(rows, 0),
        "rows": torch.arange(len(split)) if split.rows is None else split.rows,
        **{f"target {number}": part for number, part in named},
        **tensors_of(modules),
    }
    return digest_of(facts, tensors)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what a user's network raises in training into a `TaskError`."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as exc:  # a network's own code raises what it likes
        raise TaskError(f"The network can't be trained: {type(exc).__name__}: {exc}") from exc

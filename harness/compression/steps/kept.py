"""What steps that train have in common, kept in a step's folder for when the step is resumed."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from harness.atomic import write_atomic
from harness.tasks.part import teacher_outputs, training_part
from harness.training.checkpoint import digest_of, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from torch import nn

    from harness.compression.steps.base import Context
    from harness.data.split import Split
    from harness.training import Views

_PREFIX = "teacher"
_HASH = "sha256"
"""In a file's header: a damaged one is never taken, also where only its numbers are."""


def kept(folder: Path | None, name: str, make: Callable[[], Views]) -> Views:
    """Return tensors from a folder, or have them made and kept there.

    Args:
        folder: Where they are kept; None for nowhere.
        name: Of the file, without its suffix; has to tell all that they depend on.
        make: Makes them.
    """
    if folder is None:
        return make()
    path = folder / f"{name}.safetensors"
    with contextlib.suppress(OSError, SafetensorError):  # missing, or damaged
        with safe_open(path, "pt") as file:
            found = {key: file.get_tensor(key) for key in map(str, range(len(file.keys())))}
            told = file.metadata()
        if found and told == {_HASH: digest_of(name, found)}:
            return tuple(found.values())
    made = make()
    tensors = {str(number): part.contiguous() for number, part in enumerate(made)}
    with contextlib.suppress(OSError):  # it is only for when the step is resumed
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors, {_HASH: digest_of(name, tensors)}))
    return made


def network_identity(module: nn.Module) -> str:
    """Return what tells a network from another: a digest of its class and its tensors."""
    return digest_of(type(module).__qualname__, tensors_of([module]))


def training_rows(context: Context) -> Split:
    """Return the part of the training split that the task's reduction leaves."""
    task, split = context.task, context.task.data.train
    if task.reduction.fraction == 1:
        return split

    def rows() -> tuple[torch.Tensor]:
        found = training_part(task, context.teacher, context.part_seed, context.breathe).rows
        assert found is not None  # a part is told by its rows
        return (found,)

    facts = (task.reduction, task.data.sha256, context.part_seed, network_identity(context.teacher))
    (found,) = kept(context.folder, f"part-{digest_of(facts, {})[:16]}", rows)
    return replace(split, rows=found)


class TeacherViews:
    """A teacher's outputs on views of a split, each computed once, as `SoftTargets` asks for them.

    Args:
        context: Has the teacher, the data that the split is of, and the folder that they are kept
            in; where it has none, they are kept in memory.
        split: The samples; without augmentation all views are one.
        again: Whether views are shown more than once; else only the last one is kept.
    """

    def __init__(
        self,
        context: Context,
        split: Split,
        *,
        again: bool,
    ) -> None:
        self._context, self._split, self._again = context, split, again
        facts = (
            network_identity(context.teacher), context.task.data.sha256, split.augmentation
        )  # fmt: skip
        self._identity = digest_of(facts, {} if split.rows is None else {"rows": split.rows})
        self._held: dict[int, Views] = {}

    def __call__(self, view: int) -> Views:
        """Return the outputs on a view, each float32 `[N, ...]`."""
        number = 0 if self._split.augmentation is None else view
        if number in self._held:
            return self._held[number]
        folder = self._context.folder
        if folder is not None or not self._again:
            self._held.clear()  # the folder has them, or nobody asks for them again
        name = f"{_PREFIX}-{self._identity[:16]}-{number}"
        self._held[number] = kept(folder, name, lambda: self._computed(number))
        if folder is not None and not self._again:
            for old in folder.glob(f"{_PREFIX}-*.safetensors"):
                if old.stem != name:
                    with contextlib.suppress(OSError):  # it only takes room
                        old.unlink()
        return self._held[number]

    def _computed(self, view: int) -> Views:
        chunks = self._split.chunks(view=view)
        return teacher_outputs(self._context.teacher, chunks, self._context.breathe)

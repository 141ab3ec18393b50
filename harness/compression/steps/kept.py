"""What takes long to compute, kept in a step's folder for when the step is resumed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from harness.atomic import write_atomic
from harness.tasks.part import breathing
from harness.training import predict_tensors
from harness.training.checkpoint import digest_of, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from harness.data.split import Split
    from harness.training import Views

_PREFIX = "teacher"


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
        found = load_file(path)
        return tuple(found[str(number)] for number in range(len(found)))
    made = make()
    with contextlib.suppress(OSError):  # it is only for when the step is resumed
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save({str(i): part.contiguous() for i, part in enumerate(made)}))
    return made


def network_identity(module: nn.Module) -> str:
    """Return what tells a network from another: a digest of its class and its tensors."""
    return digest_of(type(module).__qualname__, tensors_of([module]))


class TeacherViews:
    """A teacher's outputs on views of a split, each computed once, as `SoftTargets` asks for them.

    Args:
        teacher: The teacher, in evaluation mode.
        split: The samples; without augmentation all views are one.
        folder: Where they are kept; None for memory.
        identity: Of teacher and split.
        again: Whether views are shown more than once; else only the last one is kept.
        breathe: Called before every batch that the teacher is run on.
    """

    def __init__(
        self,
        teacher: nn.Module,
        split: Split,
        folder: Path | None,
        identity: str,
        *,
        again: bool,
        breathe: Callable[[], None],
    ) -> None:
        self._teacher, self._split, self._folder = teacher, split, folder
        self._identity, self._again, self._breathe = identity, again, breathe
        self._held: dict[int, Views] = {}

    def __call__(self, view: int) -> Views:
        """Return the outputs on a view, each float32 `[N, ...]`."""
        number = 0 if self._split.augmentation is None else view
        if number in self._held:
            return self._held[number]
        if self._folder is not None or not self._again:
            self._held.clear()  # the folder has them, or nobody asks for them again
        name = f"{_PREFIX}-{self._identity[:16]}-{number}"
        self._held[number] = kept(self._folder, name, lambda: self._computed(number))
        if self._folder is not None and not self._again:
            for old in self._folder.glob(f"{_PREFIX}-*.safetensors"):
                if old.stem != name:
                    old.unlink(missing_ok=True)
        return self._held[number]

    def _computed(self, view: int) -> Views:
        chunks = self._split.chunks(view=view)
        return predict_tensors(self._teacher, breathing(chunks, self._breathe))

"""The core types of data: a split, what prepares its samples, and three splits together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.data.augment import Augmentation

Targets = torch.Tensor | tuple[torch.Tensor, ...]
"""int64 `[N]` classes, float32 `[N, k]` values, or a tuple of tensors that a user's loss knows."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What turns stored samples into what a network takes: `(x * factor - mean) / std`.

    Attributes:
        mean, std: One value, or one per entry of dimension 1 (channels, features); std above 0.
        factor: 1/255 for images of uint8, else 1.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    factor: float = 1.0

    def __call__(self, stored: torch.Tensor) -> torch.Tensor:
        """Map stored samples `[B, C, ...]` to float32 of the same shape."""
        shape = (1, -1, *(1 for _ in stored.shape[2:]))
        mean = torch.tensor(self.mean).view(shape)
        std = torch.tensor(self.std).view(shape)
        return stored.float().mul_(self.factor).sub_(mean).div_(std)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples in memory, or mapped from a file; prepared batch by batch.

    Attributes:
        inputs: Stored samples `[M, ...]`: uint8 for images `[M, C, H, W]`, float32, or int64.
        targets: Stored targets, `M` of them.
        rows: int64 `[N]`, which of the stored samples are this split's; None for all, in order.
        scale: Prepares stored inputs; None where they are what a network takes.
        augmentation: Of training images; None for none.
        nhwc: Whether the network takes images `[N, H, W, C]` (TensorFlow's order).
    """

    inputs: torch.Tensor
    targets: Targets
    rows: torch.Tensor | None = None
    scale: Scale | None = None
    augmentation: Augmentation | None = None
    nhwc: bool = False

    def __len__(self) -> int:
        return len(self.inputs if self.rows is None else self.rows)

    def batch(self, rows: torch.Tensor, view: int | None = None) -> torch.Tensor:
        """Return prepared samples.

        Args:
            rows: int64 `[B]`, numbers within this split.
            view: Which augmented view; None for the samples as they are.

        Returns:
            float32 `[B, ...]`, or int64 where the network takes that; a copy.
        """
        stored = rows if self.rows is None else self.rows[rows]
        if view is not None and self.augmentation is not None:
            # Keyed by the stored row: a subset sees the views that the whole sees.
            inputs = self.augmentation(self.inputs, stored, view)
        else:
            inputs = self.inputs[stored]
        if self.scale is not None:
            inputs = self.scale(inputs)
        return inputs.permute(0, 2, 3, 1).contiguous() if self.nhwc else inputs

    def targets_of(self, rows: torch.Tensor | None = None) -> Targets:
        """Return the targets of samples `rows` `[B]`; of all where None."""
        if rows is None:
            rows = torch.arange(len(self))
        stored = rows if self.rows is None else self.rows[rows]
        if isinstance(self.targets, tuple):
            return tuple(part[stored] for part in self.targets)
        return self.targets[stored]

    def chunks(self, size: int = 256, view: int | None = None) -> Iterator[torch.Tensor]:
        """Yield all samples, prepared, in order and at most `size` at a time."""
        for rows in torch.split(torch.arange(len(self)), size):
            yield self.batch(rows, view)

    def take(self, rows: torch.Tensor) -> Split:
        """Return a split of samples `rows` `[B]` alone; nothing is copied."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one prepared sample, without the batch."""
        return tuple(self.batch(torch.zeros(1, dtype=torch.int64)).shape[1:])


@dataclass(frozen=True, slots=True)
class Column:
    """How one column of a table is fed to a network.

    Attributes:
        name: As in the table's header.
        categories: Its texts; each has a feature, 1 where the cell is that text and 0 elsewhere.
            Empty for a column of numbers, which is one feature.
        missing: What stands for a missing number; None for a column of texts: zeros.
    """

    name: str
    categories: tuple[str, ...] = ()
    missing: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Samples to learn from, to choose by and to report on.

    Attributes:
        name: Short, for the name of a study.
        train: What networks are trained on.
        validation: What candidates are chosen by.
        test: Read at the end only, for what is reported.
        kind: `"classification"` (targets int64 `[N]`), `"regression"` (float32 `[N, k]`) or
            `"other"` (whatever the user's loss knows).
        outputs: Classes, or values to predict; None where only the user knows.
        sha256: Of all stored samples and targets, of which split each is in, and of their scale.
        classes: Names of the classes, in the order of their numbers; empty where there are none.
        columns: Of a table, in the order of their features; empty for other data.
        target_names: The columns that hold the targets, in the order of the values to predict;
            empty where they weren't named.
        folders: Image folders that it was read from: all that lies there is read.
        origin: How the splits came about: `"given"`, or how they were made.
        notes: What a user should know, such as samples that are in two splits.
        description: One line for people.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    kind: str
    outputs: int | None
    sha256: str
    classes: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    target_names: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    origin: str = "given"
    notes: tuple[str, ...] = field(default=())
    description: str = ""

    def in_nhwc(self) -> Data:
        """Return the same data for a network that takes images `[N, H, W, C]`."""
        train, validation, test = (
            replace(split, nhwc=True) for split in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

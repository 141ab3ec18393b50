"""Reshapes that survive pruning: dimensions that are merged or split, not sizes.

A file says "reshape to [N, 576]"; once channels are pruned there are fewer. What it means is
"merge channels, rows and columns", which holds for any number of channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Regroup:
    """A reshape as a list of runs of dimensions.

    Attributes:
        runs: Per run, in order: its dimensions in the input, and their sizes in the output, at most
            one of them -1; one size of -1 where they are only merged.
    """

    runs: tuple[tuple[int, Shape], ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` with its dimensions merged and split."""
        stop = x.ndim
        for count, sizes in reversed(self.runs):  # from the last one, so that numbers hold
            start = stop - count
            if count > 1 and (start, stop) == (1, x.ndim):
                x = x.flatten(1)
            elif count > 1:
                # Not `flatten` and `unflatten`, which the exporter writes as a dozen nodes.
                x = x.reshape(*x.shape[:start], -1, *x.shape[stop:])
            if len(sizes) > 1:
                x = x.reshape(*x.shape[:start], *sizes, *x.shape[start + 1 :])
            stop = start
        return x

    @property
    def flattens(self) -> bool:
        """Whether all dimensions but the batch are merged into one."""
        return len(self.runs) == 2 and [len(s) for _, s in self.runs] == [1, 1] and (
            self.runs[0][0] == 1 and self.runs[1][0] > 1
        )  # fmt: skip


def regroup(before: tuple[Shape, Shape], after: tuple[Shape, Shape]) -> Regroup | None:
    """Return the runs of a reshape; None where the two don't agree on them.

    Args:
        before: The input's shape at two batch sizes.
        after: The output's.
    """
    runs = _runs(before[0], after[0])
    if runs is None or runs != _runs(before[1], after[1]):
        return None
    found, start, first = [], 0, 0
    for count, width in runs:
        sizes = (after[0][first : first + width], after[1][first : first + width])
        open_at = _open_dimension(count, sizes, first, len(before[0]))
        if open_at is None:
            return None
        kept = tuple(-1 if i == open_at else size for i, size in enumerate(sizes[0]))
        found.append((count, kept))
        start, first = start + count, first + width
    return Regroup(tuple(found))


def _runs(before: Shape, after: Shape) -> tuple[tuple[int, int], ...] | None:
    """Return the shortest runs of both shapes whose products agree: how many dimensions of each."""
    if math.prod(before) != math.prod(after) or not before or not after or 0 in before:
        return None
    cuts = [(0, 0)]
    i, j = 0, 0
    while i < len(before) and j < len(after):
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        cuts.append((i, j))
    cuts[-1] = (len(before), len(after))  # whatever is left are sizes of 1
    return tuple((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(cuts))


def _open_dimension(count: int, sizes: tuple[Shape, Shape], first: int, rank: int) -> int | None:
    """Return which of a run's output dimensions takes what the batch and pruning leave."""
    moving = [i for i, (a, b) in enumerate(zip(*sizes, strict=True)) if a != b]
    if len(moving) > 1:
        return None
    if moving:
        return moving[0]
    if count == 1 and rank == 2 and first == 1:
        return 0  # features become [C, H, W]: channels are what pruning changes
    # [heads, width of a head], [groups, channels of a group]: the last one is what pruning changes.
    return max((i for i, size in enumerate(sizes[0]) if size > 1), default=len(sizes[0]) - 1)


def target_shape(
    shape: Shape, wanted: list[int], batch: int, fixed: int | None, allow_zero: bool
) -> Shape:
    """Return the shape that ONNX's Reshape asks for, at another batch size than the file's.

    Args:
        shape: The input's.
        wanted: As in the file: 0 copies, -1 takes what is left.
        batch: The batch size that `shape` is for.
        fixed: The batch that the file was exported for; None where it is open.
        allow_zero: Whether 0 means 0.

    Raises:
        ValueError: If it doesn't fit.
    """
    total = math.prod(shape)
    if not allow_zero:
        wanted = [shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    if fixed is not None and wanted and wanted[0] > 0:
        if -1 in wanted:
            wanted[0] = batch if wanted[0] == fixed else wanted[0]
        elif math.prod(wanted) != total:  # the batch is baked into the first size
            wanted[0] = -1
    if -1 in wanted:
        rest = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = total // max(rest, 1)
    if math.prod(wanted) != total:
        raise ValueError(f"{list(shape)} can't be reshaped to {wanted}")
    return tuple(wanted)

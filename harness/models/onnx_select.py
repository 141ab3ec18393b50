"""Nodes that add or drop dimensions, join, part and select."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.models.onnx_network import operation
from harness.models.onnx_padding import Cut

if TYPE_CHECKING:
    from harness.models.onnx_network import Function
    from harness.models.onnx_node import Node

    Call = tuple[Function, tuple[str, ...]]


def squeeze(node: Node) -> Call:
    """Convert Squeeze and Unsqueeze."""
    shape, axes = node.shape(), node.numbers(1, "axes")
    if node.op == "Unsqueeze":
        rank = len(shape) + len(axes or [])
        return operation(node.op, _unsqueezed, axes=tuple(sorted(a % rank for a in axes or []))), (
            node.value(0),
        )
    given = [i for i, size in enumerate(shape) if size == 1] if axes is None else axes
    gone = tuple(sorted((a % len(shape) for a in given), reverse=True))
    return operation(node.op, _squeezed, axes=gone), (node.value(0),)


def _unsqueezed(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


def _squeezed(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    for axis in axes:
        x = x.squeeze(axis)
    return x


def concat(node: Node) -> Call:
    """Convert Concat; a constant of one row is repeated along the batch."""
    names = tuple(node.value(i) for i in range(len(node.inputs)))
    axis = node.attribute("axis") % len(node.shape())
    return Concat(axis), names


@dataclass(frozen=True, slots=True)
class Concat:
    """Join tensors along one dimension."""

    axis: int

    def __call__(self, *parts: torch.Tensor) -> torch.Tensor:
        """Return the tensors as one."""
        if self.axis != 0:
            batch = max((part.shape[0] for part in parts), key=int)
            parts = tuple(
                part if part.shape[0] == batch else part.expand(batch, *part.shape[1:])
                for part in parts
            )
        return torch.cat(parts, dim=self.axis)


def split(node: Node) -> Call:
    """Convert Split; equal parts stay equal when channels are pruned."""
    shape = node.shape()
    axis = node.attribute("axis", 0) % len(shape)
    count, sizes = len(node.proto.output), node.numbers(1, "split")
    if sizes is None or len(set(sizes)) == 1:
        return operation(node.op, torch.chunk, chunks=count, dim=axis), (node.value(0),)
    return operation(node.op, torch.split, split_size_or_sections=tuple(sizes), dim=axis), (
        node.value(0),
    )


def slice_(node: Node) -> Call:
    """Convert Slice with constant bounds and positive steps."""
    shape = node.shape()
    starts, ends = node.numbers(1, "starts") or [], node.numbers(2, "ends") or []
    axes = node.numbers(3, "axes") or list(range(len(starts)))
    steps = node.numbers(4, "steps") or [1] * len(starts)
    cut = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise node.refuse("reverses a dimension")
        # A bound at the edge stays there whatever is pruned.
        cut[axis] = slice(start or None, None if end >= shape[axis] else end, step)
    return Cut(tuple(cut)), (node.value(0),)


def gather(node: Node) -> Call:
    """Convert Gather with constant indices: one, or a row of them."""
    index = node.constant(1)
    axis = node.attribute("axis", 0) % len(node.shape())
    if index.ndim > 1:
        raise node.refuse("selects by a table of indices")
    if index.ndim == 0:
        return operation(node.op, torch.select, dim=axis, index=int(index)), (node.value(0),)
    rows = torch.from_numpy(index.astype("int64") % node.shape()[axis])
    return operation(node.op, torch.index_select, dim=axis, index=rows), (node.value(0),)


def expand(node: Node) -> Call:
    """Convert Expand; what already has its size keeps it, whatever that is."""
    pairs = list(zip(node.known(1), node.shapes(), strict=True))
    sizes = []
    for wanted, shape in pairs:
        padded = (1,) * (len(wanted) - len(shape)) + shape
        own = [1] * (len(padded) - len(wanted)) + [int(n) for n in wanted]
        sizes.append([-1 if n in (1, p) else n for n, p in zip(own, padded, strict=True)])
    if sizes[0] != sizes[1]:
        raise node.refuse("repeats something as often as there are samples")
    return _Expand(tuple(sizes[0])), (node.value(0),)


@dataclass(frozen=True)
class _Expand:
    sizes: tuple[int, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.expand(self.sizes)


SELECT = {
    "Squeeze": squeeze,
    "Unsqueeze": squeeze,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Expand": expand,
}
"""Handlers by operation."""

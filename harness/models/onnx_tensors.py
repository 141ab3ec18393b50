"""Nodes that rearrange or reduce: reshapes, transposes, softmax, means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from harness.models.onnx_network import elementwise, operation
from harness.models.onnx_node import BATCHES
from harness.models.onnx_reshape import regroup, target_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.models.onnx_network import Function
    from harness.models.onnx_node import Node

    Call = tuple[Function, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Transpose:
    """Reorder dimensions: output dimension `i` is input dimension `order[i]`."""

    order: tuple[int, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reordered tensor."""
        return x.permute(self.order)


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over one dimension, or its logarithm."""

    axis: int
    log: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return probabilities, or their logarithms."""
        return F.log_softmax(x, dim=self.axis) if self.log else F.softmax(x, dim=self.axis)

    def undo(self, output: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return logits, less a constant per row."""
        return output if self.log else np.log(np.maximum(output, np.finfo(np.float32).tiny))


@dataclass(frozen=True, slots=True)
class Reduce:
    """A sum, mean, product, norm, largest or smallest over some dimensions."""

    op: str
    axes: tuple[int, ...]
    keep: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reduced tensor."""
        found: torch.Tensor = _REDUCTIONS[self.op](x, dim=self.axes, keepdim=self.keep)
        return found


def _sum_of_squares(x: torch.Tensor, **options: Any) -> torch.Tensor:
    return x.square().sum(**options)


def _product(x: torch.Tensor, dim: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    for axis in reversed(dim):
        x = x.prod(axis, keepdim=keepdim)
    return x


_REDUCTIONS: dict[str, Any] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax,
    "ReduceMin": torch.amin, "ReduceL2": torch.linalg.vector_norm,
    "ReduceL1": partial(torch.linalg.vector_norm, ord=1), "ReduceSumSquare": _sum_of_squares,
    "ReduceProd": _product,
}  # fmt: skip


def reshape(node: Node) -> Call:
    """Convert Reshape and Flatten to what they mean: dimensions merged or split."""
    befores = node.shapes()
    afters: list[tuple[int, ...]]
    if node.op == "Flatten":
        axis = node.attribute("axis", 1)
        afters = [(math.prod(s[:axis]), math.prod(s[axis:])) for s in befores]
    else:
        wanted = node.known(1) if node.has(1) else (node.attribute("shape"),) * 2
        zero = bool(node.attribute("allowzero", 0))
        afters = [
            target_shape(before, [int(n) for n in want], batch, node.walk.fixed, zero)
            for before, want, batch in zip(befores, wanted, BATCHES, strict=True)
        ]
    call = regroup(befores, (afters[0], afters[1]))
    if call is None:
        raise node.refuse(
            f"reshapes {list(befores[0])} to {list(afters[0])}, which mixes samples. Export the "
            "model with the batch dynamic"
        )
    return call, (node.value(0),)


def transpose(node: Node) -> Call:
    """Convert Transpose."""
    rank = len(node.shape())
    order = tuple(node.attribute("perm", list(reversed(range(rank)))))
    return Transpose(order), (node.value(0),)


def softmax(node: Node) -> Call:
    """Convert Softmax and LogSoftmax; before opset 13 they flatten what follows the axis."""
    shape = node.shape()
    axis = node.attribute("axis", 1 if node.opset < 13 else -1) % len(shape)
    if node.opset < 13 and math.prod(shape[axis + 1 :]) != 1:
        raise node.refuse("spans several dimensions. Export the model with opset 13 or newer")
    return Softmax(axis, node.op == "LogSoftmax"), (node.value(0),)


def reduce(node: Node) -> Call:
    """Convert reductions; a mean over an image is a global pooling, which runtimes know."""
    shape = node.shape()
    axes = node.numbers(1, "axes") or list(range(len(shape)))
    if node.attribute("noop_with_empty_axes", 0) and not node.numbers(1, "axes"):
        if node.op in ("ReduceL1", "ReduceL2", "ReduceSumSquare"):  # ONNX Runtime changes numbers
            raise node.refuse("reduces nothing (noop_with_empty_axes). Leave it out")
        return elementwise(node.op, torch.positive), (node.value(0),)
    found, keep = tuple(sorted(a % len(shape) for a in axes)), bool(node.attribute("keepdims", 1))
    if node.op == "ReduceMean" and keep and len(shape) == 4 and found == (2, 3):
        pooled = operation(node.op, F.adaptive_avg_pool2d, output_size=1)
        return pooled, (node.value(0),)
    return Reduce(node.op, found, keep), (node.value(0),)


TENSORS = {
    "Reshape": reshape,
    "Flatten": reshape,
    "Transpose": transpose,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    **dict.fromkeys(_REDUCTIONS, reduce),
}
"""Handlers by operation."""

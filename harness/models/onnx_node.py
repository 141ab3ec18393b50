"""The state of a conversion, and one node of a file with what its handler asks of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import nn

from harness.models.onnx_errors import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.errors import ConfigError
    from harness.models.onnx_network import Function

BATCHES = (2, 3)
"""Batch sizes of the walk: no two are likely to be alike by chance."""


@dataclass(slots=True)
class Draft:
    """A step while the network is put together.

    Attributes:
        call: A function, or a module with weights.
        inputs, outputs: Names of values.
        name: For a module.
        shapes: Of the outputs, at the walk's first batch size.
        taken: Shapes of the inputs, likewise.
    """

    call: Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    shapes: tuple[tuple[int, ...], ...] = ()
    taken: tuple[tuple[int, ...], ...] = ()


class Constant(nn.Module):
    """A tensor of the file that is no layer's weight; a single number is not trained."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        if value.is_floating_point() and value.numel() > 1:
            self.value = nn.Parameter(value)
        else:
            self.register_buffer("value", value)

    def forward(self) -> torch.Tensor:
        """Return the tensor."""
        return self.value

    def extra_repr(self) -> str:
        """Return the shape."""
        return str(tuple(self.value.shape))


@dataclass(slots=True)
class Walk:
    """The state of a conversion.

    Attributes:
        path: The file, for messages.
        opset: Of the default domain.
        fixed: The batch that the file was exported for; None where it is open.
        known: Values that depend on no input, at both batch sizes.
        live: Values that do, at both.
        drafts: Steps so far.
        alias: Names that stand for another value.
    """

    path: Path
    opset: int
    fixed: int | None
    known: dict[str, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)
    live: dict[str, tuple[torch.Tensor, ...]] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    alias: dict[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """Return the value that a name stands for."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def add(self, call: Function, inputs: Sequence[str], outputs: Sequence[str], name: str) -> None:
        """Append a step and run it at both batch sizes."""
        runs = []
        for i in range(len(BATCHES)):
            found = call(*(self.live[value][i] for value in inputs))
            runs.append(found if isinstance(found, (tuple, list)) else (found,))
        count = len(runs[0])
        outputs = outputs if any(outputs[count:]) else outputs[:count]  # "" is left out
        for value, *pair in zip(outputs, *runs, strict=True):
            self.live[value] = tuple(pair)
        shapes = tuple(tuple(part.shape) for part in runs[0])
        taken = tuple(tuple(self.live[value][0].shape) for value in inputs)
        self.drafts.append(Draft(call, tuple(inputs), tuple(outputs), name, shapes, taken))


class Node:
    """One node of the file, with what a handler asks of it.

    Args:
        proto: As in the file.
        walk: The conversion so far.
    """

    def __init__(self, proto: onnx.NodeProto, walk: Walk) -> None:
        self.proto, self.walk, self.opset = proto, walk, walk.opset
        self.op: str = proto.op_type
        self.inputs = tuple(walk.resolve(name) for name in proto.input)
        self._attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        self._extra = 0

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute; text as str."""
        found = self._attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def is_known(self, index: int) -> bool:
        """Whether an input depends on nothing but the batch size."""
        return self.has(index) and self.inputs[index] in self.walk.known

    def known(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a known input at both batch sizes.

        Raises:
            ConfigError: If it depends on the network's input.
        """
        if not self.is_known(index):
            raise self.refuse(f"takes a computed value as its input {index}, not a constant")
        return self.walk.known[self.inputs[index]]

    def constant(self, index: int) -> NDArray[Any]:
        """Return an input that is the same at every batch size.

        Raises:
            ConfigError: If it isn't.
        """
        first, second = self.known(index)
        if first.shape != second.shape or not np.array_equal(first, second):
            raise self.refuse(
                "computes with the batch size. Export the model again with the batch dynamic"
            )
        return first

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Return whole numbers that older files keep in an attribute and newer in an input."""
        if self.has(index):
            return [int(n) for n in self.constant(index).reshape(-1)]
        found = self.attribute(name)
        return None if found is None else [int(n) for n in found]

    def number(self, index: int) -> float | None:
        """Return a known input that is a single float, whatever its rank; None otherwise."""
        if not self.is_known(index):
            return None
        first, second = self.known(index)
        if first.size != 1 or first.dtype.kind != "f" or not np.array_equal(first, second):
            return None
        return float(first.reshape(()))

    def tensor(self, index: int) -> torch.Tensor:
        """Return a constant input as a tensor of its own memory."""
        return torch.from_numpy(np.array(self.constant(index)))

    def value(self, index: int) -> str:
        """Return the name of an input among computed values; a constant becomes one."""
        name = self.inputs[index]
        if name not in self.walk.live:
            tensor = torch.from_numpy(np.array(self._per_sample(index)))
            self.walk.add(Constant(tensor), (), (name,), f"{name}_constant")
        return name

    def _per_sample(self, index: int) -> NDArray[Any]:
        """Return a known input; one row, which broadcasts, where it is repeated for the batch."""
        first, second = self.known(index)
        if first.shape == second.shape or first.ndim == 0:
            return self.constant(index)
        row = first[:1]
        alike = first.shape[1:] == second.shape[1:] and all(
            np.array_equal(part, np.broadcast_to(row, part.shape)) for part in (first, second)
        )
        return row if alike else self.constant(index)

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Return an input's shape at the first of `BATCHES`."""
        return tuple(self.walk.live[self.value(index)][0].shape)

    def shapes(self, index: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return an input's shape at both of `BATCHES`."""
        first, second = self.walk.live[self.value(index)]
        return tuple(first.shape), tuple(second.shape)

    def before(self, call: Function, value: str) -> str:
        """Add a step that this node needs before its own; return its output."""
        self._extra += 1
        name = f"{self.proto.output[0]}_{self._extra}"
        self.walk.add(call, (value,), (name,), name)
        return name

    def refuse(self, reason: str) -> ConfigError:
        """Return an error that names this node; `reason` completes the sentence."""
        return refusal(self.walk.path, self.proto, reason)

"""The torch network that an ONNX file becomes: its steps, run one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.models.network import Final

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    Attributes:
        call: A function of tensors, or the name of the layer to run.
        inputs, outputs: Names of values.
    """

    call: str | Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class OnnxNetwork(nn.Module):
    """Steps over named values; what has weights is a submodule, so that it can be pruned.

    Args:
        steps: In an order in which they can run.
        layers: Submodules by name.
        input_name: The value that `forward` is given.
        outputs: The values that it returns.
        finals: By an output's number, what the file computes on top: a softmax that was taken off.
        file_outputs: The file's names of the outputs.
    """

    def __init__(
        self,
        steps: tuple[Step, ...],
        layers: Mapping[str, nn.Module],
        input_name: str,
        outputs: tuple[str, ...],
        finals: Mapping[int, Final],
        file_outputs: tuple[str, ...],
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._steps, self._input, self._outputs = steps, input_name, outputs
        self.finals, self.file_outputs = dict(finals), file_outputs
        self._done = _last_uses(steps, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map a batch, in the file's layout, to its output or the tuple of its outputs."""
        values = {self._input: x}
        for step, done in zip(self._steps, self._done, strict=True):
            call = getattr(self, step.call) if isinstance(step.call, str) else step.call
            found = call(*(values[name] for name in step.inputs))
            parts = found if isinstance(found, (tuple, list)) else (found,)
            values.update(zip(step.outputs, parts, strict=True))
            for name in done:  # frees memory as soon as it isn't needed
                del values[name]
        found = tuple(values[name] for name in self._outputs)
        return found[0] if len(found) == 1 else found

    def extra_repr(self) -> str:
        """Return the wiring, so that networks of the same layers in another order differ."""
        lines = (f"{', '.join(s.outputs)} = {s.call}({', '.join(s.inputs)})" for s in self._steps)
        return "\n".join((*lines, f"return {', '.join(self._outputs)}"))


def _last_uses(steps: tuple[Step, ...], outputs: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return per step the values that no later one needs."""
    needed, done = set(outputs), []
    for step in reversed(steps):
        idle = dict.fromkeys(n for n in (*step.inputs, *step.outputs) if n not in needed)
        done.append(tuple(idle))
        needed.update(step.inputs)
    return tuple(reversed(done))


@dataclass(frozen=True, slots=True)
class Operation:
    """A function of tensors with its settings, and a text that is the same in every process.

    Attributes:
        name: ONNX's.
        function: Of tensors.
        options: Its keyword arguments.
        elementwise: Whether it maps every element alike, whatever the layout.
    """

    name: str
    function: Function
    options: tuple[tuple[str, Any], ...] = ()
    elementwise: bool = False

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Return what the function returns."""
        return self.function(*tensors, **dict(self.options))

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options)
        return f"{self.name}[{options}]"


def operation(name: str, function: Function, **options: Any) -> Operation:
    """Return an operation with some settings."""
    return Operation(name, function, tuple(options.items()))


def elementwise(name: str, function: Function, **options: Any) -> Operation:
    """Return an operation that maps every element alike."""
    return Operation(name, function, tuple(options.items()), elementwise=True)


def is_elementwise(call: object) -> bool:
    """Whether a step maps every element alike, whatever the layout."""
    if isinstance(call, Binary):
        return call.left is not None or call.right is not None
    return isinstance(call, Operation) and call.elementwise


@dataclass(frozen=True, slots=True)
class Binary:
    """An arithmetic operation of two tensors, or of a tensor and a number.

    Attributes:
        op: ONNX's name of it.
        function: Of both.
        left, right: The number, where one is.
    """

    op: str
    function: Function
    left: float | None = None
    right: float | None = None

    def __call__(self, *operands: torch.Tensor) -> torch.Tensor:
        """Return the result, broadcast."""
        left = operands[0] if self.left is None else self.left
        right = operands[-1] if self.right is None else self.right
        found: torch.Tensor = self.function(left, right)
        return found

    def __repr__(self) -> str:
        return f"{self.op}[{self.left}, {self.right}]"

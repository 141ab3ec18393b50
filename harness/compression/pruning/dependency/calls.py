"""One operation of a network at work, as the rules see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.pruning.dependency.channels import Channels, Labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.compression.pruning.dependency.tracing import Tracer

Operand = tuple[torch.Size, Labels]
"""A tensor's shape and labels."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation at work.

    Attributes:
        tracer: Knows the labels of tensors.
        func: The operator.
        args, kwargs: What it was called with.
        inputs: All tensors of these.
        module: The module that runs.
        names: Of parameters and buffers, by identity.
    """

    tracer: Tracer
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: Sequence[torch.Tensor]
    module: str
    names: Mapping[int, str]

    @property
    def name(self) -> str:
        """The operator's name, such as `"add"`."""
        return str(self.func._schema.name).removeprefix("aten::")

    @property
    def channels(self) -> Channels:
        """What is known of channels."""
        return self.tracer.channels

    def labels(self, tensor: torch.Tensor | None) -> Labels:
        """Return a tensor's labels."""
        return () if tensor is None else self.tracer.labels(tensor)

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """Return an argument, by position or name."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def fix(self, labels: Labels, why: str) -> None:
        """Let channels stay because of this operation."""
        where = f" in {self.module}" if self.module else ""
        self.channels.fix(labels, f"{why} ({self.name}{where})")


def unknown(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Fix all channels that go into an operation without a rule."""
    for tensor in call.inputs:
        if call.module in call.tracer.recurrent:  # by a kernel of its own, on some machines
            call.channels.fix(call.labels(tensor), is_recurrent(call.module))
        else:
            call.fix(call.labels(tensor), "goes into an operation that can't be followed")
    return [() for _ in outputs]


def is_recurrent(module: str) -> str:
    """Return why channels of a recurrent layer, and those that go into it, stay."""
    return f"{module} is a recurrent layer"

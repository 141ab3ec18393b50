"""Follow every channel through one run of a network, operation by operation.

Beside each tensor goes a label per element that says which channel it belongs to. Operations that
only move elements (view, permute, cat, slice, ...) are applied to the labels as they are; those
that compute follow the rules in `rules`. Channels that meet are joined, those that an operation
needs whole are fixed. After Fang et al. (2023), "DepGraph: towards any structural pruning", but on
elements instead of layers, so that reshapes, transposes and slices need no guessing.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.compression.pruning.dependency.calls import Call, is_recurrent, unknown
from harness.compression.pruning.dependency.channels import OUTPUT, Channels, Labels, compressed
from harness.compression.pruning.dependency.combining import pointwise
from harness.compression.pruning.dependency.moving import moved
from harness.compression.pruning.dependency.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""Modules whose multiply-accumulates are counted."""
_WHOLE = (nn.RNNBase, nn.RNNCellBase)


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's stubs
    """Runs a network and learns which channels belong together.

    Attributes:
        channels: What was learnt.
        rows: Per layer, the labels of its input along dimensions that are not its channels.
        recurrent: Names of recurrent layers, which stay whole.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.channels = Channels()
        self.rows: dict[str, Labels] = {}
        self.recurrent = [n for n, module in model.named_modules() if isinstance(module, _WHOLE)]
        self._model = model
        self._known: dict[int, tuple[torch.Tensor, Labels]] = {}
        self._names: dict[int, str] = {}
        self._modules = [""]
        tensors: list[tuple[str, torch.Tensor]] = [
            *model.named_parameters(),
            *model.named_buffers(),
        ]
        for name, tensor in tensors:
            self._names[id(tensor)] = name
            self.set_labels(tensor, self._own_labels(name, tensor))

    def run(self, example: torch.Tensor) -> Any:
        """Run the network on `[1, ...]`, fix what its outputs need, and return them."""
        for name in self.recurrent:
            for weight in self._model.get_submodule(name).parameters():
                self.channels.fix(self.labels(weight), is_recurrent(name))
        with (
            torch.no_grad(),
            _watched(self._model, self._enter, self._modules.pop),
            _no_fast_path(),
            self,
        ):
            outputs = self._model(example)
        for tensor in _tensors(outputs):
            self.channels.fix(self.labels(tensor), OUTPUT)
        return outputs

    def labels(self, tensor: torch.Tensor) -> Labels:
        """Return a tensor's labels; none where nothing of it can vanish."""
        known = self._known.get(id(tensor))
        return () if known is None else known[1]

    def set_labels(self, tensor: torch.Tensor, labels: Labels) -> None:
        """Remember a tensor's labels."""
        # The tensor is held, so that its identity stays its own.
        self._known[id(tensor)] = (tensor, tuple(compressed(one) for one in labels))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and importing the compiler takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and label what it returns."""
        kwargs = kwargs or {}
        inputs = _tensors((args, kwargs))
        call = Call(self, func, args, kwargs, inputs, self._modules[-1], self._names)
        before = [self.labels(tensor) for tensor in inputs]
        out = func(*args, **kwargs)
        outputs = _tensors(out)
        if not any(before):
            for tensor in outputs:
                self.set_labels(tensor, ())
            return out
        rule = RULES.get(func._schema.name.removeprefix("aten::").removesuffix("_"))
        if rule is None:
            rule = pointwise if torch.Tag.pointwise in func.tags else unknown
        found = moved(call, out) if rule is moved else rule(call, outputs)
        for tensor, labels in zip(outputs, found, strict=True):
            self.set_labels(tensor, labels)
        return out

    def _own_labels(self, name: str, tensor: torch.Tensor) -> Labels:
        def along(dim: int, size: int) -> torch.Tensor:
            shape = [1] * tensor.dim()
            shape[dim] = size
            return self.channels.slot(name, dim, size).labels.view(shape).expand(tensor.shape)

        return tuple(along(dim, size) for dim, size in enumerate(tensor.shape) if size > 1)

    def _enter(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._modules.append(name)
        if isinstance(module, LAYERS) and inputs and isinstance(inputs[0], torch.Tensor):
            self.rows[name] = (*self.rows.get(name, ()), *self.labels(inputs[0]))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [t for one in value for t in _tensors(one)] if isinstance(value, (tuple, list)) else []


@contextmanager
def _watched(model: nn.Module, enter: Any, leave: Any) -> Iterator[None]:
    hooks: list[Any] = []
    for name, module in model.named_modules():
        entering = functools.partial(enter, name)
        hooks.append(module.register_forward_pre_hook(entering))
        hooks.append(module.register_forward_hook(lambda *_: [leave(), None][1]))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Keep multi-head attention from fusing itself into one operation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

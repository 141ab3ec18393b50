"""What the modules of a network are called with, and what they return."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.running import outputs_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        args, kwargs: What it was called with, as that was before the call.
        output: What it returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def idle(self) -> bool:
        """Whether the module returned just its input."""
        return torch.equal(self.output, self.args[0])


def block_calls(model: nn.Module, example: torch.Tensor) -> dict[str, Call]:
    """Return the calls of modules that may be blocks, in the order in which they start.

    Each was called once, first with a tensor, and returned one of the same shape. It holds other
    modules, and is in the network under one name only.

    Args:
        model: The network; left as it is, in evaluation mode.
        example: One sample, `[1, ...]`.

    Raises:
        TaskError: If the network can't be run.
    """
    started: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
    outputs: dict[str, Any] = {}
    hooks: list[Any] = []

    def watch(name: str, module: nn.Module) -> None:
        def start(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            started.setdefault(name, []).append((cloned(args), cloned(kwargs)))

        def end(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            outputs[name] = cloned(output)

        hooks.append(module.register_forward_pre_hook(start, with_kwargs=True))
        hooks.append(module.register_forward_hook(end))

    names = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for name, module in model.named_modules():
        if name and names[id(module)] == 1 and any(True for _ in module.children()):
            watch(name, module)
    try:
        outputs_of(model, example, "The network")
    finally:
        for hook in hooks:
            hook.remove()
    once = {n: Call(*found[0], outputs[n]) for n, found in started.items() if len(found) == 1}
    return {name: call for name, call in once.items() if _keeps_shape(call)}


def cloned(value: Any) -> Any:
    """Return a value with copies of its tensors, also inside of tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: cloned(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(cloned(one) for one in value)
    return value


def _keeps_shape(call: Call) -> bool:
    first = call.args[0] if call.args else None
    return (
        isinstance(first, torch.Tensor)
        and isinstance(call.output, torch.Tensor)
        and first.is_floating_point()
        and call.output.shape == first.shape
        and bool(first.any())  # of zeros everything is left that multiplies
    )

"""The layers at a network's two ends: those that see its input, those that give its outputs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.pruning.dependency.tracing import LAYERS
from harness.errors import TaskError
from harness.tasks.objective import as_tuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn


def end_layers(model: nn.Module, example: torch.Tensor) -> frozenset[str]:
    """Return the convolution and linear layers with no other before, or no other after them.

    Told by autograd's graph of one run. The layer that runs last counts in any case, since the
    graph doesn't reach an output that has no gradient.

    Args:
        model: The network; left as it is.
        example: One sample, `[1, ...]`.

    Raises:
        TaskError: If the network can't be run.
    """
    twin = copy.deepcopy(model).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    inputs: list[tuple[str, Any]] = []
    outputs: dict[Any, str] = {}

    def watch(name: str, layer: nn.Module) -> None:
        def note(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            inputs.append((name, args[0].grad_fn if args else None))
            own = output.clone()  # changed in place, a view would be off the graph
            outputs[own.grad_fn] = name
            return own

        layer.register_forward_hook(note)

    for name, layer in twin.named_modules():
        if isinstance(layer, LAYERS):
            watch(name, layer)
    try:
        with torch.enable_grad():
            found = as_tuple(twin(example.clone()))
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(f"The network doesn't run: {type(exc).__name__}: {exc}") from exc
    first = {name for name, node in inputs if not _reached([node], outputs)}
    last = _reached([getattr(one, "grad_fn", None) for one in found], outputs)
    return frozenset(first | last | {name for name, _ in inputs[-1:]})


def _reached(nodes: Iterable[Any], outputs: Mapping[Any, str]) -> set[str]:
    """Return the layers whose outputs these nodes depend on, with no other layer between."""
    waiting = [node for node in nodes if node is not None]
    seen: set[Any] = set()
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node in outputs:
            found.add(outputs[node])
        elif node not in seen:
            seen.add(node)
            waiting.extend(after for after, _ in node.next_functions if after is not None)
    return found

"""Zero-padded shortcuts that are written in a module's forward, found and replaced by torch.fx.

Only the module that pads is traced, with its submodules as they are, so that nothing else of a
network changes. Its place is taken by a `torch.fx.GraphModule` with the same submodules under the
same names.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from harness.compression.rewriting.replacing import has_hooks
from harness.compression.rewriting.selection import Selection, find_selection
from harness.compression.running import calls_of, in_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

_PADS: dict[Any, str] = {nn.functional.pad: "pad", torch.cat: "cat", torch.concat: "cat"}
_ZEROS = (torch.zeros, torch.zeros_like, "new_zeros")
_NEAR = 8
"""How many tensors before a pad are looked at for what it selects from."""
NAME = "padded_shortcut"
"""Of the convolution in the traced module; numbered from the second on."""


@dataclass(frozen=True, slots=True)
class Inline:
    """Where in a forward a shortcut is written, by the names of nodes in its traced graph.

    Attributes:
        source: What it selects from.
        pad: What it is.
    """

    source: str
    pad: str


def traced_pads(
    model: nn.Module, name: str, example: torch.Tensor
) -> tuple[list[tuple[Inline, Selection]], str]:
    """Return the padded selections in a module's forward, and why there are none; empty if some.

    Args:
        model: The network, in evaluation mode.
        name: Of the module.
        example: One sample, `[1, ...]`.
    """
    module = model.get_submodule(name)
    calls = calls_of(model, example)[name]
    if len(calls) > 1 or has_hooks(module):
        return [], "the module is called more than once, or has hooks"
    if calls[0].kwargs or not all(isinstance(x, torch.Tensor) for x in calls[0].args):
        return [], "the module takes more than tensors"
    module = copy.deepcopy(module)
    try:
        graphs = []
        for training in (True, False):
            with in_mode(module, training):
                graphs.append(_trace(copy.deepcopy(module)))
        if len({graph.python_code("self").src for graph in graphs}) > 1:
            return [], "its forward is another in training"
        values = _values(module, graphs[-1], calls[0].args)
    except Exception as exc:  # the network's own code raises what it likes
        text = str(exc).strip().partition("\n")[0]
        return [], f"torch.fx can't trace its forward ({type(exc).__name__}: {text})"
    found = [one for node in graphs[-1].nodes if (one := _selected(node, values)) is not None]
    return found, "" if found else "they are no selection of single pixels"


def rewritten_inline(module: nn.Module, layers: Mapping[Inline, nn.Module]) -> nn.Module:
    """Return a module that computes the same as this one, with layers in the place of padding.

    Args:
        module: What is traced; its submodules become the new module's.
        layers: What comes in the place of each.
    """
    graph = _trace(module)
    nodes = {node.name: node for node in graph.nodes}
    for number, (inline, layer) in enumerate(layers.items()):
        name = f"{NAME}_{number}" if number else NAME
        while hasattr(module, name):
            name += "_"
        module.add_module(name, layer)
        pad = nodes[inline.pad]
        with graph.inserting_before(pad):
            new = graph.call_module(name, (nodes[inline.source],))
        pad.replace_all_uses_with(new)
        _erase(graph, pad, nodes[inline.source])
    made = fx.GraphModule(module, graph, type(module).__name__)
    made.training = module.training
    return made


class _OneModule(fx.Tracer):
    """Traces a module's own forward; submodules stay calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _trace(module: nn.Module) -> fx.Graph:
    return _OneModule().trace(module)


def _values(module: nn.Module, graph: fx.Graph, args: tuple[Any, ...]) -> dict[fx.Node, Any]:
    """Return what every node of a graph is in one run."""
    run = fx.Interpreter(module, garbage_collect_values=False, graph=graph)
    with torch.no_grad():
        run.run(*args)
    return run.env


def _is_image(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 4


def _selected(pad: fx.Node, values: Mapping[fx.Node, Any]) -> tuple[Inline, Selection] | None:
    """Return from what a node selects pixels, if it does, and which."""
    if pad.op != "call_function" or pad.target not in _PADS or not _is_image(values[pad]):
        return None
    near = [node for node in pad.all_input_nodes if _is_image(values[node])]
    for source in near:
        region = _between(source, pad, values)
        if region is not None:
            source = _before_strides(source, values)
            region = _between(source, pad, values)
            break
        if len(near) < _NEAR:
            near += [n for n in source.all_input_nodes if _is_image(values[n]) and n not in near]
    else:
        return None
    assert region is not None
    chosen = region

    def function(x: torch.Tensor) -> Any:
        env = {**values, source: x}
        for node in chosen:
            env[node] = _computed(node, env)
        return env[pad]

    selection = find_selection(function, values[source].shape)
    return None if selection is None else (Inline(source.name, pad.name), selection)


def _between(source: fx.Node, pad: fx.Node, values: Mapping[fx.Node, Any]) -> list[fx.Node] | None:
    """Return the functions from a tensor to a pad, in order; None if another tensor enters."""
    needed: set[fx.Node] = set()
    waiting = [pad]
    while waiting:
        node = waiting.pop()
        if node is source or node in needed or not isinstance(values[node], torch.Tensor):
            continue  # sizes and the like are taken as they were
        if node.op not in ("call_function", "call_method"):
            return None
        needed.add(node)
        waiting += [] if node.target in _ZEROS else node.all_input_nodes
    return [node for node in pad.graph.nodes if node in needed]


def _before_strides(source: fx.Node, values: Mapping[fx.Node, Any]) -> fx.Node:
    """Return the tensor before slices and pools: a shortcut is judged with them."""
    while source.op in ("call_function", "call_method"):
        before = [node for node in source.all_input_nodes if _is_image(values[node])]
        if len(before) != 1 or _pixels(values[before[0]]) <= _pixels(values[source]):
            break
        source = before[0]
    return source


def _pixels(image: torch.Tensor) -> int:
    return image.shape[2] * image.shape[3]


def _computed(node: fx.Node, env: Mapping[fx.Node, Any]) -> Any:
    args = fx.node.map_arg(node.args, lambda n: env[n])
    kwargs = fx.node.map_arg(node.kwargs, lambda n: env[n])
    if node.op == "call_method":
        assert isinstance(node.target, str)
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _erase(graph: fx.Graph, pad: fx.Node, source: fx.Node) -> None:
    """Remove a pad, and what was computed for it alone."""
    waiting, kept = [pad], {source}
    while waiting:
        node = waiting.pop()
        if node in kept or node.users or node.op not in ("call_function", "call_method"):
            continue
        waiting += node.all_input_nodes
        graph.erase_node(node)
        kept.add(node)  # two nodes may have taken it: it is erased once

"""The prunable groups of a network: which layers lose a channel together.

torch-pruning's dependency graph finds the couplings (Fang et al., 2023, "DepGraph: towards any
structural pruning"); counts, names and arithmetic are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp
from torch import nn

from harness.errors import TaskError
from harness.export import layer_macs

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOTS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that can only go together.

    Attributes:
        name: Module name of the layer whose output channels are pruned.
        width: Its channels in the dense model.
        layers: Names of all layers that shrink, the root first.
    """

    name: str
    width: int
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or linear layer and the groups that set its size.

    Attributes:
        name: Module name.
        macs: Multiply-accumulates in the dense model, for one sample.
        params: Weights in the dense model.
        out_group, in_group: The groups of its output and input channels; None where fixed.
    """

    name: str
    macs: int
    params: int
    out_group: str | None
    in_group: str | None


@dataclass(frozen=True, slots=True)
class PruningGraph:
    """All prunable groups of a network, and the layers whose cost they set."""

    groups: tuple[Group, ...]
    layers: tuple[Layer, ...]

    def dense_widths(self) -> dict[str, int]:
        """Return every group's channels in the dense model."""
        return {group.name: group.width for group in self.groups}

    def macs(self, widths: Mapping[str, int]) -> dict[str, float]:
        """Return multiply-accumulates per layer for one sample at the given widths."""
        shares = self._shares(widths)
        return {layer.name: layer.macs * shares[layer.name] for layer in self.layers}

    def params(self, widths: Mapping[str, int]) -> float:
        """Return the weights of all convolution and linear layers at the given widths."""
        shares = self._shares(widths)
        return sum(layer.params * shares[layer.name] for layer in self.layers)

    def _shares(self, widths: Mapping[str, int]) -> dict[str, float]:
        """Return which part of each layer's weights stays."""
        kept: dict[str | None, float] = {None: 1.0}
        kept.update({g.name: widths.get(g.name, g.width) / g.width for g in self.groups})
        return {x.name: kept[x.out_group] * kept[x.in_group] for x in self.layers}


def dependency_graph(model: nn.Module, example: torch.Tensor) -> Any:
    """Return torch-pruning's dependency graph of `model`.

    Raises:
        TaskError: If the network can't be traced.
    """
    try:
        # Tracing follows gradients, so it needs them on whatever the caller does.
        with torch.enable_grad():
            return tp.DependencyGraph().build_dependency(model.eval(), example)
    except Exception as exc:  # the tracer raises what the network's own code raises
        raise TaskError(f"The network's channels can't be traced for pruning: {exc}") from exc


def pruning_graph(model: nn.Module, example: torch.Tensor) -> PruningGraph:
    """Return the prunable groups of `model`; the outputs of the last layers are kept whole.

    Args:
        model: The dense network.
        example: One sample, `[1, ...]`.

    Raises:
        TaskError: If the network can't be traced, or has nothing to prune.
    """
    graph = dependency_graph(model, example)
    names = {module: name for name, module in model.named_modules()}
    order = {name: i for i, name in enumerate(names.values())}
    groups: list[Group] = []
    out_of: dict[str, str] = {}
    in_of: dict[str, str] = {}
    for members in graph.get_all_groups(
        ignored_layers=_heads(model, example), root_module_types=_ROOTS
    ):
        layers: dict[str, int] = {}
        outs: list[str] = []
        ins: list[str] = []
        for dependency, indices in members:
            name = names.get(dependency.target.module)
            if name is None:
                continue
            layers[name] = len(indices)
            if isinstance(dependency.target.module, _ROOTS):
                is_out = graph.is_out_channel_pruning_fn(dependency.handler)
                (outs if is_out else ins).append(name)
        root = min(outs, key=order.__getitem__)  # the earliest layer names the group
        width = _out_channels(model.get_submodule(root))
        rest = sorted(layers.keys() - {root}, key=order.__getitem__)
        groups.append(Group(root, width, (root, *rest)))
        out_of.update(dict.fromkeys(outs, root))
        in_of.update(dict.fromkeys(ins, root))
    if not groups:
        raise TaskError("The network has no channels that can be pruned.")
    groups.sort(key=lambda group: order[group.name])
    macs = layer_macs(model.eval(), example)
    return PruningGraph(
        tuple(groups),
        tuple(
            Layer(name, n, _weights(model, name), out_of.get(name), in_of.get(name))
            for name, n in macs.items()
        ),
    )


def group_members(graph: Any, model: nn.Module, name: str, indices: list[int]) -> Any:
    """Return torch-pruning's group that removes channels `indices` of group `name`."""
    layer = model.get_submodule(name)
    prune = graph.get_pruner_of_module(layer).prune_out_channels
    return graph.get_pruning_group(layer, prune, idxs=indices)


def _out_channels(layer: nn.Module) -> int:
    return int(layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features)  # type: ignore[arg-type]


def _weights(model: nn.Module, name: str) -> int:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    return weight.numel()


def _heads(model: nn.Module, example: torch.Tensor) -> list[nn.Module]:
    """Return the layer whose output is the network's own: its channels are the classes."""
    ran: list[tuple[nn.Module, torch.Tensor]] = []  # holds the tensors, so identities stay theirs
    hooks = [
        module.register_forward_hook(lambda m, _, out: ran.append((m, out)))
        for module in model.modules()
        if isinstance(module, _ROOTS)
    ]
    try:
        with torch.no_grad():
            result = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise TaskError("The network has no convolution or linear layer to prune.")
    # The output may have gone through a softmax or the like: then the last layer that ran.
    return [next((module for module, out in ran if out is result), ran[-1][0])]

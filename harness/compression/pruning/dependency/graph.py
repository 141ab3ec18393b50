"""The prunable groups of a network: which layers lose a channel together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.compression.pruning.dependency.calls import is_recurrent
from harness.compression.pruning.dependency.costs import make_layers
from harness.compression.pruning.dependency.grouping import find_groups, settle, tied
from harness.compression.pruning.dependency.parts import (
    Group,
    Layer,
    Part,
    PruningGraph,
    Unprunable,
)
from harness.compression.pruning.dependency.tracing import LAYERS, Tracer
from harness.compression.pruning.dependency.verify import Verifier
from harness.errors import TaskError
from harness.export import layer_macs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import nn

    from harness.compression.pruning.dependency.channels import Channels

__all__ = ["Group", "Layer", "Part", "PruningGraph", "Unprunable", "pruning_graph"]

_SHOWN = 5
"""Layers left whole that an error names."""


def pruning_graph(model: nn.Module, example: torch.Tensor) -> PruningGraph:
    """Return the prunable groups of `model`; its outputs are kept whole.

    Every group returned has been pruned in a copy and found right (see `verify`); what can't be
    pruned is in `unprunable`, with its reason.

    Args:
        model: The dense network; left as it is, in evaluation mode.
        example: One sample, `[1, ...]`.

    Raises:
        TaskError: If the network can't be run, or has nothing to prune.
    """
    model.eval()
    tracer = Tracer(model)
    try:
        tracer.run(example)
        macs = layer_macs(model, example)
        verifier = Verifier(model, example)
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(f"The network's channels can't be traced for pruning: {exc}") from exc
    if not macs:
        raise TaskError("The network has no convolution or linear layer to prune.")
    in_proportion = tracer.channels.in_proportion()
    graph = _judged(tracer, tracer.channels, model, macs, verifier)
    if graph.unprunable and in_proportion.slices:
        tied = _judged(tracer, in_proportion, model, macs, verifier)
        graph = max(graph, tied, key=_prunable_weights)
    recurrent = (Unprunable(name, is_recurrent(name)) for name in tracer.recurrent)
    graph = replace(graph, unprunable=(*graph.unprunable, *recurrent))
    if not graph.groups:
        raise TaskError(
            "The network has no channels that can be pruned: all belong to its outputs or stay "
            f"whole.{_named(graph.unprunable)}"
        )
    return graph


def _named(whole: Sequence[Unprunable]) -> str:
    """Return the first layers left whole with their reasons, as a sentence; empty for none."""
    if not whole:
        return ""
    more = f"; and {len(whole) - _SHOWN} more" if len(whole) > _SHOWN else ""
    listed = "; ".join(f"{one.name}: {one.reason}" for one in whole[:_SHOWN])
    return f" Left whole: {listed}{more}."


def _judged(
    tracer: Tracer,
    channels: Channels,
    model: nn.Module,
    macs: dict[str, int],
    verifier: Verifier,
) -> PruningGraph:
    """Return the groups that can be pruned, possibly none, and what can't be."""
    settle(channels)
    groups, whole = find_groups(channels, model, macs)
    whole += _whole(channels, model, macs)

    def make(chosen: Sequence[Group]) -> PruningGraph:
        layers = make_layers(chosen, model, macs, tracer.rows, channels)
        return PruningGraph(tuple(chosen), layers)

    kept, faulty = _verified(groups, make, verifier) if groups else ([], [])
    return replace(make(kept), unprunable=(*whole, *faulty))


def _prunable_weights(graph: PruningGraph) -> float:
    return sum(layer.params * sum(part.share for part in layer.outs) for layer in graph.layers)


def _whole(channels: Channels, model: nn.Module, macs: dict[str, int]) -> list[Unprunable]:
    """Return the layers whose output channels all stay, for another reason than being outputs."""
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    found = []
    for name in macs:
        layer = model.get_submodule(name)
        assert isinstance(layer, LAYERS)
        dim = int(bool(getattr(layer, "transposed", False)))
        slot = channels.slots.get((names.get(id(layer.weight), ""), dim, 1))
        if slot is None:
            continue
        reasons = [channels.why_fixed(label) for label in slot.labels.tolist()]
        if all(reason is not None for reason in reasons) and any(reasons):
            found.append(Unprunable(name, next(reason for reason in reasons if reason)))
    return found


def _verified(
    groups: Sequence[Group],
    make: Callable[[Sequence[Group]], PruningGraph],
    verifier: Verifier,
) -> tuple[list[Group], list[Unprunable]]:
    """Return the groups that can be pruned together, and the others with what went wrong."""
    kept: list[Group] = []
    faulty: list[Unprunable] = []

    def add(some: Sequence[Group]) -> None:
        """Keep all of them where nothing is wrong, else one half after the other."""
        reason = verifier.fault(make([*kept, *some]))
        if reason is not None and len(some) > 1:
            middle = len(some) // 2
            add(some[:middle])
            add(some[middle:])
            return
        if reason is not None and some[0].blocks > 1:
            some = [tied(some[0])]  # blocks whose channels lie at the same places
            reason = verifier.fault(make([*kept, *some])) and reason
        if reason is None:
            kept.extend(some)
        else:
            faulty.append(Unprunable(some[0].name, reason))

    add(groups)
    return kept, faulty

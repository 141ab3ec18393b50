"""The criterion that reads activations: how loud a channel is on training samples."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.pruning.dependency.costs import IN, OUT, side_of
from harness.compression.pruning.dependency.parts import module_of
from harness.compression.pruning.dependency.tracing import LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from harness.compression.pruning.dependency.graph import Group, PruningGraph


@dataclass(frozen=True, slots=True)
class _Reading:
    """A side of a layer where a group's channels arrive or leave.

    Attributes:
        layer: Its name.
        side: `IN` or `OUT`.
        entries: int64 `[width, n]`: which of the layer's channels each channel is.
    """

    layer: str
    side: int
    entries: NDArray[np.int64]


def mean_activations(
    model: nn.Module, graph: PruningGraph, batches: Iterable[tuple[torch.Tensor, Any]]
) -> dict[str, torch.Tensor]:
    """Return the mean absolute activation of every channel, float `[width]` per group.

    Molchanov et al. (2017), "Pruning convolutional neural networks for resource efficient
    inference", section 2.2. It is read where the channels arrive: at the layers that they go into,
    behind norms, activation functions and residual sums, whatever these are made of. Behind a
    batch norm, but before a rectifier, channels that are mostly negative are loud and yet say
    nothing. The share of samples on which a channel isn't zero (Hu et al., 2016, "APoZ") is read
    at the same place, but takes a channel of hardly any scale for as good as a loud one, and where
    nothing rectifies it tells no channels apart.

    Groups that go into no layer are read where they leave their own: queries and keys of
    attention, or what is multiplied by a matrix without a layer around it.

    Args:
        model: The network, in evaluation mode; left as it is.
        graph: Its prunable groups.
        batches: Samples and their targets.

    Returns:
        The mean over all layers of a group. Groups none of whose layers ran are left out.
    """
    where = {group.name: _readings(model, group) for group in graph.groups}
    heard = _Loudness()
    hooks = [
        heard.listen(model.get_submodule(layer), layer, side)
        for layer, side in {(one.layer, one.side): None for some in where.values() for one in some}
    ]
    try:
        with torch.inference_mode():
            for inputs, _ in batches:
                model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    found = {
        name: [
            mean[torch.from_numpy(one.entries)].sum(1)
            for one in some
            if (mean := heard.mean(one.layer, one.side)) is not None
        ]
        for name, some in where.items()
    }
    return {name: torch.stack(some).mean(0) for name, some in found.items() if some}


def _readings(model: nn.Module, group: Group) -> list[_Reading]:
    """Return where a group's channels go into layers; where they leave some if there are none."""
    sides: tuple[list[_Reading], list[_Reading]] = ([], [])
    for member in group.members:
        name = module_of(member.name)
        layer = model.get_submodule(name)
        if isinstance(layer, LAYERS) and member.name.endswith("weight"):
            side = side_of(layer, member)
            sides[side].append(_Reading(name, side, member.entries))
    return sides[IN] or sides[OUT]


class _Loudness:
    """Sums up what goes into layers or comes out of them."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], torch.Tensor] = {}
        self._counts: dict[tuple[str, int], int] = defaultdict(int)

    def listen(self, layer: nn.Module, name: str, side: int) -> Any:
        """Hook a layer; return what removes the hook.

        It reads at once, as what comes next may change the tensor in place.
        """
        dim = -1 - len(getattr(layer, "kernel_size", ()))

        def read(tensor: torch.Tensor) -> None:
            by_channel = tensor.float().abs().movedim(dim, 0).flatten(1)
            self._sums[name, side] = self._sums.get((name, side), 0) + by_channel.sum(1)
            self._counts[name, side] += by_channel.shape[1]

        def arriving(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read(args[0] if args else kwargs["input"])

        if side == IN:
            return layer.register_forward_pre_hook(arriving, with_kwargs=True)
        return layer.register_forward_hook(lambda module, inputs, output: read(output))

    def mean(self, name: str, side: int) -> torch.Tensor | None:
        """Return the mean absolute value per channel, float `[C]`; None if the layer never ran."""
        sums = self._sums.get((name, side))
        return None if sums is None else sums / self._counts[name, side]

"""What a graph of prunable channels is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """Entries of one parameter or buffer that go with a group's channels.

    Attributes:
        name: Of the parameter or buffer.
        dim: The dimension that is cut.
        groups: Of a grouped convolution whose input channels these are; else 1. Its weight holds
            the entries of one group after the other's in the same places.
        entries: int64 `[width, n]`: which entries go with each channel.
    """

    name: str
    dim: int
    groups: int
    entries: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that can only go together.

    Attributes:
        name: Module name of the layer whose output channels are pruned; a parameter's name where
            the network itself holds it.
        width: Its channels in the dense model.
        layers: Names of all modules and such parameters that shrink, that layer first.
        blocks: Equal parts, one after the other, in each of which equally many channels must be
            kept: heads of attention, groups of a grouped convolution or of a group norm.
        members: Of which parameters the channels consist.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    blocks: int = 1
    members: tuple[Member, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Part:
    """A group's part of a layer's channels.

    Attributes:
        group: Its name.
        share: Which part of the layer's channels are of this group, above 0 and at most 1.
    """

    group: str
    share: float


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or linear layer and the groups that set its size.

    Attributes:
        name: Module name.
        macs: Multiply-accumulates in the dense model, for one sample.
        params: Weights in the dense model.
        outs, ins: The groups of its output and input channels; empty where they are fixed. A
            depthwise convolution's are counted once, as `outs`.
        rows: The groups of its other dimensions: of what it is applied to, one by one.
    """

    name: str
    macs: int
    params: int
    outs: tuple[Part, ...] = ()
    ins: tuple[Part, ...] = ()
    rows: tuple[Part, ...] = ()

    def weights_kept(self, kept: Mapping[str, float]) -> float:
        """Return which part of the weights stays, by the part of each group that stays."""
        return _kept(self.outs, kept) * _kept(self.ins, kept)

    def macs_kept(self, kept: Mapping[str, float]) -> float:
        """Return which part of the multiply-accumulates stays."""
        return self.weights_kept(kept) * _kept(self.rows, kept)


def _kept(parts: tuple[Part, ...], kept: Mapping[str, float]) -> float:
    return 1.0 - sum(part.share * (1.0 - kept[part.group]) for part in parts)


@dataclass(frozen=True, slots=True)
class Unprunable:
    """A layer whose channels stay whole.

    Attributes:
        name: Module name, or a parameter's that is used without a layer.
        reason: Why, for people.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class PruningGraph:
    """All prunable groups of a network, and the layers whose cost they set."""

    groups: tuple[Group, ...]
    layers: tuple[Layer, ...]
    unprunable: tuple[Unprunable, ...] = ()

    def dense_widths(self) -> dict[str, int]:
        """Return every group's channels in the dense model."""
        return {group.name: group.width for group in self.groups}

    def macs(self, widths: Mapping[str, int]) -> dict[str, float]:
        """Return multiply-accumulates per layer for one sample at the given widths."""
        kept = self._kept(widths)
        return {layer.name: layer.macs * layer.macs_kept(kept) for layer in self.layers}

    def params(self, widths: Mapping[str, int]) -> float:
        """Return the weights of all convolution and linear layers at the given widths."""
        kept = self._kept(widths)
        return sum(layer.params * layer.weights_kept(kept) for layer in self.layers)

    def _kept(self, widths: Mapping[str, int]) -> dict[str, float]:
        return {g.name: widths.get(g.name, g.width) / g.width for g in self.groups}


Widths = dict[str, int]
History = dict[str, list[int]]
"""What was removed: per group, the dense model's channel numbers, ascending."""


def module_of(parameter: str) -> str:
    """Return the module that holds a parameter."""
    return parameter.rpartition(".")[0]


def attribute(model: Any, name: str) -> Any:
    """Return a parameter or buffer by its name."""
    for part in name.split("."):
        model = getattr(model, part)
    return model

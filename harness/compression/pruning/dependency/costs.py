"""What layers cost, and which groups set it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import torch

from harness.compression.pruning.dependency.channels import Slot, compact, varying
from harness.compression.pruning.dependency.parts import Layer, Member, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from harness.compression.pruning.dependency.channels import Channels, Labels
    from harness.compression.pruning.dependency.parts import Group

OUT, IN = 0, 1
"""Sides of a layer."""


def side_of(module: nn.Module, slot: Slot | Member) -> int:
    """Return whether a dimension of a layer's parameter is its outputs (0) or its inputs (1)."""
    if not slot.name.endswith("weight"):
        return OUT
    return int(slot.dim == (0 if getattr(module, "transposed", False) else 1))


def make_layers(
    groups: Iterable[Group],
    model: nn.Module,
    macs: Mapping[str, int],
    rows: Mapping[str, Labels],
    channels: Channels,
) -> tuple[Layer, ...]:
    """Return the layers that ran, with the groups that set their size."""
    names = {id(p): n for n, p in model.named_parameters()}
    roots = channels.roots()
    owners: dict[int, str] = {}
    members: dict[str, list[tuple[str, Member]]] = defaultdict(list)
    for group in groups:
        for member in group.members:
            members[member.name].append((group.name, member))
        first = group.members[0]
        start = channels.slots[first.name, first.dim, first.groups].first
        owners |= dict.fromkeys(roots[start + first.entries.reshape(-1)].tolist(), group.name)
    found = []
    for name, count in macs.items():
        module = model.get_submodule(name)
        sides: tuple[list[Part], list[Part]] = ([], [])
        for owner, member in members[names.get(id(module.weight), "")]:
            size = channels.slots[member.name, member.dim, member.groups].size
            sides[side_of(module, member)].append(Part(owner, member.entries.size / size))
        beside = _rows(module, rows.get(name, ()), roots, owners)
        n = _weight(module).numel()
        found.append(Layer(name, count, n, tuple(sides[OUT]), tuple(sides[IN]), beside))
    return tuple(found)


def _weight(module: nn.Module) -> torch.Tensor:
    assert isinstance(module.weight, torch.Tensor)
    return module.weight


def _rows(
    module: nn.Module, layers: Labels, roots: NDArray[np.int64], owners: Mapping[int, str]
) -> tuple[Part, ...]:
    """Return the groups of a layer's input along dimensions other than its channels."""
    found: list[Part] = []
    for layer in layers:
        own = 1 if hasattr(module, "kernel_size") else layer.dim() - 1
        if own in varying(layer):
            continue
        flat = roots[compact(layer).numpy()].tolist()
        counts = Counter(owners[root] for root in flat if root in owners)
        found += [Part(owner, count / len(flat)) for owner, count in counts.items()]
    return tuple(dict.fromkeys(found))

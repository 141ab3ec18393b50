"""From labels to groups: classes that lie in the same places are the channels of one group."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from harness.compression.pruning.dependency.costs import OUT, side_of
from harness.compression.pruning.dependency.parts import (
    Group,
    Member,
    Unprunable,
    attribute,
    module_of,
)
from harness.compression.pruning.dependency.tracing import LAYERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from harness.compression.pruning.dependency.channels import Channels, Slot


def settle(channels: Channels) -> None:
    """Make every demand for equal parts one that a single group can meet.

    Parts that mix several groups, or whose channels stay in part, can't keep equally many by a
    rule about one group: their channels are joined place by place, or all stay.
    """
    for labels, parts in channels.equal_parts:
        reasons = [channels.why_fixed(label) for label in labels.tolist()]
        if any(reason is not None for reason in reasons):
            why = next((reason for reason in reasons if reason), "")
            channels.fix((labels,), why or "is kept as large as a part that stays whole")
        elif len(labels) % parts == 0 and len(set(channels.kinds()[labels.numpy()])) > 1:
            shaped = labels.view(parts, -1)
            channels.join(shaped, shaped[:1])


def find_groups(
    channels: Channels, model: nn.Module, ran: Collection[str]
) -> tuple[list[Group], list[Unprunable]]:
    """Return the groups of all channels that need not stay, in the network's order.

    Args:
        channels: What tracing found, settled.
        model: The network.
        ran: Names of the convolution and linear layers that ran; groups without any are left whole.
    """
    modules = {name: i for i, (name, _) in enumerate(model.named_modules())}
    order = {_holder(slot): modules[module_of(slot.name)] for slot in channels.slots.values()}
    roots, kinds = channels.roots(), channels.kinds()
    by_kind: dict[int, list[Slot]] = defaultdict(list)
    for slot in channels.slots.values():
        labels = slot.labels.numpy()
        for kind in dict.fromkeys(kinds[labels].tolist()):
            first = int(labels[kinds[labels] == kind][0])
            if channels.why_fixed(first) is None:
                by_kind[kind].append(slot)
    found: list[Group] = []
    whole: list[Unprunable] = []
    for kind, slots in by_kind.items():
        made = _group(channels, model, order, roots, kinds == kind, slots, ran)
        if isinstance(made, Group):
            found.append(made)
        elif made is not None:
            whole.append(made)
    found.sort(key=lambda group: order[group.name])
    return _unique(found), whole


def _group(
    channels: Channels,
    model: nn.Module,
    order: Mapping[str, int],
    roots: NDArray[np.int64],
    mine: NDArray[np.bool_],
    slots: Sequence[Slot],
    ran: Collection[str],
) -> Group | Unprunable | None:
    names = dict.fromkeys(sorted((_holder(s) for s in slots), key=order.__getitem__))
    if not names.keys() & set(ran):
        return _without_layers(model, slots)
    leading = min(slots, key=lambda s: (_side(model, s), order[_holder(s)]))
    name = _holder(leading)
    classes = _in_order(roots, mine, leading)
    blocks = _blocks(channels, roots, classes)
    if blocks is None or len(classes) <= blocks.max() + 1:
        reason = "its channels can only go all together"
        return Unprunable(name, reason) if len(classes) > 1 or leading.size > 1 else None
    classes = classes[np.argsort(blocks, kind="stable")]
    place = _places(roots, classes)
    members = tuple(_member(slot, roots, place) for slot in slots)
    rest = [other for other in names if other != name]
    return Group(name, len(classes), (name, *rest), int(blocks.max()) + 1, members)


def _holder(slot: Slot) -> str:
    """Return whose channels these are: the module's, or the network's own parameter's."""
    return module_of(slot.name) or slot.name


def _without_layers(model: nn.Module, slots: Sequence[Slot]) -> Unprunable | None:
    """Return the matrix that a skipped group's channels are of; None where nothing uses them.

    Channels that are used are made by one parameter and read by another. Layers among these can't
    have run, or the group would not be skipped.
    """
    for slot in slots if len(slots) > 1 else ():
        module = model.get_submodule(module_of(slot.name))
        if attribute(model, slot.name).dim() > 1 and not isinstance(module, LAYERS):
            return Unprunable(slot.name, "its channels go through no convolution or linear layer")
    return None


def _side(model: nn.Module, slot: Slot) -> tuple[bool, bool]:
    """Return what sorts a layer's outputs first, then any other parameter, then inputs."""
    module = model.get_submodule(module_of(slot.name))
    is_layer = isinstance(module, LAYERS)
    return not (is_layer and side_of(module, slot) == OUT), is_layer


def _in_order(roots: NDArray[np.int64], mine: NDArray[np.bool_], slot: Slot) -> NDArray[np.int64]:
    labels = slot.labels.numpy()
    return np.array(list(dict.fromkeys(roots[labels[mine[labels]]].tolist())), np.int64)


def _blocks(
    channels: Channels, roots: NDArray[np.int64], classes: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Return each channel's block; None where blocks are not equally large."""
    place = _places(roots, classes)
    seen: list[dict[tuple[int, int], None]] = [{} for _ in classes]
    for demand, (labels, parts) in enumerate(channels.equal_parts):
        which = place[roots[labels.numpy()]]
        if len(which) % parts or (which < 0).all():
            continue
        part = np.arange(len(which)) // (len(which) // parts)
        for channel, number in zip(which.tolist(), part.tolist(), strict=True):
            if channel >= 0:
                seen[channel][demand, number] = None
    numbers: dict[tuple[tuple[int, int], ...], int] = {}
    found = [numbers.setdefault(tuple(one), len(numbers)) for one in seen]
    blocks = np.array(found, np.int64)
    return blocks if len(set(np.bincount(blocks))) == 1 else None


def _places(roots: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every label, taken as a representative, which channel it is; -1 for none."""
    place = np.full(len(roots), -1, np.int64)
    place[classes] = np.arange(len(classes))
    return place


def _member(slot: Slot, roots: NDArray[np.int64], place: NDArray[np.int64]) -> Member:
    channel = place[roots[slot.first : slot.first + slot.size]]
    entries = np.flatnonzero(channel >= 0)
    in_order = entries[np.argsort(channel[entries], kind="stable")]
    return Member(slot.name, slot.dim, slot.groups, in_order.reshape(place.max() + 1, -1))


def _unique(groups: Sequence[Group]) -> list[Group]:
    """Number groups of one layer: a split may part its channels."""
    seen: dict[str, int] = defaultdict(int)
    named = []
    for group in groups:
        seen[group.name] += 1
        n = seen[group.name]
        name = group.name if n == 1 else f"{group.name}#{n}"
        named.append(Group(name, group.width, group.layers, group.blocks, group.members))
    return named


def tied(group: Group) -> Group:
    """Return a group whose channels go at the same place of all its blocks."""

    def joined(entries: NDArray[np.int64]) -> NDArray[np.int64]:
        width, n = entries.shape
        by_block = entries.reshape(group.blocks, width // group.blocks, n)
        return by_block.transpose(1, 0, 2).reshape(width // group.blocks, -1)

    members = tuple(Member(m.name, m.dim, m.groups, joined(m.entries)) for m in group.members)
    return Group(group.name, group.width // group.blocks, group.layers, 1, members)

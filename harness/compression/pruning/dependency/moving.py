"""Rules of operations that only move elements: labels move as they do."""

from __future__ import annotations

from itertools import accumulate
from math import gcd
from operator import mul
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.pruning.dependency.channels import (
    Channels,
    Labels,
    compact,
    compressed,
    varying,
)
from harness.compression.pruning.dependency.combining import agree, all_but

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.compression.pruning.dependency.calls import Call, Operand

VIEWS = ("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy")
"""Operators that read the same elements as another shape."""


def moved(call: Call, out: Any) -> Sequence[Labels]:
    """Move labels as the operation moves elements."""
    outputs = [out] if isinstance(out, torch.Tensor) else list(out)
    found: list[Labels] = [() for _ in outputs]
    viewed = call.name in VIEWS
    for layer in call.labels(call.args[0]):
        if viewed:
            parts = [compressed(layer.reshape(outputs[0].shape))]  # labels have other strides
        else:
            result = call.func(layer, *call.args[1:], **call.kwargs)
            parts = [result] if isinstance(result, torch.Tensor) else list(result)
            parts = [compressed(part) for part in parts]
        call.fix(tuple(part for part in parts if not varying(part)), "is picked out")
        found = [(*f, part) for f, part in zip(found, parts, strict=True)]
        if len(outputs) > 1:
            _keep_split_even(call, layer)
        elif call.name == "slice":
            _remember_slice(call, layer)
        elif viewed and len(varying(layer)) == 1:
            _keep_even(call.channels, parts[0])
    return found


def _keep_even(channels: Channels, labels: torch.Tensor) -> None:
    """Where one dimension was split into several, every part must keep equally many channels."""
    sizes = [labels.shape[dim] for dim in varying(labels)]
    for parts in accumulate(sizes[:-1], mul):
        channels.equal_parts.append((compact(labels), parts))


def _keep_split_even(call: Call, layer: torch.Tensor) -> None:
    """Let equal parts of a split stay equal: the network computes their size from the whole."""
    whole = call.name == "unbind"
    dim = call.arg(1 if whole else 2, "dim", 0) % layer.dim()
    if dim not in varying(layer):
        return
    size = layer.shape[dim]
    step = 1 if whole else call.arg(1, "split_size")
    if isinstance(step, (list, tuple)):
        step = step[0] if len(set(step)) == 1 else size
    if step < size and size % step == 0:
        before = [layer.shape[d] for d in varying(layer) if d < dim]
        count = size // step
        for n in before:
            count *= n
        call.channels.equal_parts.append((compact(layer), count))


def _remember_slice(call: Call, layer: torch.Tensor) -> None:
    """Remember the parts that a slice makes, as large as its limits allow.

    `x[:, : c // 4]` and `x[:, c // 4 :]` make quarters.
    """
    dim = call.arg(1, "dim", 0) % layer.dim()
    if dim not in varying(layer) or call.arg(4, "step", 1) != 1:
        return
    size = layer.shape[dim]
    start, end = (
        min(max(limit + size if limit < 0 else limit, 0), size)
        for limit in (call.arg(2, "start", 0) or 0, call.arg(3, "end", size) or size)
    )
    part = gcd(start, end, size)
    if 0 < part < size:
        count = size // part
        for n in (layer.shape[d] for d in varying(layer) if d < dim):
            count *= n
        call.channels.slices.append((compact(layer), count))


def concatenated(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Lay labels side by side (cat, stack); parts without any stay whole."""
    tensors = call.args[0]
    if call.name == "cat":
        # An empty tensor may be anywhere in torch.cat.
        tensors = [t for t in tensors if t.dim() == outputs[0].dim()]
    along = int(call.arg(1, "dim", 0)) % outputs[0].dim()
    stacked = call.name == "stack"
    shape = outputs[0].shape
    across: list[Operand] = []  # what varies along other dimensions must agree in all parts
    joint: list[torch.Tensor | None] = []
    for tensor in tensors:
        layers = tuple(x.unsqueeze(along) for x in call.labels(tensor)) if stacked else ()
        layers = layers if stacked else call.labels(tensor)
        mine = [x for x in layers if along in varying(x)]
        others = tuple(x.narrow(along, 0, 1) for x in layers if along not in varying(x))
        across.append((torch.Size([*shape[:along], 1, *shape[along + 1 :]]), others))
        joint.append(call.channels.collapse(mine[0], all_but(mine[0], along)) if mine else None)
        for extra in mine[1:]:
            call.channels.join(mine[0], extra)
    kept = tuple(x.expand(shape) for x in agree(call, across, across[0][0]))
    sizes = [1 if stacked else t.shape[along] for t in tensors]
    return [(*kept, *_beside(call, joint, sizes, shape, along))]


def _beside(
    call: Call,
    joint: Sequence[torch.Tensor | None],
    sizes: Sequence[int],
    shape: torch.Size,
    along: int,
) -> Labels:
    """Return labels of parts one after the other; fixed ones for parts that have none."""
    if all(part is None for part in joint):
        return ()
    pieces = []
    for part, size in zip(joint, sizes, strict=True):
        if part is None:
            whole = call.channels.slot(f"(whole {size})", 0, size)
            call.channels.fix((whole.labels,), "")
            flat = whole.labels
        else:
            index = [0] * part.dim()
            flat = part[tuple(slice(None) if d == along else i for d, i in enumerate(index))]
        pieces.append(flat)
    view = [1] * len(shape)
    view[along] = shape[along]
    return (torch.cat(pieces).view(view).expand(shape),)

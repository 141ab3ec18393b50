"""Rules of operations that combine tensors element by element, norms among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.compression.pruning.dependency.channels import Labels, compact, varying

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.compression.pruning.dependency.calls import Call, Operand


def pointwise(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Join the channels of tensors that are combined element by element."""
    operands = [(tensor.shape, call.labels(tensor)) for tensor in call.inputs]
    return [agree(call, operands, out.shape) for out in outputs]


def agree(call: Call, operands: Sequence[Operand], shape: torch.Size) -> Labels:
    """Join labels of operands that are broadcast to `shape`, one after the other."""
    size = [1] * len(shape)
    layers: Labels = ()
    for own_size, own in operands:
        wide = tuple(_spread(layer, shape) for layer in own)
        aligned = [1] * (len(shape) - len(own_size)) + list(own_size)
        layers = _meet(call, (size, layers), (aligned, wide))
        size = [max(one) for one in zip(size, aligned, strict=True)]
    return layers


def _meet(
    call: Call, one: tuple[Sequence[int], Labels], two: tuple[Sequence[int], Labels]
) -> Labels:
    """Join the layers of two operands, given their sizes; fix those that can't follow."""
    (size, layers), (other_size, others) = one, two
    if max(size) == 1 and not layers:
        return others  # the first operand
    for layer in layers:
        for other in others:
            if {*varying(layer)} & {*varying(other)}:
                _join_or_fix(call, (size, layer), (other_size, other))
    kept = tuple(x for x in others if not any({*varying(x)} & {*varying(y)} for y in layers))
    alone = [x for x in layers if not any({*varying(x)} & {*varying(y)} for y in others)]
    for layer, facing in (*((x, other_size) for x in alone), *((x, size) for x in kept)):
        if all(facing[dim] > 1 for dim in varying(layer)):
            call.fix((layer,), "is combined with a constant of its size")
    return (*layers, *kept)


def _join_or_fix(
    call: Call, one: tuple[Sequence[int], torch.Tensor], two: tuple[Sequence[int], torch.Tensor]
) -> None:
    """Join two layers; fix the one that is the same for several channels of the other."""
    (size, layer), (other_size, other) = one, two
    narrow = any(size[dim] == 1 for dim in varying(other))
    other_narrow = any(other_size[dim] == 1 for dim in varying(layer))
    if narrow:
        call.fix((layer,), "is the same for several channels")
    if other_narrow:
        call.fix((other,), "is the same for several channels")
    if not narrow and not other_narrow:
        call.channels.join(layer, other)


def _spread(labels: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return labels[(None,) * (len(shape) - labels.dim())].expand(shape)


def channel_norm(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Join channels (dimension 1) with a norm's scale, shift and running statistics."""
    x = call.args[0]
    operands = [(x.shape, call.labels(x))]
    operands += [
        (as_channels(t.shape, x.shape), as_dim1(call, t, x.shape)) for t in call.inputs[1:]
    ]
    found = agree(call, operands, x.shape)
    if call.name == "native_group_norm":
        for layer in found:
            if 1 in varying(layer):
                flat = compact(call.channels.collapse(layer, all_but(layer, 1)))
                call.channels.equal_parts.append((flat, call.args[6]))
    return [found, *(() for _ in outputs[1:])]


def feature_norm(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Join the last dimensions' channels with a norm's scale and shift."""
    operands = [(tensor.shape, call.labels(tensor)) for tensor in call.inputs]
    return [agree(call, operands, outputs[0].shape), *(() for _ in outputs[1:])]


def as_channels(size: Sequence[int], shape: Sequence[int]) -> torch.Size:
    """Return the shape in which `[C]` faces dimension 1 of a tensor of `shape`."""
    return torch.Size([1, *size, *[1] * (len(shape) - 2)])


def as_dim1(call: Call, tensor: torch.Tensor, shape: Sequence[int]) -> Labels:
    """Return the labels of a tensor `[C]` as they face dimension 1 of a tensor of `shape`."""
    return tuple(x.view(as_channels(x.shape, shape)) for x in call.labels(tensor))


def all_but(labels: torch.Tensor, dim: int) -> list[int]:
    """Return the other dimensions along which labels vary."""
    return [d for d in varying(labels) if d != dim]

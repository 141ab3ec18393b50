"""The rule of convolutions: plain, depthwise, grouped and transposed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compression.pruning.dependency.channels import Labels, compact, varying
from harness.compression.pruning.dependency.combining import agree, all_but, as_channels, as_dim1

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from harness.compression.pruning.dependency.calls import Call


def convolution(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Join input channels with the weight's; the weight's output channels go on."""
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    own = {varying(layer)[0]: layer for layer in call.labels(weight) if varying(layer)}
    call.fix(tuple(one for dim, one in own.items() if dim > 1), "is a kernel's extent")
    arriving = _channels_of(call, x)
    outs, ins = (own.get(1), own.get(0)) if transposed else (own.get(0), own.get(1))
    flat_outs = None if outs is None else compact(outs)
    if groups == 1:
        flat_ins = None if ins is None else compact(ins)
        _pair(call, arriving, flat_ins)
    else:
        flat_outs = _grouped(call, weight, arriving, own, groups, transposed)
    shape = outputs[0].shape
    if flat_outs is None:
        return [()]
    leaving = flat_outs.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)
    beside = [] if bias is None else [(as_channels(bias.shape, shape), as_dim1(call, bias, shape))]
    return [agree(call, [(shape, (leaving,)), *beside], shape)]


def _grouped(
    call: Call,
    weight: torch.Tensor,
    arriving: torch.Tensor | None,
    own: Mapping[int, torch.Tensor],
    groups: int,
    transposed: bool,
) -> torch.Tensor | None:
    """Join what a grouped convolution's channels need; return the labels of its outputs."""
    name = call.names.get(id(weight))
    first = compact(own[0]) if 0 in own else None
    if first is None or name is None or (transposed and len(first) != groups):
        call.fix(tuple(own.values()), "belongs to a grouped convolution")
        if arriving is not None:
            call.fix((arriving,), "goes into a grouped convolution")
        return None
    if weight.shape[1] == 1:  # one input channel per group: each goes with its own outputs
        repeats = len(first) if arriving is None else len(first) // len(arriving)
        _pair(call, None if arriving is None else arriving.repeat_interleave(repeats), first)
        return first
    call.fix((own[1],), "")  # cut by the slot below
    size = weight.shape[1] * groups
    slot = call.channels.slot(name, 1, size, groups)
    _pair(call, arriving, slot.labels)
    call.channels.equal_parts.append((slot.labels, groups))
    call.channels.equal_parts.append((first, groups))
    return first


def _pair(call: Call, arriving: torch.Tensor | None, own: torch.Tensor | None) -> None:
    if arriving is not None and own is not None:
        call.channels.join(arriving, own)
    elif arriving is not None:
        call.fix((arriving,), "goes into a weight whose size is fixed")
    elif own is not None:
        call.channels.fix((own,), "")  # the network's own input


def _channels_of(call: Call, x: torch.Tensor) -> torch.Tensor | None:
    """Return the labels `[C]` of dimension 1; what varies otherwise is joined or stays."""
    found: torch.Tensor | None = None
    for layer in call.labels(x):
        if 1 not in varying(layer):
            call.fix((layer,), "is convolved over")
            continue
        flat = compact(call.channels.collapse(layer, all_but(layer, 1)))
        if found is not None:
            call.channels.join(found, flat)
        found = flat
    return found

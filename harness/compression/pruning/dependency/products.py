"""Rules of products of matrices, attention included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compression.pruning.dependency.channels import Labels, varying
from harness.compression.pruning.dependency.combining import agree

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from harness.compression.pruning.dependency.calls import Call


def matmul(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Contract channels: A `[..., i, k]` times B `[..., k, j]` (mm, bmm)."""
    return [_product(call, call.args[0], call.args[1], outputs[0].shape)]


def affine(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Contract channels and add what is given first (addmm, baddbmm)."""
    bias, shape = call.args[0], outputs[0].shape
    product = _product(call, call.args[1], call.args[2], shape)
    return [agree(call, [(bias.shape, call.labels(bias)), (shape, product)], shape)]


def _product(call: Call, a: torch.Tensor, b: torch.Tensor, shape: torch.Size) -> Labels:
    last = len(shape) - 1
    inner_a, outer_a = _parted(call.labels(a), last)
    inner_b, outer_b = _parted(call.labels(b), last - 1)
    sums = [call.channels.collapse(x, {last - 1} & {*varying(x)}).select(-2, 0) for x in inner_a]
    sums += [call.channels.collapse(x, {last} & {*varying(x)}).select(-1, 0) for x in inner_b]
    for one in sums[1:]:
        call.channels.join(sums[0], one)
    if not inner_a or not inner_b:
        call.fix(tuple(sums), "is multiplied with something whose size is fixed")
    found = []
    for layer, gone in (*((x, -1) for x in outer_a), *((x, -2) for x in outer_b)):
        kept = layer.narrow(gone, 0, 1).expand(shape)
        if not {last, last - 1} & {*varying(kept)}:
            call.fix((kept,), "is a batch of matrices")
        else:
            found.append(kept)
    return tuple(found)


def _parted(layers: Labels, inner: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return (
        [one for one in layers if inner in varying(one)],
        [one for one in layers if inner not in varying(one)],
    )


def attention(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Contract queries `[..., n, d]` with keys `[..., m, d]`; values' channels go on."""
    query, key, value = call.args[:3]
    sums = []
    for tensor in (query, key):
        for layer in call.labels(tensor):
            if layer.dim() - 1 in varying(layer):
                tokens = {layer.dim() - 2} & {*varying(layer)}
                sums.append(call.channels.collapse(layer, tokens).select(-2, 0))
            else:
                call.fix((layer,), "is attended over")
    for one in sums[1:]:
        call.channels.join(sums[0], one)
    if not call.labels(query) or not call.labels(key):
        call.fix(tuple(sums), "is multiplied with something whose size is fixed")
    found = []
    for layer in call.labels(value):
        if layer.dim() - 2 in varying(layer):
            call.fix((layer,), "is attended over")
        else:
            found.append(layer.narrow(-2, 0, 1).expand(outputs[0].shape))
    return [tuple(found), *(() for _ in outputs[1:])]

"""Rules of pooling, statistics, softmax and look-ups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compression.pruning.dependency.calls import unknown
from harness.compression.pruning.dependency.channels import Labels, compact, varying

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from harness.compression.pruning.dependency.calls import Call


def spatial(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Carry channels (dimension 1) through pooling, resizing and padding of what follows."""
    x = call.args[0]
    found: list[torch.Tensor] = []
    for layer in call.labels(x):
        followed = all(x.shape[d] == outputs[0].shape[d] for d in varying(layer))
        # What is padded with a constant need not be the last dimensions.
        last = x.dim() if call.name == "constant_pad_nd" else max(1, x.dim() - 3)
        if varying(layer) and max(varying(layer)) <= last and followed:
            index = [slice(None) if d in varying(layer) else slice(1) for d in range(x.dim())]
            found.append(layer[tuple(index)])
        else:
            call.fix((layer,), "is pooled or padded over")
    return [tuple(layer.expand(out.shape) for layer in found) for out in outputs]


def normalised_over(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Carry channels through softmax and the like, over another dimension than theirs."""
    x = call.args[0]
    dim = call.arg(1, "dim") % x.dim()
    layers = call.labels(x)
    call.fix(tuple(one for one in layers if dim in varying(one)), "is normalised over")
    return [layers for _ in outputs]


def gated(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Join the two halves of a gated linear unit."""
    dim = call.arg(1, "dim", -1) % outputs[0].dim()
    found = []
    for layer in call.labels(call.args[0]):
        one, other = layer.chunk(2, dim)
        call.channels.join(one, other)
        found.append(one)
    return [tuple(found)]


def reduced(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Drop dimensions; channels that are summed over may vanish, other statistics fix them."""
    x = call.args[0]
    dims = call.arg(2 if call.name == "linalg_vector_norm" else 1, "dim")
    if isinstance(dims, bool) or dims is None or (isinstance(dims, (list, tuple)) and not dims):
        dims = list(range(x.dim()))
    gone = {d % x.dim() for d in ([dims] if isinstance(dims, int) else dims)}
    keep = outputs[0].dim() == x.dim()
    found = []
    for layer in call.labels(x):
        if gone & {*varying(layer)}:
            if call.name not in ("sum", "linalg_vector_norm") or {*varying(layer)} - gone:
                call.fix((layer,), "is reduced over")
            continue
        for dim in sorted(gone, reverse=True):
            layer = layer.narrow(dim, 0, 1) if keep else layer.select(dim, 0)
        found.append(layer)
    return [tuple(found) for _ in outputs]


def looked_up(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Carry an embedding's features; its entries stay."""
    weight, shape = call.args[0], outputs[0].shape
    found = []
    for layer in call.labels(weight):
        if varying(layer) == (1,):
            found.append(compact(layer).expand(shape))
        else:
            call.fix((layer,), "is looked up")
    return [tuple(found)]


def restrided(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Keep labels where only strides of dimensions of size 1 can change."""
    x = call.args[0]
    same = x.shape == outputs[0].shape and sum(size > 1 for size in x.shape) <= 1
    return [call.labels(x)] if same else unknown(call, outputs)


def made_new(call: Call, outputs: Sequence[torch.Tensor]) -> Sequence[Labels]:
    """Say that a new tensor has nothing of another but its type."""
    del call
    return [() for _ in outputs]

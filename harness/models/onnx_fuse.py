"""Rewrites that make a converted network one that can be pruned.

Files spell layers out: a bias as an addition, a folded batch norm as a product, TensorFlow's
flatten as a transpose before a reshape. Whatever can be said by a torch layer is said by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from harness.models.onnx_graph import per_channel
from harness.models.onnx_layer_norm import make_layer_norm
from harness.models.onnx_layers import Affine
from harness.models.onnx_network import Binary, is_elementwise
from harness.models.onnx_reshape import Regroup
from harness.models.onnx_tensors import Transpose

if TYPE_CHECKING:
    from harness.models.onnx_graph import Graph
    from harness.models.onnx_node import Draft

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fuse(graph: Graph) -> None:
    """Apply all rewrites, in place."""
    for draft in list(graph.drafts):
        _fold_into_layer(graph, draft)
    for draft in list(graph.drafts):
        _make_affine(graph, draft)
    for draft in list(graph.drafts):
        make_layer_norm(graph, draft)
    for draft in list(graph.drafts):
        _reorder_flatten(graph, draft)
        _open_channels(graph, draft)
    graph.sweep()


def _fold_into_layer(graph: Graph, draft: Draft) -> None:
    """Make a bias of what is added to a layer's output, and scale its weights."""
    found = per_channel(graph, draft) or _single_shift(graph, draft)
    maker = graph.maker(found[0]) if found else None
    if found is None or maker is None or not isinstance(maker.call, _LAYERS):
        return
    value, axis, tensor = found
    layer: Any = maker.call
    last = len(draft.shapes[0]) - 1
    if graph.only_taker(value) is not draft or axis != (
        last if isinstance(layer, nn.Linear) else 1
    ):
        return
    op = cast("Binary", draft.call).op
    scale, shift = _scale_and_shift(op, tensor)
    with torch.no_grad():
        bias = torch.zeros(len(scale)) if layer.bias is None else layer.bias
        layer.weight.mul_(scale.reshape(-1, *(1 for _ in layer.weight.shape[1:])))
        layer.bias = nn.Parameter(bias * scale + shift)
    graph.bypass(draft, value)


def _single_shift(graph: Graph, draft: Draft) -> tuple[str, int, torch.Tensor] | None:
    """Return what `per_channel` does of a number that is added to a layer's only channel."""
    call = draft.call
    if not isinstance(call, Binary) or call.op not in ("Add", "Sub") or len(draft.inputs) != 1:
        return None
    number = call.right if call.op == "Sub" or call.left is None else call.left
    maker = graph.maker(draft.inputs[0])
    layer: Any = maker.call if maker else None
    if number is None or not isinstance(layer, _LAYERS) or len(layer.weight) != 1:
        return None
    axis = len(draft.shapes[0]) - 1 if isinstance(layer, nn.Linear) else 1
    return draft.inputs[0], axis, torch.tensor([number])


def _scale_and_shift(op: str, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ones, zeros = torch.ones_like(tensor), torch.zeros_like(tensor)
    return {
        "Add": (ones, tensor),
        "Sub": (ones, -tensor),
        "Mul": (tensor, zeros),
        "Div": (1 / tensor, zeros),
    }[op]


def _make_affine(graph: Graph, draft: Draft) -> None:
    """Make a prunable layer of arithmetic per channel that no layer can take up."""
    found = per_channel(graph, draft)
    if found is None or found[1] != 1:
        return
    value, _, tensor = found
    scale, shift = _scale_and_shift(cast("Binary", draft.call).op, tensor)
    maker = graph.maker(value)
    if maker and isinstance(maker.call, Affine) and graph.only_taker(value) is draft:
        scale, shift = maker.call.weight * scale, maker.call.bias * scale + shift
        maker.call = Affine(scale.detach(), shift.detach()).eval()
        graph.bypass(draft, value)
    else:
        draft.call, draft.inputs = Affine(scale, shift).eval(), (value,)


def _reorder_flatten(graph: Graph, draft: Draft) -> None:
    """Flatten channels first, as pruning expects: what follows takes its inputs in that order.

    TensorFlow's `[N, H, W, C]` is flattened through a transpose; a channel's features then don't
    lie together, and pruning it would remove the wrong ones.
    """
    if not isinstance(draft.call, Transpose) or draft.call.order[0] != 0:
        return
    shape, taker = draft.shapes[0][1:], graph.only_taker(draft.outputs[0])
    while taker and is_elementwise(taker.call):
        taker = graph.only_taker(taker.outputs[0])
    if taker is None or not isinstance(taker.call, Regroup) or not taker.call.flattens:
        return
    order = [i - 1 for i in draft.call.order[1:]]
    back = [order.index(i) for i in range(len(order))]
    features = torch.arange(taker.shapes[0][1]).reshape(shape).permute(back).reshape(-1)
    norms = []
    taker = graph.only_taker(taker.outputs[0])
    while taker and (is_elementwise(taker.call) or isinstance(taker.call, Affine)):
        norms += [taker.call] if isinstance(taker.call, Affine) else []
        taker = graph.only_taker(taker.outputs[0])
    if taker is None or not isinstance(taker.call, nn.Linear):
        return
    with torch.no_grad():
        taker.call.weight.copy_(taker.call.weight[:, features].clone())
        for norm in norms:
            norm.weight.copy_(norm.weight[features].clone())
            norm.bias.copy_(norm.bias[features].clone())
    graph.bypass(draft, draft.inputs[0])


def _open_channels(graph: Graph, draft: Draft) -> None:
    """Let features that become `[H, W, C]` give way in C: a transpose to `[C, H, W]` follows."""
    maker = graph.maker(draft.inputs[0]) if isinstance(draft.call, Transpose) else None
    if (
        maker is None
        or not isinstance(maker.call, Regroup)
        or draft is not graph.only_taker(maker.outputs[0])
    ):
        return
    shape, channels = maker.shapes[0], cast("Transpose", draft.call).order[1]
    count, sizes = maker.call.runs[-1]
    if len(maker.call.runs) == 2 and count == 1 and len(sizes) == len(shape) - 1 and channels > 0:
        opened = tuple(-1 if i == channels else n for i, n in enumerate(shape))[1:]
        maker.call = Regroup((maker.call.runs[0], (1, opened)))

"""Layer norms that a file spells out, made layers again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from harness.models.onnx_graph import per_channel
from harness.models.onnx_network import Binary
from harness.models.onnx_tensors import Reduce

if TYPE_CHECKING:
    from harness.models.onnx_graph import Graph
    from harness.models.onnx_node import Draft


def make_layer_norm(graph: Graph, draft: Draft) -> None:
    """Make a layer of a layer norm that is spelt out, as files older than opset 17 do."""
    matched = _normalised(graph, draft)
    if matched is None:
        return
    value, epsilon = matched
    width = draft.shapes[0][-1]
    layer: Any = nn.LayerNorm(width, eps=epsilon)
    last = draft
    for op, name in (("Mul", "weight"), ("Add", "bias")):
        taker = graph.only_taker(last.outputs[0])
        found = per_channel(graph, taker) if taker else None
        if taker is None or found is None or cast("Binary", taker.call).op != op:
            break
        if found[1] != len(draft.shapes[0]) - 1:
            break
        with torch.no_grad():
            getattr(layer, name).copy_(found[2])
        last = taker
    last.call, last.inputs = layer.eval(), (value,)


def _normalised(graph: Graph, draft: Draft) -> tuple[str, float] | None:
    """Match (x - mean) / sqrt(mean((x - mean)^2) + eps); return x and eps."""

    def arithmetic(value: str, op: str) -> Draft | None:
        maker = graph.maker(value)
        return maker if maker and isinstance(maker.call, Binary) and maker.call.op == op else None

    def mean(value: str) -> Draft | None:
        maker = graph.maker(value)
        call = maker.call if maker else None
        whole = isinstance(call, Reduce) and call.op == "ReduceMean" and call.keep
        last = (len(draft.shapes[0]) - 1,)
        return maker if whole and cast("Reduce", call).axes == last else None

    if not isinstance(draft.call, Binary) or draft.call.op != "Div" or len(draft.inputs) != 2:
        return None
    root = graph.maker(draft.inputs[1])
    centred = arithmetic(draft.inputs[0], "Sub")
    added = arithmetic(root.inputs[0], "Add") if root and root.inputs else None
    if not (root and centred and added and len(centred.inputs) == 2):
        return None
    if getattr(root.call, "name", None) != "Sqrt" or len(added.inputs) != 1:
        return None
    spread, middle = mean(added.inputs[0]), mean(centred.inputs[1])
    square = graph.maker(spread.inputs[0]) if spread else None
    if not (square and middle) or set(square.inputs) != {centred.outputs[0]}:
        return None
    squares = isinstance(square.call, Binary) and (
        (square.call.op == "Pow" and square.call.right == 2.0) or square.call.op == "Mul"
    )
    if not squares or middle.inputs[0] != centred.inputs[0]:
        return None
    call = cast("Binary", added.call)
    epsilon = call.right if call.right is not None else call.left
    return centred.inputs[0], cast("float", epsilon)

"""Probabilities that a file ends in: taken off, since training wants logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.models.onnx_network import Binary, Operation
from harness.models.onnx_node import Draft
from harness.models.onnx_select import Concat
from harness.models.onnx_tensors import Softmax

if TYPE_CHECKING:
    from harness.models.onnx_graph import Graph


def take_off_softmax(graph: Graph) -> dict[int, Softmax]:
    """Take a final softmax off; return it by the number of its output."""
    taken: dict[int, Softmax] = {}
    for draft in list(graph.drafts):
        if draft.outputs[0] not in graph.outputs:
            continue
        if any(draft.outputs[0] in other.inputs for other in graph.drafts):
            continue
        numbers = [i for i, name in enumerate(graph.outputs) if name == draft.outputs[0]]
        if isinstance(draft.call, Softmax) and draft.call.axis == 1 and len(draft.shapes[0]) == 2:
            taken |= dict.fromkeys(numbers, draft.call)
            graph.bypass(draft, draft.inputs[0])
        elif (logit := _logit_of_two(graph, draft)) is not None:
            taken |= dict.fromkeys(numbers, Softmax(axis=1, log=False))
            _return_logits(graph, draft, logit)
    return taken


def _logit_of_two(graph: Graph, draft: Draft) -> str | None:
    """Match `[1 - p, p]` of p = sigmoid(z), scikit-learn's two classes; return z `[N, 1]`."""
    if not isinstance(draft.call, Concat) or draft.call.axis != 1 or len(draft.inputs) != 2:
        return None
    negative, sigmoid = (graph.maker(value) for value in draft.inputs)
    if negative is None or sigmoid is None or negative.inputs != sigmoid.outputs:
        return None
    rest = negative.call
    if not isinstance(rest, Binary) or (rest.op, rest.left) != ("Sub", 1.0):
        return None
    if not isinstance(sigmoid.call, Operation) or sigmoid.call.name != "Sigmoid":
        return None
    return sigmoid.inputs[0] if draft.shapes[0][1:] == (2,) else None


def _return_logits(graph: Graph, draft: Draft, logit: str) -> None:
    """Return `[0, z]` instead, of which softmax makes the same two probabilities."""
    nothing = f"{draft.outputs[0]}_nothing"
    shape = (draft.shapes[0][0], 1)
    zero = Draft(
        Binary("Mul", torch.mul, right=0.0), (logit,), (nothing,), nothing, (shape,), (shape,)
    )
    graph.drafts.insert(graph.drafts.index(draft), zero)
    draft.inputs = (nothing, logit)
    graph.sweep()

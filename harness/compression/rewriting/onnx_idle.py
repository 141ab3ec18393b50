"""Nodes of an ONNX graph that change nothing, and reshapes one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

from harness.compression.rewriting.onnx_names import Names
from harness.onnxfile import opset_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

_DOMAINS = ("", "ai.onnx")
_DROPOUT_SINCE, _DROPOUT_TRAINS_SINCE = 7, 12
"""Opsets from which a Dropout does nothing, and from which an input can let it train."""


def idle_nodes(model: ModelProto, names: Names) -> list[NodeProto]:
    """Return the nodes whose first output is their first input as it is."""
    found = []
    types: dict[str, int] | None = None
    for node in model.graph.node:
        if node.domain not in _DOMAINS:
            continue
        idle = node.op_type == "Identity"
        if node.op_type == "Dropout":
            idle = _drops_nothing(model, names, node)
        elif node.op_type == "Cast":
            types = _types(model) if types is None else types
            idle = any(types.get(node.input[0]) == a.i for a in node.attribute if a.name == "to")
        if idle:
            found.append(node)
    return found


def merge_reshapes(model: ModelProto) -> int:
    """Let a reshape of a reshape take the first one's input; return how many did.

    The second alone says the shape, unless it copies a size (0) of what it is given.
    """
    names, merged = Names(model.graph), 0
    for node in model.graph.node:
        before = names.makers.get(node.input[0]) if _reshapes(node) else None
        if before is None or not _reshapes(before):
            continue
        sizes = _constant(model, names, node.input[1])
        if sizes is not None and (sizes != 0).all():
            node.input[0] = before.input[0]
            merged += 1
    return merged


def _reshapes(node: NodeProto) -> bool:
    return node.op_type == "Reshape" and node.domain in _DOMAINS and len(node.input) == 2


def _drops_nothing(model: ModelProto, names: Names, node: NodeProto) -> bool:
    opset = opset_of(model)
    if opset < _DROPOUT_SINCE or any(names.used(mask) for mask in node.output[1:] if mask):
        return False
    if opset < _DROPOUT_TRAINS_SINCE or len(node.input) < 3 or not node.input[2]:
        return True
    training = _constant(model, names, node.input[2])
    return training is not None and not training.any()


def _constant(model: ModelProto, names: Names, name: str) -> NDArray[Any] | None:
    """Return the value of an initializer or a `Constant`; None where it isn't known."""
    inputs = {value.name for value in model.graph.input}  # a caller may give another value
    for tensor in model.graph.initializer:
        if tensor.name == name and name not in inputs and not tensor.external_data:
            return numpy_helper.to_array(tensor)
    maker = names.makers.get(name)
    if maker is None or maker.op_type != "Constant" or maker.domain not in _DOMAINS:
        return None
    held = [one.t for one in maker.attribute if one.name == "value"]
    return numpy_helper.to_array(held[0]) if held and not held[0].external_data else None


def _types(model: ModelProto) -> dict[str, int]:
    """Return the element types that are known, by the name of the value."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {tensor.name: int(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type"):
            found[value.name] = value.type.tensor_type.elem_type
    return found

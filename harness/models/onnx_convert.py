"""From an ONNX graph to the steps of a torch network.

The graph is walked once, with two batches of zeros of different sizes at hand. What depends on no
input (weights, shapes) is computed on the way; what depends on the batch size shows, because the
two differ; everything else becomes a step, so that its shape is known to the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

from harness.errors import ConfigError
from harness.models.onnx_errors import unsupported
from harness.models.onnx_node import BATCHES, Node, Walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def walk_graph(walk: Walk, nodes: Sequence[onnx.NodeProto], handlers: dict[str, Any]) -> None:
    """Convert nodes, in the file's order, into `walk`.

    Args:
        walk: With the graph's weights and its input.
        nodes: Those that the outputs need.
        handlers: By operation, with `domain.` before it where it isn't standard: from a `Node` to
            a function and the values that it takes.

    Raises:
        ConfigError: If a node can't be converted.
    """
    for proto in nodes:
        node = Node(proto, walk)
        try:
            with torch.no_grad():
                _convert(node, handlers)
        except ConfigError:
            raise
        except Exception as exc:  # torch, numpy and the evaluator raise what they like
            detail = f"{type(exc).__name__}: {exc}".splitlines()[0]
            baked = walk.fixed is not None  # sizes that hold for the file's own batch only
            remedy = ". Export the model again with the batch dynamic" if baked else ""
            raise node.refuse(f"can't be converted to torch ({detail}){remedy}") from exc


def _convert(node: Node, handlers: dict[str, Any]) -> None:
    walk, proto = node.walk, node.proto
    if not node.is_known(0) and (node.op in ("Identity", "Dropout") or _casts_nothing(node)):
        walk.alias[proto.output[0]] = node.inputs[0]
    elif node.op in ("Shape", "Size") and not node.is_known(0):
        parts = [_fold(node, [np.empty(shape, np.bool_)]) for shape in node.shapes()]
        walk.known[proto.output[0]] = (parts[0][0], parts[1][0])
    elif all(not name or name in walk.known for name in node.inputs):
        if proto.op_type not in _FOLDED and proto.op_type not in handlers:
            raise unsupported(walk.path, proto)
        pairs = [walk.known[name] for name in node.inputs if name]
        runs = [_fold(node, [pair[i] for pair in pairs]) for i in range(len(BATCHES))]
        for name, first, second in zip(proto.output, *runs, strict=True):
            walk.known[name] = (first, second)
    else:
        standard = proto.domain in ("", "ai.onnx")
        handler = handlers.get(node.op if standard else f"{proto.domain}.{node.op}")
        if handler is None:
            raise unsupported(walk.path, proto)
        call, inputs = handler(node)
        walk.add(call, inputs, proto.output, proto.name or proto.output[0])


def _casts_nothing(node: Node) -> bool:
    """Whether a Cast leaves float32 as it is, such as scikit-learn's at the input."""
    to_float = node.op == "Cast" and node.attribute("to") == onnx.TensorProto.FLOAT
    return to_float and node.walk.live[node.value(0)][0].dtype == torch.float32


_FOLDED = {
    "Constant", "ConstantOfShape", "Range", "EyeLike", "Shape", "Size", "Identity", "NonZero",
    "OneHot", "Compress", "Mod", "Trilu", "ScatterND", "CumSum", "Dropout",
}  # fmt: skip
"""Operations on constants only, besides those that have a handler."""


def _fold(node: Node, given: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return what a node computes from known inputs."""
    proto, present = node.proto, [name for name in node.proto.input if name]
    anything = onnx.TypeProto()
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [onnx.helper.make_value_info(name, anything) for name in dict.fromkeys(present)],
        [onnx.helper.make_value_info(name, anything) for name in proto.output],
    )
    opset = [onnx.helper.make_opsetid("", node.opset)]
    evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opset))
    return [np.asarray(x) for x in evaluator.run(None, dict(zip(present, given, strict=True)))]

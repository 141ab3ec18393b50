"""ONNX files of a few nodes, as other frameworks write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Return a node; names are separated by spaces, and `_` leaves one out."""
    names = [["" if n == "_" else n for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, **attributes)


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    shape: tuple[int, ...],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    batch: int | str = "batch",
    outputs: Sequence[str] = ("y",),
) -> Path:
    """Write a graph from `x` `[batch, *shape]`; weights that are float64 become float32."""
    arrays = {name: np.asarray(value) for name, value in (weights or {}).items()}
    stored = [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, name)
        for name, a in arrays.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        stored,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path

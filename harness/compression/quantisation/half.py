"""Half precision, for networks whose numbers fit it."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_LARGEST = float(np.finfo(np.float16).max)
_MAXIMUM = "harness_maximum_of_"


def halved(
    proto: onnx.ModelProto, input_name: str, batches: Iterable[NDArray[Any]]
) -> onnx.ModelProto:
    """Return a file that holds weights and computes in half precision; inputs and outputs stay.

    Args:
        proto: The file.
        input_name: Of its input.
        batches: What it is fed, to see whether its numbers fit.

    Raises:
        ValueError: If some are too large.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as below
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    _check_range(proto, input_name, batches)
    half = OnnxModel(convert_float_to_float16(proto, keep_io_types=True))
    half.topological_sort()  # the casts of inputs were appended at the end
    result: onnx.ModelProto = half.model
    return result


def _check_range(proto: onnx.ModelProto, input_name: str, batches: Iterable[NDArray[Any]]) -> None:
    """Check, in float32, that what nodes give for samples is not too large.

    The converted file would not show it on a CPU: ONNX Runtime's kernels compute in float32 there,
    between casts that it takes out. Large negative numbers pass, since masks are made of them.

    Raises:
        ValueError: If a number is above the largest that half precision has.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, which reports usage otherwise
    import onnxruntime

    watched, makers = _with_maxima(proto)
    if not makers:
        return
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for batch in batches:
        found = session.run([_MAXIMUM + name for name in makers], {input_name: batch})
        for maximum, (name, operator) in zip(found, makers.items(), strict=True):
            if _LARGEST < maximum < np.inf:
                raise ValueError(
                    f"half precision ends at {_LARGEST:,.0f}, and {name!r} ({operator}) reaches "
                    f"{maximum:,.0f} on training samples. Scale it down, or leave fp16 out"
                )


def _with_maxima(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a file that gives the largest value of each tensor, and the operators that make them.

    Their numbers alone are given back, so that no activations are held.
    """
    watched = onnx.shape_inference.infer_shapes(proto)
    graph = watched.graph
    float32 = {
        value.name
        for value in itertools.chain(graph.value_info, graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    makers = {
        name: node.op_type
        for node in graph.node
        if node.op_type != "Constant"
        for name in node.output
        if name in float32
    }
    for name in makers:
        graph.node.append(onnx.helper.make_node("ReduceMax", [name], [_MAXIMUM + name], keepdims=0))
        graph.output.append(
            onnx.helper.make_tensor_value_info(_MAXIMUM + name, onnx.TensorProto.FLOAT, [])
        )
    return watched, makers

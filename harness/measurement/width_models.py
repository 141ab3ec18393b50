"""Tiny ONNX graphs of one kind of operator and one width each: what the granule is read from.

A graph is a chain, so that the width is both input and output channels of its layers, as it is in
the middle of a network. Images and rows are large enough for arithmetic to dominate: one inference
of the widest takes some tenths of a millisecond on a current CPU core, of which calling the
runtime is a few per cent.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.candidate import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

INPUT, OUTPUT = "input", "output"
OPSET, IR_VERSION = 17, 8


@dataclass(frozen=True, slots=True)
class Operator:
    """A kind of layer, and the chain that shows what its width costs.

    Attributes:
        onnx_type: Operator type in the file.
        layers: Length of the chain; each is followed by a Relu.
        order: Arithmetic grows with this power of the width.
        side: Height and width of the image, pixels; for a linear layer `side**2` rows.
        kernel: Side of the kernel, pixels; 1 for a linear layer.
    """

    onnx_type: str
    layers: int
    order: int
    side: int
    kernel: int = 1

    def weight_shape(self, width: int) -> tuple[int, ...]:
        """Return the shape of one layer's weights."""
        if self.onnx_type == "MatMul":
            return (width, width)
        return (width, width if self.order == 2 else 1, self.kernel, self.kernel)

    def input_shape(self, width: int, batch: int) -> tuple[int, ...]:
        """Return the shape of the input, which is also that of the output."""
        if self.onnx_type == "MatMul":
            return (batch, self.side**2, width)
        return (batch, width, self.side, self.side)

    def attributes(self, width: int) -> dict[str, Any]:
        """Return the attributes of a layer's node."""
        if self.onnx_type == "MatMul":
            return {}
        return {
            "kernel_shape": [self.kernel] * 2,
            "pads": [self.kernel // 2] * 4,
            "group": 1 if self.order == 2 else width,
        }


OPERATORS: Mapping[str, Operator] = {
    "conv3x3": Operator("Conv", layers=3, order=2, side=16, kernel=3),
    "conv1x1": Operator("Conv", layers=4, order=2, side=32),
    "depthwise": Operator("Conv", layers=6, order=1, side=32, kernel=3),
    "linear": Operator("MatMul", layers=4, order=2, side=32),
}
"""By the name under which a curve is reported."""


def width_model(
    name: str, width: int, batch: int, folder: Path
) -> tuple[OnnxModel, dict[str, NDArray[Any]]]:
    """Write the chain of an operator at a width, and return it with one batch of inputs.

    Args:
        name: Of the operator, a key of `OPERATORS`.
        width: Channels in and out of every layer.
        batch: Samples per inference.
        folder: Where the file goes.
    """
    operator = OPERATORS[name]
    # Not hash(), which differs from process to process: the same file every time.
    rng = np.random.default_rng([zlib.crc32(name.encode()), width])
    shape = operator.input_shape(width, batch)
    data = _chain(operator, width, shape, rng).SerializeToString()
    path = folder / f"{name}-{width}.onnx"
    path.write_bytes(data)
    model = OnnxModel(path, hashlib.sha256(data).hexdigest(), len(data), OPSET)
    return model, {INPUT: rng.standard_normal(shape).astype(np.float32)}


def _chain(
    operator: Operator, width: int, shape: tuple[int, ...], rng: np.random.Generator
) -> onnx.ModelProto:
    nodes, weights, at = [], [], INPUT
    for layer in range(operator.layers):
        weight, sums, after = f"weight{layer}", f"sums{layer}", f"relu{layer}"
        if layer == operator.layers - 1:
            after = OUTPUT
        weights.append(numpy_helper.from_array(_weight(operator, width, rng), weight))
        attributes = operator.attributes(width)
        nodes.append(helper.make_node(operator.onnx_type, [at, weight], [sums], **attributes))
        nodes.append(helper.make_node("Relu", [sums], [after]))
        at = after
    graph = helper.make_graph(
        nodes, "width",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        weights,
    )  # fmt: skip
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def _weight(operator: Operator, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return weights that keep the activations' scale: denormal numbers would be timed as slow."""
    shape = operator.weight_shape(width)
    summands = int(np.prod(shape)) // width
    weights = rng.standard_normal(shape) * np.sqrt(2 / summands)
    return np.asarray(weights, dtype=np.float32)

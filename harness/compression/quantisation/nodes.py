"""Which nodes of a file are to compute in integers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx

_ARITHMETIC = {"Conv", "Gemm", "MatMul"}
_ELEMENTWISE = {"Add", "Mul", "Sigmoid", "LeakyRelu"}
_MOVING = {
    "AveragePool", "Clip", "Concat", "Flatten", "Gather", "GlobalAveragePool", "MaxPool", "Pad",
    "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
INTEGER_OPERATORS = frozenset(_ARITHMETIC | _ELEMENTWISE | _MOVING)
"""What ONNX Runtime's CPU kernels compute in 8-bit integers. Softmax is left to the runtime: it is
fused only where its neighbours are integers, and a network's probabilities stay float32."""
_FLOATING = {
    "Abs", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Log", "Mish", "Neg",
    "PRelu", "Pow", "Reciprocal", "Selu", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh",
}  # fmt: skip
"""Elementwise operators without such a kernel."""


def name_nodes(proto: onnx.ModelProto) -> None:
    """Give every node of a file a name of its own, in place; the tools choose nodes by name."""
    taken: set[str] = set()
    for number, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}#{number}"
        taken.add(node.name)


def integer_nodes(proto: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that are to compute in integers, in the file's order.

    A chain of elementwise operators stays in float32 where one of them has no integer kernel, as
    in GELU: each change of numbers between them would cost time and round once more. So does all
    that follows the last layers: outputs in some unit are not to be rounded to 256 steps.

    Args:
        proto: The file; its nodes have names.

    Returns:
        Empty where no layer is among them: moving data in other numbers alone gains nothing.
    """
    floating = _floating_chains(proto.graph) | _after_all_layers(proto.graph)
    found = [
        node
        for number, node in enumerate(proto.graph.node)
        if node.op_type in INTEGER_OPERATORS and number not in floating
    ]
    if not any(node.op_type in _ARITHMETIC for node in found):
        return []
    return [node.name for node in found]


def _floating_chains(graph: onnx.GraphProto) -> set[int]:
    """Return the numbers of elementwise nodes that hang together with a floating one."""
    chained = {
        number: node
        for number, node in enumerate(graph.node)
        if node.op_type in _ELEMENTWISE | _FLOATING
    }
    makers = {name: number for number, node in chained.items() for name in node.output}
    beside: dict[int, set[int]] = defaultdict(set)
    for number, node in chained.items():
        for name in node.input:
            if name in makers:
                beside[number].add(makers[name])
                beside[makers[name]].add(number)
    found: set[int] = set()
    waiting = [number for number, node in chained.items() if node.op_type in _FLOATING]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting.extend(beside[number])
    return found


def _after_all_layers(graph: onnx.GraphProto) -> set[int]:
    """Return the numbers of nodes whose results reach no layer any more."""
    needed: set[str] = set()
    found: set[int] = set()
    for number, node in reversed(list(enumerate(graph.node))):  # in an ONNX file, makers come first
        if node.op_type in _ARITHMETIC or needed.intersection(node.output):
            needed.update(node.input)
        else:
            found.add(number)
    found -= {number for number, node in enumerate(graph.node) if node.op_type in _ARITHMETIC}
    return found


def free_outputs(proto: onnx.ModelProto, integer: Collection[str]) -> None:
    """Drop the rounding of what linear layers and products give to nodes in float32, in place.

    Their integer kernels can write float32 (those of convolutions can't), so a network's outputs
    need not be cut to the ranges that calibration saw.

    Args:
        proto: A file with pairs of QuantizeLinear and DequantizeLinear.
        integer: Names of the nodes that compute in integers.
    """
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in proto.graph.node:
        for name in node.input:
            readers[name].append(node)
    dropped = []
    for node in proto.graph.node:
        if node.op_type not in ("Gemm", "MatMul"):
            continue
        rounding = readers[node.output[0]]
        restoring = [after for one in rounding for after in readers[one.output[0]]]
        if [one.op_type for one in rounding + restoring] != ["QuantizeLinear", "DequantizeLinear"]:
            continue
        (restored,) = restoring[0].output
        if not any(reader.name in integer for reader in readers[restored]):
            node.output[0] = restored
            dropped += rounding + restoring
    for node in dropped:
        proto.graph.node.remove(node)
    used = {name for node in proto.graph.node for name in node.input}
    unused = [one for one in proto.graph.initializer if one.name not in used]
    for tensor in unused:
        proto.graph.initializer.remove(tensor)

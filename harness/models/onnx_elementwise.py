"""Nodes that map elements: activations and arithmetic."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch.nn import functional as F

from harness.models.onnx_network import Binary, elementwise, operation

if TYPE_CHECKING:
    from harness.models.onnx_network import Function
    from harness.models.onnx_node import Node

    Call = tuple[Function, tuple[str, ...]]

_PLAIN: dict[str, Any] = {
    "Relu": F.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Exp": torch.exp,
    "Log": torch.log, "Sqrt": torch.sqrt, "Abs": torch.abs, "Neg": torch.neg, "Erf": torch.erf,
    "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sign": torch.sign,
    "Reciprocal": torch.reciprocal, "Softplus": F.softplus, "Softsign": F.softsign,
    "Mish": F.mish, "HardSwish": F.hardswish, "Sin": torch.sin, "Cos": torch.cos,
    "Not": torch.logical_not,
}  # fmt: skip
_BINARY: dict[str, Any] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div, "Pow": torch.pow,
    "Sum": torch.add, "Min": torch.minimum, "Max": torch.maximum, "Equal": torch.eq,
    "Greater": torch.gt, "Less": torch.lt, "GreaterOrEqual": torch.ge, "LessOrEqual": torch.le,
    "And": torch.logical_and, "Or": torch.logical_or,
}  # fmt: skip
_WITH_NUMBERS = {"Add", "Sub", "Mul", "Div", "Pow", "Sum"}
"""Operations whose torch function takes a number for a tensor."""
_BOUNDS = {"Max": "min", "Min": "max"}
"""What a number is to torch's `clamp`: no threshold is to be trained."""
_INFINITE = 3e38
"""A bound beyond this clips nothing; exporters write float32's largest number."""
_SELU = (1.6732632423543772, 1.0507009873554805)
"""ONNX's defaults: alpha and gamma of Klambauer et al. (2017)."""
_CASTS = {np.dtype(np.float32): torch.float32, np.dtype(np.bool_): torch.bool}


def plain(node: Node) -> Call:
    """Convert an activation without parameters."""
    return elementwise(node.op, _PLAIN[node.op]), (node.value(0),)


def binary(node: Node) -> Call:
    """Convert arithmetic on two operands; a single number stays a number."""
    if len(node.inputs) != 2:
        raise node.refuse(f"has {len(node.inputs)} operands. Expected 2")
    taken = node.op in _WITH_NUMBERS or node.op in _BOUNDS
    numbers = [node.number(i) if taken else None for i in range(2)]
    for i, number in enumerate(numbers):
        # A number of a higher rank than the other operand would add dimensions.
        if number is not None and node.known(i)[0].ndim > len(node.shape(1 - i)):
            numbers[i] = None
    if numbers[0] is not None and node.op == "Pow":
        numbers[0] = None
    bound = numbers[0] if numbers[0] is not None else numbers[1]
    if node.op in _BOUNDS and bound is not None:
        side = 1 if numbers[0] is not None else 0
        return elementwise(node.op, torch.clamp, **{_BOUNDS[node.op]: bound}), (node.value(side),)
    names = tuple(node.value(i) for i in range(2) if numbers[i] is None)
    return Binary(node.op, _BINARY[node.op], numbers[0], numbers[1]), names


def variadic(node: Node) -> Call:
    """Convert Sum, Max, Min and Mean of any number of operands."""
    if len(node.inputs) == 2 and node.op != "Mean":
        return binary(node)
    values = tuple(node.value(i) for i in range(len(node.inputs)))
    return operation(node.op, _combined, op=node.op), values


def _combined(*operands: torch.Tensor, op: str) -> torch.Tensor:
    if op == "Mean":
        return _combined(*operands, op="Sum") / len(operands)
    return functools.reduce(_BINARY[op], operands)


def leaky_relu(node: Node) -> Call:
    """Convert LeakyRelu."""
    slope = node.attribute("alpha", 0.01)
    return elementwise(node.op, F.leaky_relu, negative_slope=slope), (node.value(0),)


def elu(node: Node) -> Call:
    """Convert Elu and Celu."""
    function = F.elu if node.op == "Elu" else F.celu
    alpha = node.attribute("alpha", 1.0)
    return elementwise(node.op, function, alpha=alpha), (node.value(0),)


def selu(node: Node) -> Call:
    """Convert Selu; torch's own has the paper's constants only."""
    alpha, gamma = node.attribute("alpha", _SELU[0]), node.attribute("gamma", _SELU[1])
    if np.allclose((alpha, gamma), _SELU, rtol=1e-6):
        return elementwise(node.op, F.selu), (node.value(0),)
    return elementwise(node.op, _scaled_elu, alpha=alpha, gamma=gamma), (node.value(0),)


def _scaled_elu(x: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    return gamma * F.elu(x, alpha)


def gelu(node: Node) -> Call:
    """Convert Gelu."""
    kind = node.attribute("approximate", "none")
    return elementwise(node.op, F.gelu, approximate=kind), (node.value(0),)


def clip(node: Node) -> Call:
    """Convert Clip, whose bounds are attributes or inputs."""
    bounds = [("min", 1), ("max", 2)]
    given = {
        name: float(node.constant(i).reshape(())) if node.has(i) else node.attribute(name)
        for name, i in bounds
    }
    options = {k: v for k, v in given.items() if v is not None and abs(v) < _INFINITE}
    function = torch.clamp if options else torch.positive
    return elementwise(node.op, function, **options), (node.value(0),)


def hard_sigmoid(node: Node) -> Call:
    """Convert HardSigmoid; torch knows PyTorch's and Paddle's slope by name."""
    slope, offset = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if math.isclose(slope, 1 / 6, abs_tol=1e-4) and offset == 0.5:
        return elementwise(node.op, F.hardsigmoid), (node.value(0),)
    return elementwise(node.op, _sloped, slope=slope, offset=offset), (node.value(0),)


def _sloped(x: torch.Tensor, slope: float, offset: float) -> torch.Tensor:
    return (x * slope + offset).clamp(0.0, 1.0)


def threshold(node: Node) -> Call:
    """Convert ThresholdedRelu."""
    options = {"threshold": node.attribute("alpha", 1.0), "value": 0.0}
    return elementwise(node.op, F.threshold, **options), (node.value(0),)


def scaler(node: Node) -> Call:
    """Convert scikit-learn's scaler: in its two steps, since features may lie far from 0."""
    options = {
        "offset": tuple(node.attribute("offset", [0.0])),
        "scale": tuple(node.attribute("scale", [1.0])),
    }
    return operation(node.op, _scaled, **options), (node.value(0),)


def _scaled(x: torch.Tensor, offset: tuple[float, ...], scale: tuple[float, ...]) -> torch.Tensor:
    return (x - torch.tensor(offset)) * torch.tensor(scale)


def cast(node: Node) -> Call:
    """Convert Cast to float32 or bool."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(node.attribute("to"))
    dtype = _CASTS.get(np.dtype(kind))
    if dtype is None:
        raise node.refuse(f"computes in {kind}. Export the model in float32")
    return elementwise(node.op, torch.Tensor.to, dtype=dtype), (node.value(0),)


def where(node: Node) -> Call:
    """Convert Where."""
    return operation(node.op, torch.where), tuple(node.value(i) for i in range(3))


ELEMENTWISE = {
    **dict.fromkeys(_PLAIN, plain),
    **dict.fromkeys(_BINARY, binary),
    **dict.fromkeys(("Sum", "Max", "Min", "Mean"), variadic),
    "LeakyRelu": leaky_relu,
    "Elu": elu,
    "Celu": elu,
    "Selu": selu,
    "Gelu": gelu,
    "ThresholdedRelu": threshold,
    "ai.onnx.ml.Scaler": scaler,
    "Clip": clip,
    "HardSigmoid": hard_sigmoid,
    "Cast": cast,
    "Where": where,
}
"""Handlers by operation."""

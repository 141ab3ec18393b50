"""Nodes with weights: they become torch's own layers, which can be pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from harness.models.onnx_network import operation
from harness.models.onnx_padding import Cut, transposed_window, window_of

if TYPE_CHECKING:
    from harness.models.onnx_network import Function
    from harness.models.onnx_node import Node

    Call = tuple[Function, tuple[str, ...]]

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


class Affine(nn.modules.batchnorm._BatchNorm):
    """Scale and shift of channels (dimension 1): what is left of a batch norm in a file.

    A batch norm to whatever prunes it with its channels, but one whose statistics
    are folded into scale and shift: it does the same in training as in evaluation.
    """

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__(len(scale), eps=0.0)
        with torch.no_grad():
            self.weight.copy_(scale)
            self.bias.copy_(shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[N, C, ...]` to the same shape."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=0.0)


def bare(kind: Any, *args: Any, **options: Any) -> Any:
    """Return a layer without initial weights; no random numbers are drawn for them."""
    return torch.nn.utils.skip_init(kind, *args, **options)  # type: ignore[no-untyped-call]


def fill(layer: Any, **tensors: torch.Tensor) -> Any:
    """Put weights into a layer; return it in evaluation mode."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            getattr(layer, name).copy_(tensor)
    return layer.eval()


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """Return a linear layer with a weight `[out, in]`."""
    n_out, n_in = weight.shape
    layer = bare(nn.Linear, n_in, n_out, bias=bias is not None)
    filled: nn.Linear = fill(layer, weight=weight, **({} if bias is None else {"bias": bias}))
    return filled


def _bias(node: Node, index: int) -> dict[str, torch.Tensor]:
    return {"bias": node.tensor(index)} if node.has(index) else {}


def conv(node: Node) -> Call:
    """Convert Conv; padding that isn't symmetric becomes a step of its own."""
    weight, bias = node.tensor(1), _bias(node, 2)
    rank, groups = weight.ndim - 2, node.attribute("group", 1)
    if rank not in _CONVOLUTIONS:
        raise node.refuse(f"convolves {rank} dimensions. Expected 1 to 3")
    window = window_of(node, tuple(weight.shape[2:]))
    value, padding = node.value(0), window.before
    if not window.symmetric:
        value, padding = node.before(window.pad(), value), (0,) * rank
    layer = bare(
        _CONVOLUTIONS[rank], weight.shape[1] * groups, weight.shape[0], window.kernel,
        stride=window.stride, padding=padding, dilation=window.dilation, groups=groups,
        bias=bool(bias),
    )  # fmt: skip
    return fill(layer, weight=weight, **bias), (value,)


def conv_transpose(node: Node) -> Call:
    """Convert ConvTranspose; one-sided padding is cut off afterwards."""
    weight, bias = node.tensor(1), _bias(node, 2)
    rank, groups = weight.ndim - 2, node.attribute("group", 1)
    if rank not in _TRANSPOSED:
        raise node.refuse(f"convolves {rank} dimensions. Expected 1 to 3")
    window = transposed_window(node, tuple(weight.shape[2:]))
    layer = bare(
        _TRANSPOSED[rank], weight.shape[0], weight.shape[1] * groups, window.kernel,
        stride=window.stride, dilation=window.dilation, groups=groups,
        padding=window.before if window.symmetric else (0,) * rank,
        output_padding=tuple(node.attribute("output_padding", [0] * rank)), bias=bool(bias),
    )  # fmt: skip
    fill(layer, weight=weight, **bias)
    if window.symmetric:
        return layer, (node.value(0),)
    sides = zip(window.before, window.after, strict=True)
    kept = (slice(b, -a if a else None) for b, a in sides)
    return Cut((slice(None), slice(None), *kept)), (node.before(layer, node.value(0)),)


def gemm(node: Node) -> Call:
    """Convert Gemm: a linear layer."""
    if node.attribute("transA", 0) or not node.is_known(1):
        raise node.refuse("multiplies computed values. Expected the input times constant weights")
    weight = node.tensor(1) * node.attribute("alpha", 1.0)
    weight = weight if node.attribute("transB", 0) else weight.t()
    bias = None
    if node.has(2):
        bias = (node.tensor(2) * node.attribute("beta", 1.0)).reshape(-1).expand(len(weight))
    return linear(weight, bias), (node.value(0),)


def matmul(node: Node) -> Call:
    """Convert MatMul: a linear layer where the right side is a constant matrix."""
    if node.is_known(1) and node.constant(1).ndim == 2:
        return linear(node.tensor(1).t(), None), (node.value(0),)
    return operation(node.op, torch.matmul), (node.value(0), node.value(1))


def batch_norm(node: Node) -> Call:
    """Convert BatchNormalization, with its statistics."""
    scale, shift, mean, variance = (node.tensor(i) for i in range(1, 5))
    kind = _NORMS.get(len(node.shape()))
    if len(node.proto.output) > 1:  # ONNX Runtime crashes where these are left without names
        raise node.refuse("has outputs for training. Export the model in evaluation mode")
    if kind is None or node.attribute("training_mode", 0):
        raise node.refuse("is in training mode. Export the model in evaluation mode")
    # ONNX weighs the old statistics with its momentum, torch the new ones.
    momentum = 1 - node.attribute("momentum", 0.9)
    layer = bare(kind, len(scale), eps=node.attribute("epsilon", 1e-5), momentum=momentum)
    layer.num_batches_tracked.zero_()
    statistics = {"running_mean": mean, "running_var": variance}
    return fill(layer, weight=scale, bias=shift, **statistics), (node.value(0),)


def instance_norm(node: Node) -> Call:
    """Convert InstanceNormalization."""
    scale, shift = node.tensor(1), node.tensor(2)
    kind = _INSTANCE_NORMS.get(len(node.shape()))
    if kind is None:
        raise node.refuse("normalises neither signals nor images")
    layer = kind(len(scale), eps=node.attribute("epsilon", 1e-5), affine=True)
    return fill(layer, weight=scale, bias=shift), (node.value(0),)


def layer_norm(node: Node) -> Call:
    """Convert LayerNormalization."""
    rank, axis = len(node.shape()), node.attribute("axis", -1)
    layer = nn.LayerNorm(
        node.shape()[axis % rank :], eps=node.attribute("epsilon", 1e-5), bias=node.has(2)
    )
    return fill(layer, weight=node.tensor(1), **_bias(node, 2)), (node.value(0),)


def group_norm(node: Node) -> Call:
    """Convert GroupNormalization, with a scale per channel as from opset 21."""
    scale, shift, groups = node.tensor(1), node.tensor(2), node.attribute("num_groups")
    layer = nn.GroupNorm(groups, node.shape()[1], eps=node.attribute("epsilon", 1e-5))
    return fill(layer, weight=scale, bias=shift), (node.value(0),)


def prelu(node: Node) -> Call:
    """Convert PRelu with one slope, or one per channel."""
    slope = node.tensor(1)
    shape = (1,) * (len(node.shape()) - slope.ndim) + tuple(slope.shape)
    if slope.numel() > 1 and shape[1] != slope.numel():
        raise node.refuse("has slopes that are neither one nor one per channel")
    return fill(nn.PReLU(slope.numel()), weight=slope.reshape(-1)), (node.value(0),)


LAYERS = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "PRelu": prelu,
}
"""Handlers by operation."""

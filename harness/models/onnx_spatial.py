"""Nodes that work on the rows and columns of images: pooling, padding, resizing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from harness.models.onnx_network import operation
from harness.models.onnx_padding import Pad, window_of

if TYPE_CHECKING:
    from harness.models.onnx_network import Function
    from harness.models.onnx_node import Node

    Call = tuple[Function, tuple[str, ...]]

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_GLOBAL: dict[str, dict[int, Any]] = {
    "GlobalAveragePool": {
        3: F.adaptive_avg_pool1d, 4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d,
    },
    "GlobalMaxPool": {
        3: F.adaptive_max_pool1d, 4: F.adaptive_max_pool2d, 5: F.adaptive_max_pool3d,
    },
}  # fmt: skip


def max_pool(node: Node) -> Call:
    """Convert MaxPool."""
    window = window_of(node, tuple(node.attribute("kernel_shape")))
    value, padding = node.value(0), window.before
    if any(node.proto.output[1:]):
        raise node.refuse("returns indices, too, which torch's pooling can't be exported with")
    # torch pads by half a window at most.
    if not window.symmetric or any(2 * p > k for p, k in zip(padding, window.kernel, strict=True)):
        value, padding = node.before(window.pad(-torch.inf), value), (0,) * len(padding)
    call = operation(
        node.op, _MAX[len(padding)], kernel_size=window.kernel, stride=window.stride,
        padding=padding, dilation=window.dilation, ceil_mode=bool(node.attribute("ceil_mode", 0)),
    )  # fmt: skip
    return call, (value,)


def average_pool(node: Node) -> Call:
    """Convert AveragePool; one-sided padding that doesn't count is made up for afterwards."""
    window = window_of(node, tuple(node.attribute("kernel_shape")))
    counted, ceil = bool(node.attribute("count_include_pad", 0)), node.attribute("ceil_mode", 0)
    pool = _AVERAGE.get(len(window.kernel))
    if pool is None or any(d != 1 for d in window.dilation):
        raise node.refuse("has a window with gaps or of too many dimensions")
    options = {"kernel_size": window.kernel, "stride": window.stride, "ceil_mode": bool(ceil)}
    value = node.value(0)
    if window.symmetric:
        call = operation(node.op, pool, padding=window.before, count_include_pad=counted, **options)
        return call, (value,)
    value = node.before(window.pad(), value)
    if counted:
        return operation(node.op, pool, **options), (value,)
    inside = window.pad()(torch.ones(1, 1, *node.shape()[2:]))
    pooled = node.before(operation(node.op, pool, **options), value)
    return operation("MakeUp", torch.div, other=pool(inside, **options)), (pooled,)


def global_pool(node: Node) -> Call:
    """Convert GlobalAveragePool and GlobalMaxPool."""
    pool = _GLOBAL[node.op].get(len(node.shape()))
    if pool is None:
        raise node.refuse("pools neither a signal nor an image")
    return operation(node.op, pool, output_size=1), (node.value(0),)


def pad(node: Node) -> Call:
    """Convert Pad."""
    amounts, mode = node.numbers(1, "pads"), node.attribute("mode", "constant")
    rank = len(node.shape())
    if node.has(3):  # only some axes are given
        axes, given = [a % rank for a in node.constant(3).reshape(-1).tolist()], amounts or []
        amounts = [0] * 2 * rank
        for i, axis in enumerate(axes):
            amounts[axis], amounts[rank + axis] = given[i], given[len(axes) + i]
    if amounts is None or mode not in ("constant", "reflect", "edge"):
        raise node.refuse(f"has the mode {mode!r}. Expected 'constant', 'reflect' or 'edge'")
    value = float(node.constant(2).reshape(())) if node.has(2) else node.attribute("value", 0.0)
    pairs = [(amounts[i], amounts[rank + i]) for i in range(rank)]
    while len(pairs) > 1 and pairs[0] == (0, 0):
        pairs.pop(0)
    flat = tuple(side for pair in reversed(pairs) for side in pair)
    return Pad(flat, value, "replicate" if mode == "edge" else mode), (node.value(0),)


def resize(node: Node) -> Call:
    """Convert Resize and Upsample: to a fixed size, nearest or linear."""
    shape = node.shape()
    mode = node.attribute("mode", "nearest")
    how = node.attribute("coordinate_transformation_mode", "half_pixel")
    if node.op == "Upsample" or node.opset < 11:
        how = "asymmetric"
    size = _resized(node, shape)
    if size[:2] != shape[:2] or mode not in ("nearest", "linear", "cubic") or len(shape) < 3:
        raise node.refuse("resizes the batch or the channels, or in a mode that torch doesn't know")
    if size != shape and set(shape[2:]) != {1}:  # of one pixel, all ways give the same
        _check_resize(node, mode, how, smaller=any(n < m for n, m in zip(size, shape, strict=True)))
    options: dict[str, Any] = {"size": size[2:], "mode": mode}
    if mode != "nearest":
        kinds = {3: "linear", 4: f"bi{mode}", 5: "trilinear"}
        options |= {"mode": kinds[len(shape)], "align_corners": how == "align_corners"}
    return operation(node.op, F.interpolate, **options), (node.value(0),)


def _check_resize(node: Node, mode: str, how: str, smaller: bool) -> None:
    """Refuse ways of resizing that torch lacks; parity judges those that it may have.

    Raises:
        ConfigError: Naming what is lacking.
    """
    rounding = node.attribute("nearest_mode", "round_prefer_floor")
    old = node.op == "Upsample" or node.opset < 11
    lacking = None
    if mode != "nearest" and how == "asymmetric":
        lacking = f"{mode!r} with the coordinates 'asymmetric'"
    elif how == "tf_crop_and_resize":
        lacking = f"the coordinates {how!r}"
    elif mode == "nearest" and not old and not smaller and rounding == "ceil":
        lacking = "'nearest' that rounds up ('ceil')"
    elif (
        mode == "nearest" and not old and not smaller and (rounding, how) == ("floor", "half_pixel")
    ):
        lacking = f"'nearest' that rounds down ('floor') with the coordinates {how!r}"
    elif smaller and node.attribute("antialias", 0):
        lacking = "antialias"
    if lacking is not None:
        raise node.refuse(
            f"resizes in a mode that torch doesn't know: {lacking}. Export it as 'nearest' with "
            "'asymmetric' and 'floor', or as 'linear' with 'half_pixel'"
        )


def _resized(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    old = node.op == "Upsample" or node.opset < 11
    if node.has(3):
        sizes = tuple(int(n) for n in node.known(3)[0])
        # A batch that is baked in is the file's, ours is another.
        return (shape[0], *sizes[1:]) if sizes[0] == node.walk.fixed else sizes
    scales = node.constant(1 if old else 2)
    return tuple(int(n * s) for n, s in zip(shape, scales.tolist(), strict=True))


def depth_to_space(node: Node) -> Call:
    """Convert DepthToSpace."""
    size = node.attribute("blocksize")
    if node.attribute("mode", "DCR") == "CRD":
        return operation(node.op, F.pixel_shuffle, upscale_factor=size), (node.value(0),)
    return operation(node.op, _depth_first, size=size), (node.value(0),)


def _depth_first(x: torch.Tensor, size: int) -> torch.Tensor:
    n, _, height, width = x.shape
    parts = x.reshape(n, size, size, -1, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, -1, height * size, width * size)


def space_to_depth(node: Node) -> Call:
    """Convert SpaceToDepth."""
    return operation(node.op, _packed, size=node.attribute("blocksize")), (node.value(0),)


def _packed(x: torch.Tensor, size: int) -> torch.Tensor:
    n, channels, height, width = x.shape
    parts = x.reshape(n, channels, height // size, size, width // size, size)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, height // size, width // size)


def local_response_norm(node: Node) -> Call:
    """Convert LRN."""
    call = operation(
        node.op, F.local_response_norm, size=node.attribute("size"),
        alpha=node.attribute("alpha", 1e-4), beta=node.attribute("beta", 0.75),
        k=node.attribute("bias", 1.0),
    )  # fmt: skip
    return call, (node.value(0),)


SPATIAL = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "Pad": pad,
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "LRN": local_response_norm,
}
"""Handlers by operation."""

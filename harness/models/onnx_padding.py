"""Windows of ONNX's convolutions and poolings: sizes, and padding in any of its spellings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    import torch

    from harness.models.onnx_node import Node

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pad:
    """Pad with one value, or by repeating what is there.

    Attributes:
        amounts: As torch takes them: before and after, the last dimension first.
        value: For the mode `"constant"`.
        mode: torch's name.
    """

    amounts: Sizes
    value: float = 0.0
    mode: str = "constant"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the padded tensor."""
        if self.mode == "constant":
            return F.pad(x, self.amounts, value=self.value)
        return F.pad(x, self.amounts, mode=self.mode)


@dataclass(frozen=True, slots=True)
class Cut:
    """Keep a part of each dimension."""

    bounds: tuple[slice, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the part."""
        return x[self.bounds]


@dataclass(frozen=True, slots=True)
class Window:
    """What slides over an image.

    Attributes:
        kernel, stride, dilation, before, after: One size per spatial dimension.
    """

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes
    after: Sizes

    @property
    def symmetric(self) -> bool:
        """Whether both sides are padded alike."""
        return self.before == self.after

    def pad(self, value: float = 0.0) -> Pad:
        """Return the padding as an operation of its own."""
        pairs = zip(reversed(self.before), reversed(self.after), strict=True)
        return Pad(tuple(side for pair in pairs for side in pair), value)


def window_of(node: Node, kernel: Sizes) -> Window:
    """Return a node's window; `auto_pad` is worked out for the input's size.

    Args:
        node: A convolution or pooling.
        kernel: Its size per spatial dimension.
    """
    rank = len(kernel)
    stride = tuple(node.attribute("strides", [1] * rank))
    dilation = tuple(node.attribute("dilations", [1] * rank))
    auto = node.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = zip(node.shape()[2:], kernel, stride, dilation, strict=True)
        totals = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sizes]
        small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    else:
        pads = node.attribute("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        before, after = tuple(pads[:rank]), tuple(pads[rank:])
    return Window(kernel, stride, dilation, before, after)


def transposed_window(node: Node, kernel: Sizes) -> Window:
    """Return a transposed convolution's window; its padding is what is cut off the output.

    Args:
        node: A ConvTranspose.
        kernel: Its size per spatial dimension.
    """
    window, auto = window_of(node, kernel), node.attribute("auto_pad", "NOTSET")
    sizes, wanted = node.shape()[2:], node.attribute("output_shape")
    if wanted is None and not auto.startswith("SAME"):
        return window
    wanted = wanted or [n * s for n, s in zip(sizes, window.stride, strict=True)]
    extra = node.attribute("output_padding", [0] * len(kernel))
    parts = zip(
        sizes, window.stride, window.dilation, kernel, extra, wanted[-len(kernel) :], strict=True
    )
    totals = [max((n - 1) * s + (k - 1) * d + 1 + e - w, 0) for n, s, d, k, e, w in parts]
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    # As ONNX's reference has it: the larger half goes first, but for SAME_UPPER.
    before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    return Window(kernel, window.stride, window.dilation, before, after)

"""EfficientNet-lite0, written plainly; `harness.models.imagenet` has its ImageNet weights.

It is EfficientNet-B0 (Tan & Le, 2019) without squeeze-and-excitation and with ReLU6, as in Google's
"EfficientNet-Lite" (2020). Convolutions pad as TensorFlow's "same": where the stride is 2 and the
size even, by one pixel more at the bottom and right than at the top and left.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from harness.models.building import check_sample, init_he

STAGES = (
    (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2), (6, 320, 1, 3, 1),
)  # fmt: skip
"""Expansion, channels, blocks, kernel and stride of the first block: B0's table 1."""
_STEM, _LAST, _EPS = 32, 1280, 1e-3


def _padding(size: tuple[int, int], kernel: int, stride: int) -> nn.Module:
    """Return what pads images of `size` with zeros, so that ceil(size / stride) pixels result."""
    high, wide = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size)
    return nn.ZeroPad2d((wide // 2, wide - wide // 2, high // 2, high - high // 2))


class MbConv(nn.Module):
    """1x1 convolution to more channels, depthwise, 1x1 to few; beside a shortcut if it fits.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        expansion: Inner channels per channel of the input; at 1 the first convolution is left out.
        kernel: Of the depthwise convolution.
        stride: Of the depthwise convolution.
        size: Height and width of the input.
    """

    def __init__(
        self, in_channels: int, channels: int, expansion: int, kernel: int, stride: int,
        size: tuple[int, int],
    ) -> None:  # fmt: skip
        super().__init__()
        inner = in_channels * expansion
        self.expands = expansion > 1
        if self.expands:
            self.expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False)
            self.bn0 = nn.BatchNorm2d(inner, _EPS)
        # An even padding is the convolution's own; only an uneven one needs a step of its own.
        own = kernel // 2 if stride == 1 else 0
        self.pad = nn.Identity() if stride == 1 else _padding(size, kernel, stride)
        self.depthwise_conv = nn.Conv2d(
            inner, inner, kernel, stride, own, groups=inner, bias=False
        )  # fmt: skip
        self.bn1 = nn.BatchNorm2d(inner, _EPS)
        self.project_conv = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, _EPS)
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float `[N, in_channels, H, W]` to `[N, channels, H / stride, W / stride]`."""
        y = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        y = F.relu6(self.bn1(self.depthwise_conv(self.pad(y))))
        narrow: torch.Tensor = self.bn2(self.project_conv(y))
        return x + narrow if self.has_shortcut else narrow


class EfficientNetLite0(nn.Module):
    """A convolution, seven stages of `MbConv`, a convolution, mean pooling and a linear layer.

    Args:
        inputs: Shape of an image `(C, H, W)`; the network takes this size only.
        outputs: Classes, or values to predict.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, height, width = inputs
        self.pad = _padding((height, width), 3, 2)
        self.conv_stem = nn.Conv2d(channels, _STEM, 3, 2, bias=False)
        self.bn0 = nn.BatchNorm2d(_STEM, _EPS)
        size, previous = (-(-height // 2), -(-width // 2)), _STEM
        blocks: list[nn.Module] = []
        for expansion, channels, count, kernel, stride in STAGES:
            for step in (stride, *[1] * (count - 1)):
                blocks.append(MbConv(previous, channels, expansion, kernel, step, size))
                size, previous = (-(-size[0] // step), -(-size[1] // step)), channels
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = nn.Conv2d(previous, _LAST, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_LAST, _EPS)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(_LAST, outputs)
        init_he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float images `[N, C, H, W]` to `[N, outputs]`."""
        x = self.blocks(F.relu6(self.bn0(self.conv_stem(self.pad(x)))))
        x = F.relu6(self.bn1(self.conv_head(x)))
        found: torch.Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return found


def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the network for images of shape `inputs`, untrained."""
    check_sample("efficientnet-lite0", inputs, "CHW", 32)
    return EfficientNetLite0(inputs, outputs)

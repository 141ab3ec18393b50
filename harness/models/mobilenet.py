"""MobileNetV2; Sandler et al. (2018), "Inverted residuals and linear bottlenecks".

Parameters are named as torchvision's, so that its weights load.
"""

from __future__ import annotations

import torch
from torch import nn

from harness.models.building import check_sample, init_he

STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, blocks and stride of the first block: the paper's table 2."""
_STEM, _LAST = 32, 1280
_SMALL = 64
"""Images with a shorter side are halved three times instead of five: not in the stem and not in
the first stage that would, so that 32x32 ends at 4x4."""


def _conv(in_channels: int, channels: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(channels),
        nn.ReLU6(inplace=True),
    )  # fmt: skip


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, 3x3 depthwise, 1x1 to few; beside a shortcut if it fits.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Of the depthwise convolution.
        expansion: Inner channels per channel of the input; at 1 the first convolution is left out.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        layers = [_conv(in_channels, inner, 1, 1, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *layers,
            _conv(inner, inner, 3, stride, inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float `[N, in_channels, H, W]` to `[N, channels, H / stride, W / stride]`."""
        y: torch.Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """A convolution, seven stages of inverted residuals, a convolution and a linear layer.

    Args:
        in_channels: Of the images.
        outputs: Classes, or values to predict.
        small: Whether the images are so small that they are halved three times instead of five.
    """

    def __init__(self, in_channels: int, outputs: int, small: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(in_channels, _STEM, 3, 1 if small else 2, 1)]
        previous = _STEM
        for number, (expansion, channels, blocks, stride) in enumerate(STAGES):
            first = 1 if small and number == 1 else stride
            for block in range(blocks):
                step = 1 if block else first
                layers.append(InvertedResidual(previous, channels, step, expansion))
                previous = channels
        self.features = nn.Sequential(*layers, _conv(previous, _LAST, 1, 1, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_LAST, outputs))
        init_he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float images `[N, C, H, W]` to `[N, outputs]`."""
        found: torch.Tensor = self.classifier(self.features(x).mean((2, 3)))
        return found


def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the network for images of shape `inputs`, untrained."""
    check_sample("mobilenetv2", inputs, "CHW", 16)
    return MobileNetV2(inputs[0], outputs, small=min(inputs[1:]) < _SMALL)

"""A small residual CNN, written plainly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from harness.models.building import check_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS, BLOCKS = (64, 128, 192), (2, 1, 1)
"""Sized so that a call takes 0.5-2 ms on one CPU thread: arithmetic is timed, not overhead."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; He et al. (2016), "Deep residual learning".

    Args:
        in_channels: Channels of the input.
        channels: Channels of both convolutions' outputs.
        stride: Of the first convolution; above 1, or with other channels, the shortcut is a 1x1
            convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float `[N, in_channels, H, W]` to `[N, channels, H / stride, W / stride]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResidualCnn(nn.Module):
    """A stem of stride 2, stages of residual blocks, average pooling and a linear head.

    Args:
        in_channels: Of the images.
        widths: Channels of each stage; every stage after the first halves the resolution.
        blocks: Blocks of each stage.
        classes: Outputs.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], blocks: Sequence[int], classes: int
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, widths[0], 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        stages, previous = [], widths[0]
        for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers = []
            for j in range(count):
                layers.append(ResidualBlock(previous, width, 2 if i and not j else 1))
                previous = width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(previous, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float images `[N, C, H, W]` to logits `[N, classes]`."""
        x = self.stages(F.relu(self.bn(self.stem(x))))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the network for images of shape `inputs`, as the digits task has it, untrained."""
    check_sample("residual-cnn", inputs, "CHW", 8)
    return ResidualCnn(inputs[0], WIDTHS, BLOCKS, outputs)

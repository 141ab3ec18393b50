"""The residual networks of He et al. (2016), "Deep residual learning", section 4.2, for 32x32.

Where a block halves the resolution, the paper's shortcut has no weights ("option A"): it takes
every second pixel and pads the channels with zeros. Here it is a 1x1 convolution of stride 2 that
starts as just that function: ONNX Runtime is faster with it, and its channels can be pruned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from harness.models.building import check_sample, init_he

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output; with other channels than the input's the resolution is
            halved.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        stride = 1 if in_channels == channels else 2
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.register_load_state_dict_pre_hook(_add_option_a)  # type: ignore[no-untyped-call]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float `[N, in_channels, H, W]` to `[N, channels, H / stride, W / stride]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def option_a(in_channels: int, channels: int) -> torch.Tensor:
    """Return the 1x1 weights `[channels, in_channels, 1, 1]` that pad channels on both sides."""
    weight = torch.zeros(channels, in_channels, 1, 1)
    first = (channels - in_channels) // 2
    weight[first : first + in_channels, :, 0, 0] = torch.eye(in_channels)
    return weight


def _add_option_a(block: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a checkpoint of the paper's own network, which lacks them, the shortcut's weights."""
    shortcut = block.get_submodule("shortcut")
    # A compressed network's shortcut is no padding any more: its checkpoint has to bring it.
    if isinstance(shortcut, nn.Conv2d) and shortcut.out_channels == 2 * shortcut.in_channels:
        weight = option_a(shortcut.in_channels, shortcut.out_channels)
        state.setdefault(f"{prefix}shortcut.weight", weight)


class ResNet(nn.Module):
    """A 3x3 convolution, three stages of residual blocks, mean pooling and a linear layer.

    Args:
        in_channels: Of the images.
        blocks: In each stage; the network has 6 * blocks + 2 layers.
        classes: Outputs.
        widths: Channels of each stage, each twice the last.
    """

    def __init__(
        self, in_channels: int, blocks: int, classes: int, widths: Sequence[int] = WIDTHS
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(in_channels, first, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, blocks)
        self.layer2 = _stage(first, second, blocks)
        self.layer3 = _stage(second, third, blocks)
        self.linear = nn.Linear(third, classes)
        init_he(self)
        for block in self.modules():
            if isinstance(block, BasicBlock) and isinstance(block.shortcut, nn.Conv2d):
                shortcut = block.shortcut
                with torch.no_grad():
                    shortcut.weight.copy_(option_a(shortcut.in_channels, shortcut.out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float images `[N, C, H, W]` to `[N, classes]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    rest = (BasicBlock(channels, channels) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(in_channels, channels), *rest)


def resnet20(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return a ResNet-20 for images of shape `inputs`, untrained."""
    check_sample("resnet20", inputs, "CHW", 8)
    return ResNet(inputs[0], 3, outputs)


def resnet56(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return a ResNet-56 for images of shape `inputs`, untrained."""
    check_sample("resnet56", inputs, "CHW", 8)
    return ResNet(inputs[0], 9, outputs)

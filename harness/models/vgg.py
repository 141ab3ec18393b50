"""VGG-16 with batch norm; Simonyan & Zisserman (2015), "Very deep convolutional networks".

One linear layer on mean-pooled features stands for the paper's three large ones, as is usual for
32x32. The layers of `features` are numbered as torchvision's `vgg16_bn`, biases included.
"""

from __future__ import annotations

import torch
from torch import nn

from harness.models.building import check_sample, init_he

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of each convolution; every stage ends in pooling over 2x2."""


class Vgg16(nn.Module):
    """Thirteen 3x3 convolutions in five stages, mean pooling and a linear layer.

    Args:
        in_channels: Of the images.
        outputs: Classes, or values to predict.
    """

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in STAGES:
            for channels in stage:
                layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
                layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(in_channels, outputs)
        init_he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float images `[N, C, H, W]` to `[N, outputs]`."""
        found: torch.Tensor = self.classifier(self.features(x).mean((2, 3)))
        return found


def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the network for images of shape `inputs`, untrained."""
    check_sample("vgg16", inputs, "CHW", 32)
    return Vgg16(inputs[0], outputs)

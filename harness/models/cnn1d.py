"""A small CNN for signals, written plainly."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from harness.models.building import check_sample, init_he


class Cnn1d(nn.Module):
    """Four 1-D convolutions with batch norm, mean pooling and a linear layer.

    Args:
        in_channels: Of the signals.
        outputs: Classes, or values to predict.
    """

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, 32, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm1d(32)
        self.conv2 = nn.Conv1d(32, 64, 5, 2, 2, bias=False)
        self.bn2 = nn.BatchNorm1d(64)
        self.conv3 = nn.Conv1d(64, 128, 3, 2, 1, bias=False)
        self.bn3 = nn.BatchNorm1d(128)
        self.conv4 = nn.Conv1d(128, 128, 3, 1, 1, bias=False)
        self.bn4 = nn.BatchNorm1d(128)
        self.head = nn.Linear(128, outputs)
        init_he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float signals `[N, C, L]` to `[N, outputs]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.relu(self.bn4(self.conv4(x)))
        found: torch.Tensor = self.head(x.mean(2))
        return found


def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the network for signals of shape `inputs`, untrained."""
    check_sample("cnn1d", inputs, "CL", 16)
    return Cnn1d(inputs[0], outputs)

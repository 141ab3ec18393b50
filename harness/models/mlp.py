"""A multi-layer perceptron for tables, written plainly."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from harness.models.building import check_sample

WIDTH = 128


class Mlp(nn.Module):
    """Three hidden layers with batch norm, and a linear layer.

    Args:
        features: Of a row.
        outputs: Classes, or values to predict.
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(features, WIDTH)
        self.bn1 = nn.BatchNorm1d(WIDTH)
        self.hidden2 = nn.Linear(WIDTH, WIDTH)
        self.bn2 = nn.BatchNorm1d(WIDTH)
        self.hidden3 = nn.Linear(WIDTH, WIDTH)
        self.bn3 = nn.BatchNorm1d(WIDTH)
        self.head = nn.Linear(WIDTH, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float rows `[N, F]` to `[N, outputs]`."""
        x = F.relu(self.bn1(self.hidden1(x)))
        x = F.relu(self.bn2(self.hidden2(x)))
        x = F.relu(self.bn3(self.hidden3(x)))
        found: torch.Tensor = self.head(x)
        return found


def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the network for rows of shape `inputs`, untrained."""
    check_sample("mlp", inputs, "F")
    return Mlp(inputs[0], outputs)

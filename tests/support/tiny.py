"""A task that trains in a second: two kinds of stripes, a network of two convolutions."""

from __future__ import annotations

import functools
import hashlib

import torch
from torch import nn
from torch.nn import functional as F

from harness.tasks.base import Recipe, Split, Task


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 48, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(48)
        self.head = nn.Linear(48, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


class Tiny(Task):
    name = "tiny"
    description = "stripes"
    recipe = Recipe(2, 1, 32, 0.1, 0.05, 1e-4)

    def model(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return TinyNet()

    def train(self) -> Split:
        return _split(0, 320)

    def validation(self) -> Split:
        return _split(1, 50)

    def test(self) -> Split:
        return _split(2, 90)

    def data_sha256(self) -> str:
        parts = [_split(i, n).inputs.numpy().tobytes() for i, n in ((0, 320), (1, 50), (2, 90))]
        return hashlib.sha256(b"".join(parts)).hexdigest()


@functools.cache
def _split(seed: int, n: int) -> Split:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=rng)
    ramp = torch.arange(8).float()
    waves = torch.stack([torch.sin(ramp * f) for f in (0.8, 1.6, 2.4)])
    images = waves[labels][:, None, None, :].expand(n, 1, 8, 8)
    return Split(images + 2.0 * torch.randn(n, 1, 8, 8, generator=rng), labels)

"""Networks of the settings that are no shipped ones."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from harness.compression.rewriting.shortcuts import find_shortcuts, with_convolutions
from harness.models.residual import ResidualCnn
from harness.models.resnet import resnet20

SEED, WEIGHTS = "RIVALS_SEED", "RIVALS_WEIGHTS"
"""Environment variables: what draws the initial weights, and where trained ones are."""


def resnet8(num_classes: int, in_channels: int) -> nn.Module:
    """Return a residual CNN of three blocks, its shortcuts 1x1 convolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(os.environ[SEED]))
        return ResidualCnn(in_channels, (32, 64, 128), (1, 1, 1), classes=num_classes)


def resnet20_rewritten() -> nn.Module:
    """Return the trained ResNet-20, its zero-padded shortcuts rewritten as convolutions."""
    network = resnet20(num_classes=10)
    network.load_state_dict(load_file(Path(os.environ[WEIGHTS])))
    network.eval()
    shortcuts, _ = find_shortcuts(network, torch.randn(1, 3, 32, 32))
    return with_convolutions(network, shortcuts)

"""What a user brings, as files: a network, its weights, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from harness.tasks.base import Task
from support.tiny import tiny

NETS = '''\
import torch
from torch import nn


class Stripes(nn.Module):
    """Two convolutions, as the tiny task's."""

    def __init__(self, num_classes, in_channels=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 48, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(48)
        self.head = nn.Linear(48, num_classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


def build(num_classes, in_channels):
    return Stripes(num_classes, in_channels)


def broken(num_classes):
    raise RuntimeError("no such layer")


def weighted_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, weight=torch.ones(outputs.shape[1]))


def share_of_right(outputs, targets):
    return (outputs.argmax(1) == targets).float()
'''


def write_network(folder: Path, trained: Task | None = None) -> Path:
    """Write nets.py and w.safetensors, weights of a network that fits it; return the first."""
    (folder / "nets.py").write_text(NETS)
    network = (trained or tiny()).model()
    save_file(network.state_dict(), str(folder / "w.safetensors"))
    return folder / "nets.py"


def write_images(path: Path, n: int = 300, seed: int = 0, **more: Any) -> Path:
    """Write grey images of three kinds of stripes and their labels as .npz."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    waves = np.stack([np.sin(np.arange(8) * f) for f in (0.8, 1.6, 2.4)])
    images = waves[labels][:, None, :] + rng.normal(size=(n, 8, 8))
    grey = np.clip(128 + 40 * images, 0, 255).astype(np.uint8)
    np.savez(path, **{"x": grey, "y": labels, **more})
    return path


def write_table(path: Path, n: int = 300, seed: int = 0) -> Path:
    """Write a table: three numbers, a colour, missing values, and `y` to predict."""
    rng = np.random.default_rng(seed)
    x, colour = rng.normal(size=(n, 3)), rng.choice(["red", "green", "blue"], n)
    y = 2 * x[:, 0] - x[:, 1] + (colour == "red") + 0.2 * rng.normal(size=n)
    rows = ["a,b,c,colour,y"]
    for i in range(n):
        a = "" if i % 50 == 7 else f"{x[i, 0]:.4f}"
        rows.append(f"{a},{x[i, 1]:.4f},{x[i, 2]:.4f},{colour[i]},{y[i]:.4f}")
    path.write_text("\n".join(rows) + "\n")
    return path


def trained_tiny() -> Task:
    """Return the tiny task with a network that has learned the stripes a little."""
    from harness.training import fit

    task = tiny()
    torch.manual_seed(0)
    module = task.network.module
    fit(module, task.data.train, task.objective, task.recipe, epochs=2, lr=0.1, seed=0)
    return task

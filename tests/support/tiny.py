"""A task that trains in a second: three kinds of stripes, a network of two convolutions."""

from __future__ import annotations

import functools
import hashlib

import torch
from torch import nn
from torch.nn import functional as F

from harness.data.split import Data, Split
from harness.models.network import Network
from harness.tasks.base import Task
from harness.tasks.objective import make_objective
from harness.tasks.recipe import Recipe

RECIPE = Recipe(
    teacher_epochs=2, trial_epochs=1, batch=32, teacher_lr=0.1, trial_lr=0.05, weight_decay=1e-4
)
SIZES = {"train": 320, "validation": 50, "test": 90}


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


def tiny() -> Task:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = TinyNet().eval()
    data = tiny_data()
    return Task(
        name="tiny",
        network=Network(network, "tinynet"),
        data=data,
        objective=make_objective(data),
        recipe=RECIPE,
        source={"task": "tiny"},
        description="stripes",
    )


@functools.cache
def tiny_data() -> Data:
    splits = {name: stripes(seed, n) for seed, (name, n) in enumerate(SIZES.items())}
    digest = hashlib.sha256(b"".join(s.inputs.numpy().tobytes() for s in splits.values()))
    return Data(
        name="stripes", kind="classification", outputs=3, sha256=digest.hexdigest(),
        classes=("slow", "middle", "fast"), origin="made up", description="stripes", **splits,
    )  # fmt: skip


def stripes(seed: int, n: int) -> Split:
    """Return `n` noisy images `[n, 1, 8, 8]` of three kinds of stripes."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=rng)
    ramp = torch.arange(8).float()
    waves = torch.stack([torch.sin(ramp * f) for f in (0.8, 1.6, 2.4)])
    images = waves[labels][:, None, None, :].expand(n, 1, 8, 8)
    return Split(images + 2.0 * torch.randn(n, 1, 8, 8, generator=rng), labels)

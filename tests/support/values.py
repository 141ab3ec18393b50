"""Small data and networks of other kinds: values to predict, and two outputs at once."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from harness.data.split import Data, Split, Targets

SIZES = {"train": 240, "validation": 60, "test": 60}
FEATURES = 5


class Regressor(nn.Module):
    """Features `[N, 5]` to values `[N, outputs]`."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, 32)
        self.fc2 = nn.Linear(32, 24)
        self.head = nn.Linear(24, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.fc2(F.relu(self.fc1(x)))))


class TwoHeads(nn.Module):
    """Features `[N, 5]` to logits `[N, 3]` and values `[N, 2]`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, 32)
        self.fc2 = nn.Linear(32, 24)
        self.classes = nn.Linear(24, 3)
        self.values = nn.Linear(24, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.classes(x), self.values(x)


def seeded(make: type[nn.Module], seed: int = 0) -> nn.Module:
    """Return a network with the same weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def table(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features `[n, 5]`, values `[n, 2]` of two units, classes `[n]`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, FEATURES))
    first = 5 + 10 * (x[:, 0] + 0.5 * x[:, 1] + 0.1 * rng.normal(size=n))
    second = 0.1 * (x[:, 2] - x[:, 3] + 0.1 * rng.normal(size=n))
    classes = np.digitize(x[:, 0] + x[:, 4], [-0.6, 0.6])
    values = np.stack([first, second], axis=1).astype(np.float32)
    return (
        torch.from_numpy(x.astype(np.float32)), torch.from_numpy(values), torch.from_numpy(classes),
    )  # fmt: skip


def regression_data(columns: int = 1) -> Data:
    """Return values `[N, columns]` to predict."""
    return _data("regression", columns)


def two_output_data() -> Data:
    """Return classes `[N]` and values `[N, 2]` to predict together."""
    return _data("other", None)


def _data(kind: str, columns: int | None) -> Data:
    digest, splits = hashlib.sha256(kind.encode()), {}
    for seed, (name, n) in enumerate(SIZES.items()):
        x, values, classes = table(n, seed)
        targets: Targets = (classes, values) if columns is None else values[:, :columns]
        splits[name] = Split(x, targets)
        digest.update(x.numpy().tobytes() + values[:, :columns].contiguous().numpy().tobytes())
    return Data(
        name=f"made-{kind}", kind=kind, outputs=columns, sha256=digest.hexdigest(),
        origin="made up", **splits,
    )  # fmt: skip

"""In which memory layout and precision a network is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness import manner
from harness.errors import TaskError
from harness.manner import PLAIN, Manner, find_manner, set_memory_format
from harness.training import fit
from support.tiny import RECIPE, TinyNet, tiny, tiny_data
from support.values import seeded

OBJECTIVE = tiny().objective
SMALL = tiny_data().train.take(torch.arange(96))


class View(nn.Module):
    """Flattens by `view`, as tutorials do: impossible where images lie channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 2, 1)
        self.head = nn.Linear(8 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x))
        return self.head(x.view(x.size(0), -1))


class Volumes(View):
    """Keeps a buffer of five dimensions, which has no channels-last layout of images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.conv3d(x[:, None], self.kernel, padding=1)[:, 0])


class Broken(View):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("not today")


class Lerping(View):
    """Mixes in place with a float32 parameter: impossible in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = nn.Parameter(torch.zeros(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head(x.lerp_(self.rest.expand_as(x), 0.1).flatten(1))


MANNERS = {
    "any": (TinyNet, Manner(channels_last=True, bfloat16=True)),
    "view": (View, Manner(channels_last=False, bfloat16=True)),
    "volumes": (Volumes, Manner(channels_last=False, bfloat16=True)),
    "lerping": (Lerping, Manner(channels_last=True, bfloat16=False)),
    "broken": (Broken, PLAIN),
}


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any CPU be one that trains in bfloat16."""
    monkeypatch.setattr(manner, "bfloat16_is_faster", lambda: True)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("name", MANNERS)
def test_the_fastest_manner_that_a_network_allows_is_found(name: str) -> None:
    make, expected = MANNERS[name]
    network = seeded(make)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(7)
    found = find_manner(network, SMALL, OBJECTIVE, RECIPE)
    drawn = torch.rand(1)
    assert found == expected
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.is_contiguous() and p.grad is None for p in network.parameters())
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("name", ["view", "volumes", "lerping"])
def test_networks_train_that_fail_channels_last_or_in_bfloat16(name: str) -> None:
    network = seeded(MANNERS[name][0])
    set_memory_format(network.conv, torch.channels_last)  # type: ignore[arg-type]
    before = {key: value.clone() for key, value in network.named_parameters()}
    fit(network, SMALL, OBJECTIVE, RECIPE, epochs=1, lr=0.1, seed=0)
    assert all(not torch.equal(p, before[key]) for key, p in network.named_parameters())


def test_what_fails_in_any_manner_is_told_in_its_own_words() -> None:
    with pytest.raises(TaskError, match=r"can't be trained: ValueError: not today"):
        fit(Broken(), SMALL, OBJECTIVE, RECIPE, epochs=1, lr=0.1, seed=0)

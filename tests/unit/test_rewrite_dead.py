from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.compression.rewriting.dead import find_dead, without_dead
from harness.compression.running import difference, tensors_of
from support.networks import NETWORKS, network

BATCHES = [torch.randn(1, 6), torch.randn(5, 6)]


class Base(nn.Module):
    """Two layers that run, and what a test adds."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu())


class Unused(Base):
    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2))
        self.lists = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.idle = nn.Dropout()
        self.alias = self.auxiliary

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.lists[1](x))


def test_modules_that_never_run_leave() -> None:
    model = Unused().eval()
    count = sum(one.numel() for one in model.parameters())
    found, notes = find_dead(model, BATCHES)
    assert found == ["auxiliary", "lists.0"]
    assert notes == ()
    new = without_dead(model, found)
    assert isinstance(new.alias, nn.Identity)
    assert isinstance(new.idle, nn.Dropout)
    gone = sum(one.numel() for one in model.auxiliary.parameters()) + 6 * 7
    assert sum(one.numel() for one in new.parameters()) == count - gone
    assert difference(tensors_of(model, BATCHES[1]), tensors_of(new, BATCHES[1])) == 0.0
    assert sum(one.numel() for one in model.parameters()) == count


class WeightsOnly(Unused):
    """One of the layers is never called, but its weights are used."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x @ self.auxiliary[0].weight.mean(0)[:, None]


def test_what_is_read_without_a_call_stays() -> None:
    assert find_dead(WeightsOnly().eval(), BATCHES)[0] == ["auxiliary.2", "lists.0"]


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x[:, None], x[:, None], x[:, None])[0]


def test_attention_uses_a_layer_that_it_doesn_t_call() -> None:
    assert find_dead(Attending().eval(), BATCHES) == ([], ())


class InTraining(Unused):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        extra = self.auxiliary(x) if self.training else 0
        return super().forward(x) + extra


def test_an_auxiliary_head_that_is_trained_stays_and_is_told() -> None:
    found, (note,) = find_dead(InTraining().eval(), BATCHES)
    assert found == ["lists.0"]
    assert "auxiliary" in note
    assert "take part in training" in note


class OnlyEvaluation(Unused):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise RuntimeError("not made for that")
        return super().forward(x)


def test_a_network_that_can_t_be_trained_keeps_all() -> None:
    found, (note,) = find_dead(OnlyEvaluation().eval(), BATCHES)
    assert found == []
    assert "training mode" in note


class Routed(Unused):
    """An expert that only samples of one kind reach."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x > 100).any():
            return self.auxiliary(x)
        return super().forward(x)


class Masked(Unused):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        far = x[x[:, 0] > 100]
        return super().forward(x) + (self.auxiliary(far).sum() if len(far) else 0)


@pytest.mark.parametrize("kind", [Routed, Masked])
def test_a_network_that_decides_by_values_keeps_all(kind: type[nn.Module]) -> None:
    found, (note,) = find_dead(kind().eval(), BATCHES)
    assert found == []
    assert "decides by values" in note


def test_modes_and_random_numbers_stay_as_they_are() -> None:
    model = Unused().eval()
    before = torch.random.get_rng_state()
    find_dead(model, BATCHES)
    assert not any(one.training for one in model.modules())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_have_none(name: str) -> None:
    model, example = network(name)
    assert find_dead(model, [example])[0] == []

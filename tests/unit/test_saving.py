"""Weights on disk: every name of the state dict is there, shared or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import prune
from harness.manner import set_memory_format
from harness.models.saving import save_weights
from support.tiny import TinyNet
from support.values import seeded

if TYPE_CHECKING:
    from pathlib import Path


class Tied(nn.Module):
    """Two linear layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.one, self.two = nn.Linear(64, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight = self.one.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(self.lift(x.flatten(1))).relu()))


class Alias(Tied):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.two = self.one


class Views(TinyNet):
    """A buffer that is a part of another, as positions often are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("all", torch.arange(12.0))
        self.register_buffer("some", self.all[3:7])


@pytest.mark.parametrize("make", [TinyNet, Tied, Alias, Views])
def test_weights_are_found_again_under_every_name(make: type[nn.Module], tmp_path: Path) -> None:
    network, example = seeded(make).eval(), torch.randn(1, 1, 8, 8)
    graph = pruning_graph(network, example)
    history = {group.name: [0] for group in graph.groups}
    for dense in (network, prune(network, graph, example, history)):
        set_memory_format(dense, torch.channels_last)
        state = load_file(save_weights(dense, tmp_path / "w.safetensors"))
        expected = dense.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    again = prune(seeded(make).eval(), graph, example, history)
    again.load_state_dict(state)
    torch.testing.assert_close(again(example), dense(example))

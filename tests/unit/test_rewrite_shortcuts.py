from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import last_channels, prune
from harness.compression.rewriting.shortcuts import Shortcut, find_shortcuts, with_convolutions
from harness.compression.running import difference, tensors_of
from harness.export import onnx_bytes
from support.networks import NETWORKS, LambdaLayer, PaddedResNet, halved, network

STREAM = ("conv1", "layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2")


def padded(inline: bool) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PaddedResNet(inline).eval(), torch.randn(1, 3, 16, 16)


def zeros_after(x: torch.Tensor, count: int) -> torch.Tensor:
    return F.pad(x, (0, 0, 0, 0, 0, count))


@pytest.mark.parametrize("inline", [False, True])
def test_the_residual_stream_can_be_pruned_afterwards(inline: bool) -> None:
    model, example = padded(inline)
    before = pruning_graph(model, example)
    assert {one.name for one in before.unprunable} == set(STREAM)
    found, notes = find_shortcuts(model, example)
    assert [(s.selection.inputs, len(s.selection.channels)) for s in found] == [(8, 16), (16, 32)]
    assert notes == ()
    new = with_convolutions(model, found)
    after = pruning_graph(new, example)
    assert not after.unprunable
    names = {group.name for group in after.groups} - {group.name for group in before.groups}
    assert names == {"conv1", "layer2.0.conv2", "layer3.0.conv2"}
    batch = 5 * torch.randn(4, 3, 16, 16)
    assert difference(tensors_of(model, batch), tensors_of(new, batch)) == 0.0


@pytest.mark.parametrize("inline", [False, True])
def test_a_rewritten_network_is_pruned_trained_and_exported(inline: bool) -> None:
    model, example = padded(inline)
    new = with_convolutions(model, find_shortcuts(model, example)[0])
    graph = pruning_graph(new, example)
    widths = {name: width // 2 for name, width in graph.dense_widths().items()}
    smaller = prune(new, graph, example, last_channels(graph, widths)).train()
    assert len(smaller.conv1.weight) == 4
    smaller(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(one.grad is not None for one in smaller.parameters())
    again = copy.deepcopy(smaller).eval()
    assert onnx_bytes(again, example)


@pytest.mark.parametrize("inline", [False, True])
def test_the_same_structure_comes_from_json(inline: bool) -> None:
    model, example = padded(inline)
    found = find_shortcuts(model, example)[0]
    told = json.loads(json.dumps([one.as_json() for one in found]))
    again = [Shortcut.from_json(one) for one in told]
    assert again == found
    one, other = with_convolutions(model, found), with_convolutions(model, again)
    assert one.state_dict().keys() == other.state_dict().keys() > model.state_dict().keys()
    assert not any("padded" in name for name in model.state_dict())


class Around(nn.Module):
    """A convolution, what is tried, and a head."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.conv, self.middle, self.head = nn.Conv2d(3, 4, 3), middle, nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.conv(x)).mean((2, 3)))


class Inline(nn.Module):
    """Padding in a forward beside a convolution.

    Args:
        pad: From the input to as many channels as the convolution makes.
    """

    def __init__(self, pad) -> None:
        super().__init__()
        self.conv, self.pad = nn.Conv2d(4, 8, 3, 2, 1), pad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.pad(x)


def joined(x: torch.Tensor) -> torch.Tensor:
    x = x[:, :, ::2, ::2]
    return torch.cat([x, torch.zeros_like(x)], dim=1)


def joined_sizes(x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    return torch.cat([x.new_zeros(n, 4, -(-h // 2), -(-w // 2)), x[:, :, ::2, ::2]], 1)


@pytest.mark.parametrize("pad", [joined, joined_sizes, lambda x: halved(x, 0, 4)])
def test_ways_to_pad_in_a_forward(pad) -> None:
    model, example = Around(Inline(pad)).eval(), torch.randn(1, 3, 10, 10)
    found, notes = find_shortcuts(model, example)
    assert notes == ()
    assert [one.module for one in found] == ["middle"]
    new = with_convolutions(model, found)
    layer = new.get_submodule("middle.padded_shortcut")
    assert layer.weight.shape == (8, 4, 1, 1)
    code = new.middle.code
    assert "cat" not in code
    assert "slice" not in code
    assert "pad(" not in code


class Switching(Inline):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return super().forward(x)
        return super().forward(-x)


class OtherInTraining(Inline):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(super().forward(x), training=self.training)


class Learnt(Inline):
    """Its zeros are a parameter that hasn't been trained yet."""

    def __init__(self) -> None:
        super().__init__(None)
        self.rest = nn.Parameter(torch.zeros(1, 4, 4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + torch.cat([x[:, :, ::2, ::2], self.rest], 1)


NOT_POSSIBLE = {
    "switching": (Switching(joined), "can't trace"),
    "in training": (OtherInTraining(joined), "another in training"),
    "learnt": (Learnt(), "no selection"),
    "average": (Inline(lambda x: zeros_after(F.avg_pool2d(x, 2), 4)), "no selection"),
    "module": (
        nn.Sequential(nn.AvgPool2d(2), LambdaLayer(lambda x: zeros_after(x, 4))), "single pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_POSSIBLE)
def test_padding_that_stays_is_told(name: str) -> None:
    middle, reason = NOT_POSSIBLE[name]
    found, notes = find_shortcuts(Around(middle).eval(), torch.randn(1, 3, 10, 10))
    assert found == []
    (note,) = notes
    assert "'middle" in note
    assert reason in note


class Asked(Around):
    """Reads an attribute that only its own middle has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.middle.lambd is not None
        return super().forward(x)


def test_a_module_whose_attributes_are_read_stays() -> None:
    model = Asked(LambdaLayer(lambda x: zeros_after(x, 4))).eval()
    found, notes = find_shortcuts(model, torch.randn(1, 3, 10, 10))
    assert found == []
    assert "needs more of the module" in notes[0]


def test_a_module_with_two_names_is_replaced_under_both() -> None:
    model = Around(LambdaLayer(lambda x: zeros_after(x, 4))).eval()
    model.alias = model.middle
    new = with_convolutions(model, find_shortcuts(model, torch.randn(1, 3, 10, 10))[0])
    assert isinstance(new.alias, nn.Conv2d)
    assert new.alias is new.middle


def test_the_network_itself_may_pad() -> None:
    model, example = Inline(joined).eval(), torch.randn(1, 4, 8, 8)
    (found,), _ = find_shortcuts(model, example)
    assert found.module == ""
    new = with_convolutions(model, [found])
    assert torch.equal(new(example), model(example))


class TwoPads(nn.Module):
    """One source, two pads of it, and a sum of both with its own convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 1, 2)
        self.padded_shortcut = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = x[:, :, ::2, ::2]
        y = F.pad(small, (0, 0, 0, 0, 0, 4)) + F.pad(small, (0, 0, 0, 0, 4, 0))
        return self.padded_shortcut(self.conv(x) * y)


def test_two_pads_of_one_tensor_get_names_that_are_free() -> None:
    model, example = TwoPads().eval(), torch.randn(2, 4, 8, 8)
    found, _ = find_shortcuts(model, example[:1])
    new = with_convolutions(model, found)
    assert len(found) == 2
    names = {name for name, _ in new.named_children()}
    assert names == {"conv", "padded_shortcut", "padded_shortcut_", "padded_shortcut_1"}
    assert torch.equal(new(example), model(example))


def test_random_numbers_stay_as_they_are() -> None:
    model, example = padded(inline=True)
    before = torch.random.get_rng_state()
    with_convolutions(model, find_shortcuts(model, example)[0])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_have_none(name: str) -> None:
    found, notes = find_shortcuts(*network(name))
    assert found == []
    assert notes == ()

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.depth.blocks import drop_blocks, residual_blocks
from harness.errors import ConfigError, TaskError
from harness.export import count_macs
from harness.models.mobilenet import InvertedResidual
from harness.models.resnet import ResNet
from harness.models.vit import Block
from support.networks import IMAGE, Pooled, Residual, conv, network

RNG = torch.Generator().manual_seed(0)
EXAMPLE = torch.randn(1, 3, 8, 8, generator=RNG)
TOKENS = torch.randn(1, 6, 8, generator=RNG)


def names(model: nn.Module, example: torch.Tensor = EXAMPLE) -> list[str]:
    return [block.name for block in residual_blocks(model.eval(), example)]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class PreActivation(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(F.relu(self.norm(x)))


class ConvNext(nn.Module):
    """Depthwise, layer norm over channels, two linear layers, a scale (Liu et al., 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


def test_blocks_of_a_resnet_are_those_that_keep_the_resolution_in_order() -> None:
    found = names(ResNet(3, 2, 5, widths=(4, 8, 16)))
    assert found == ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: PreActivation(3), ["0"]),
        (lambda: ConvNext(3), ["0"]),
        (lambda: InvertedResidual(3, 3, 1, 4), ["0"]),
        (lambda: InvertedResidual(3, 3, 2, 4), []),
        (lambda: conv(3, 3), []),
    ],
    ids=["pre-activation", "convnext", "inverted", "downsampling", "plain"],
)
def test_what_is_a_block_is_told_by_what_it_computes(
    make: Callable[[], nn.Module], found: list[str]
) -> None:
    model = nn.Sequential(make(), nn.Flatten(), nn.LazyLinear(4))
    model(EXAMPLE)
    assert names(model) == found


@pytest.mark.parametrize(
    "name", ["gated", "dense", "unet", "shared", "halves", "quarter", "encoder", "gru", "volume"]
)
def test_networks_without_a_residual_module_have_no_blocks(name: str) -> None:
    assert residual_blocks(*network(name)) == ()


def test_blocks_of_frozen_networks_count() -> None:
    assert names(*network("frozen")) == ["body.1"]


def test_only_the_smallest_module_counts_and_stages_do_not() -> None:
    stage = nn.Sequential(PreActivation(3), nn.Sequential(PreActivation(3)))
    assert names(nn.Sequential(stage, Pooled(nn.Identity(), 3))) == ["0.0", "0.1.0"]


def test_params_and_macs_are_those_that_the_network_loses() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Block(8, 2, 12), Block(8, 2, 20), nn.Linear(8, 3))
    for block in residual_blocks(model.eval(), TOKENS):
        smaller = drop_blocks(model, [block.name])
        assert block.params == count(model) - count(smaller) > 0
        assert block.macs == count_macs(model, TOKENS) - count_macs(smaller, TOKENS) > 0


def test_parameters_that_stay_elsewhere_are_not_lost() -> None:
    one, two = PreActivation(3), PreActivation(3)
    two.conv.weight = one.conv.weight
    found = residual_blocks(nn.Sequential(one, two, Pooled(nn.Identity(), 3)).eval(), EXAMPLE)
    assert [block.params for block in found] == [count(one) - one.conv.weight.numel()] * 2


class Listed(nn.Module):
    """Blocks in a module list, each called with more than its input."""

    def __init__(self) -> None:
        super().__init__()
        kind = lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)  # noqa: E731
        self.layers = nn.ModuleList([kind(), kind()])
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, None, is_causal=False)
        return self.head(x)


def test_blocks_in_a_module_list_that_take_more_than_their_input_can_go() -> None:
    model = Listed().eval()
    assert names(model, TOKENS) == ["layers.0", "layers.1"]
    smaller = drop_blocks(model, ["layers.0", "layers.1"])
    assert torch.allclose(smaller(TOKENS), model.head(TOKENS))


class Looking(nn.Module):
    """Reads an attribute of its first block."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(PreActivation(3), PreActivation(3))
        self.head = Pooled(nn.Identity(), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x) * self.blocks[0].conv.out_channels)


def test_a_block_that_the_network_looks_at_stays() -> None:
    assert names(Looking()) == ["blocks.1"]


class Overwriting(nn.Module):
    """Needs what its block was given, after it changed in place what the block gave."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = PreActivation(3), Pooled(nn.Identity(), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2
        return self.head(self.block(x).mul_(3) - x)


def test_a_block_whose_output_is_changed_in_place_stays_where_its_input_is_needed() -> None:
    assert names(Overwriting()) == []


class Repeated(nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.block, self.times = PreActivation(3), times
        self.head = Pooled(nn.Identity(), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            x = self.block(x)
        return self.head(x)


@pytest.mark.parametrize(("times", "found"), [(0, []), (1, ["block"]), (2, [])])
def test_a_block_is_called_exactly_once(times: int, found: list[str]) -> None:
    assert names(Repeated(times)) == found


def test_a_module_under_two_names_stays() -> None:
    block = PreActivation(3)
    model = nn.Sequential(block, block, Pooled(nn.Identity(), 3)).eval()
    assert names(model) == []
    with pytest.raises(ConfigError, match="under 2 names"):
        drop_blocks(model, ["1"])


def test_a_block_that_does_nothing_yet_can_go_and_one_without_effect_stays() -> None:
    idle, dead = PreActivation(3), PreActivation(3)
    nn.init.zeros_(idle.conv.weight)
    nn.init.zeros_(idle.conv.bias)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.dead, self.head = idle, dead, Pooled(nn.Identity(), 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.dead(x)
            return self.head(self.idle(x))

    assert names(Two()) == ["idle"]


def test_what_is_left_has_identities_and_no_keys_and_the_original_is_whole() -> None:
    model, _ = network("residual")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smaller = drop_blocks(model, ["body.1"])
    assert isinstance(smaller.body[1], nn.Identity)
    assert not smaller.training
    expected = {name for name in before if not name.startswith("body.1.")}
    assert smaller.state_dict().keys() == expected
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_module_and_one_inside_it_can_go_together() -> None:
    model = nn.Sequential(nn.Sequential(PreActivation(3)), Pooled(nn.Identity(), 3))
    assert isinstance(drop_blocks(model, ["0", "0.0"])[0], nn.Identity)


@pytest.mark.parametrize("name", ["body.9", "bdy.1", ""])
def test_an_unknown_block_is_named_with_those_that_there_are(name: str) -> None:
    model, _ = network("residual")
    with pytest.raises(ConfigError, match=r"Expected one of: body, body\.0, body\.1"):
        drop_blocks(model, [name])


def test_a_misspelt_block_has_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'body\.1\.inner'"):
        drop_blocks(network("residual")[0], ["body.1.iner"])


def test_a_network_that_fails_is_told() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyError("nothing")

    with pytest.raises(TaskError, match="KeyError"):
        residual_blocks(Broken(), torch.zeros(IMAGE))


def test_an_input_of_zeros_makes_no_block() -> None:
    model = nn.Sequential(conv(3, 3), Pooled(nn.Identity(), 3)).eval()
    assert residual_blocks(model, torch.zeros(IMAGE)) == ()


def test_a_block_wrapped_by_another_residual_is_found_inside() -> None:
    inner = nn.Sequential(PreActivation(3), nn.Conv2d(3, 3, 1))
    model = nn.Sequential(nn.ReLU(), Residual(inner), Pooled(nn.Identity(), 3))
    assert names(model) == ["1.inner.0"]

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.rewriting.norms import TOLERANCE, fold_norms, refold
from harness.compression.running import difference, tensors_of
from harness.errors import ConfigError
from support.networks import NETWORKS, PaddedResNet, network


def settled(model: nn.Module) -> nn.Module:
    """Return a network in evaluation mode, its norms as training may leave them."""
    rng = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is not None:
            norm.running_mean.copy_(torch.randn(norm.num_features, generator=rng))
            norm.running_var.copy_(0.1 + torch.rand(norm.num_features, generator=rng))
            if norm.affine:
                norm.weight.data.copy_(torch.randn(norm.num_features, generator=rng))
                norm.bias.data.copy_(torch.randn(norm.num_features, generator=rng))
    return model.eval()


FOLDED = {
    "conv": (nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)), (1, 4, 8, 8)),
    "grouped": (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (1, 4, 8, 8)),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=2, bias=False), nn.BatchNorm2d(6)),
        (1, 4, 5, 5),
    ),
    "one": (nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)), (1, 4, 9)),
    "three": (nn.Sequential(nn.ConvTranspose3d(2, 3, 2), nn.BatchNorm3d(3)), (1, 2, 3, 3, 3)),
    "linear": (nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6)), (1, 4)),
    "no scale": (
        nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False)), (1, 4, 3, 3),
    ),
    "before": (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2)), (1, 4, 5, 5)),
    "reflected": (
        nn.Sequential(
            nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", bias=False)
        ),
        (1, 4, 5, 5),
    ),
    "valid": (
        nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding="valid")), (1, 4, 5, 5),
    ),
    "same": (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1, padding="same")), (1, 4, 5, 5)),
    "before linear": (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 6)), (1, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_a_norm_goes_into_the_layer_beside_it(name: str) -> None:
    model, shape = FOLDED[name]
    model = settled(copy.deepcopy(model))
    before = copy.deepcopy(model.state_dict())
    new, pairs = fold_norms(model, torch.randn(shape))
    assert pairs == [("0", "1")]
    assert sum(isinstance(one, nn.Identity) for one in new) == 1
    batch = torch.randn(5, *shape[1:])
    assert difference(tensors_of(model, batch), tensors_of(new, batch)) <= TOLERANCE
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(one.dtype == torch.float32 for one in new.parameters())


def test_a_norm_between_two_layers_goes_into_the_first() -> None:
    model = settled(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)))
    assert fold_norms(model, torch.randn(1, 4))[1] == [("0", "1")]


def test_a_layer_between_two_norms_takes_both() -> None:
    layers = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)
    model = settled(nn.Sequential(*layers))
    new, pairs = fold_norms(model, torch.randn(1, 4, 5, 5))
    assert pairs == [("1", "2"), ("0", "1")]
    batch = torch.randn(3, 4, 5, 5)
    assert difference(tensors_of(model, batch), tensors_of(new, batch)) <= TOLERANCE


class ReadTwice(nn.Module):
    """Somebody else takes what lies between layer and norm; a gate hides it at first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + self.gate * y


class Difference(ReadTwice):
    """A fresh norm is nearly the identity, so that this is nearly zero either way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return x.mean() + self.norm(y) - y


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4))
    model[3].weight = model[0].weight
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[0].register_forward_hook(lambda module, args, out: None)
    return model


class Twice(nn.Module):
    def __init__(self, *, norm_too: bool) -> None:
        super().__init__()
        self.layer, self.norm, self.other = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.again = self.norm if norm_too else self.other
        self.last = nn.Linear(4, 4) if norm_too else self.layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.last(F.relu(self.norm(self.layer(x)))))


LEFT = {
    "read twice": (ReadTwice, (1, 3, 6, 6)),
    "difference": (Difference, (1, 3, 6, 6)),
    "changed in place": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4)),
        (1, 3, 6, 6),
    ),
    "padded": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)), (1, 3, 6, 6),
    ),
    "padded to the same": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding="same")),
        (1, 3, 6, 6),
    ),
    "before transposed": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 4, 3)), (1, 3, 6, 6),
    ),
    "statistics of the batch": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
        ),
        (1, 3, 6, 6),
    ),
    "along a sequence": (lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), (1, 5, 4)),
    "tied": (tied, (1, 4)),
    "hooked": (hooked, (1, 4)),
    "layer twice": (lambda: Twice(norm_too=False), (1, 4)),
    "norm twice": (lambda: Twice(norm_too=True), (1, 4)),
    "parametrised": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.BatchNorm1d(4)
        ),
        (1, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_norms_that_stay(name: str) -> None:
    make, shape = LEFT[name]
    model = make().eval()
    example = torch.randn(shape)
    new, pairs = fold_norms(model, example)
    assert pairs == []
    assert difference(tensors_of(model, example), tensors_of(new, example)) == 0.0


def test_one_that_stays_doesn_t_keep_others_from_being_folded() -> None:
    model = settled(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), ReadTwice()))
    assert fold_norms(model, torch.randn(1, 3, 6, 6))[1] == [("0", "1")]


def test_all_norms_of_a_resnet_are_folded() -> None:
    model = PaddedResNet(inline=True, blocks=3).eval()
    new, pairs = fold_norms(model, torch.randn(1, 3, 16, 16))
    assert len(pairs) == 19
    assert not any(isinstance(one, nn.BatchNorm2d) for one in new.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_compute_the_same(name: str) -> None:
    model, example = network(name)
    settled(model)
    new, pairs = fold_norms(model, example)
    error = difference(tensors_of(model, example), tensors_of(new, example))
    assert error <= TOLERANCE
    again = refold(model, [list(pair) for pair in pairs])
    assert again.state_dict().keys() == new.state_dict().keys()


@pytest.mark.parametrize("pair", [("0", "nowhere"), ("1", "0"), ("0", "2"), ("2", "3")])
def test_pairs_that_are_none(pair: tuple[str, str]) -> None:
    layers = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1)
    with pytest.raises(ConfigError, match="Received: '"):
        refold(nn.Sequential(*layers).eval(), [pair])

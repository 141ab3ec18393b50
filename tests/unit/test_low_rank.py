from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from harness.compression.low_rank.ends import end_layers
from harness.compression.low_rank.factorise import SCHEMES, choose_ranks, factorised, unfilled
from harness.errors import ConfigError, TaskError
from harness.models.resnet import ResNet
from support.networks import IMAGE, network

RNG = torch.Generator().manual_seed(0)
IMAGES = torch.randn(2, 6, 11, 9, generator=RNG)
EXAMPLE = torch.randn(IMAGE, generator=RNG)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def full_rank(layer: Any, scheme: str) -> int:
    outs, ins, *kernel = layer.weight.shape
    if scheme == "spatial" and len(kernel) == 2:
        return min(outs * kernel[1], ins * kernel[0])
    return min(outs, layer.weight[0].numel())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 5), "padding": (2, 1), "stride": (1, 2), "dilation": (2, 1)},
        {"kernel_size": (2, 4), "padding": "same", "dilation": (1, 2), "bias": False},
        {"kernel_size": 3, "padding": "valid", "stride": 2},
        {"kernel_size": 1},
    ],
    ids=["plain", "uneven", "same", "valid", "pointwise"],
)
def test_at_full_rank_two_convolutions_compute_what_one_does(
    options: dict[str, Any], scheme: str
) -> None:
    model = nn.Sequential(nn.Conv2d(6, 7, **options)).eval()
    pair = factorised(model, {"0": full_rank(model[0], scheme)}, scheme)
    assert torch.allclose(pair(IMAGES), model(IMAGES), atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(12, 5), torch.randn(3, 4, 12, generator=RNG)),
        (nn.Linear(4, 9, bias=False), torch.randn(3, 4, generator=RNG)),
        (nn.Conv1d(6, 7, 3, 2, 1, 2), torch.randn(2, 6, 16, generator=RNG)),
    ],
    ids=["linear", "no bias", "1-D"],
)
def test_at_full_rank_other_layers_are_exact_too(
    layer: nn.Module, inputs: torch.Tensor, scheme: str
) -> None:
    model = nn.Sequential(layer).eval()
    pair = factorised(model, {"0": full_rank(layer, scheme)}, scheme)
    assert torch.allclose(pair(inputs), model(inputs), atol=1e-4)


def test_shapes_are_those_of_the_two_schemes_and_the_bias_is_on_the_second() -> None:
    model = nn.Sequential(nn.Conv2d(6, 7, (3, 5)))
    shapes = {
        "channel": [(2, 6, 3, 5), (7, 2, 1, 1)],
        "spatial": [(2, 6, 3, 1), (7, 2, 1, 5)],
    }
    for scheme, expected in shapes.items():
        pair = factorised(model, {"0": 2}, scheme)[0]
        assert [tuple(one.weight.shape) for one in pair] == expected
        assert pair[0].bias is None
        assert torch.equal(pair[1].bias, model[0].bias)


def test_the_product_is_the_best_approximation_of_its_rank() -> None:
    model = nn.Sequential(nn.Linear(10, 8))
    pair = factorised(model, {"0": 3}, "channel").requires_grad_(False)[0]
    sizes = torch.linalg.svdvals(model[0].weight.detach())
    error = (pair[1].weight @ pair[0].weight - model[0].weight.detach()).square().sum()
    assert float(error) == pytest.approx(float(sizes[3:].square().sum()), rel=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "name", ["residual", "grouped", "sequence", "transformer", "gru", "detector", "mixer"]
)
def test_networks_get_within_the_share_and_close_to_it(name: str, scheme: str) -> None:
    model, example = network(name)
    keep = 0.9
    ranks = choose_ranks(model, example, keep, scheme)
    smaller = factorised(model, ranks, scheme)
    assert keep - 0.1 < count(smaller) / count(model) <= keep
    with torch.no_grad():
        one, other = model(example), smaller(example)
    one, other = (x if isinstance(x, torch.Tensor) else x[0] for x in (one, other))
    assert one.shape == other.shape
    assert not torch.equal(one, other)


def test_a_layer_of_low_rank_goes_first() -> None:
    model, example = network("mixer")
    layer = model.features[0]
    with torch.no_grad():
        layer.weight.copy_(layer.weight[:, :2] @ torch.ones(2, 12))
    ranks = choose_ranks(model, example, 0.8, "channel")
    assert ranks["features.0"] == min(ranks.values()) == 1


def test_ranks_are_multiples_of_the_granule_where_one_saves_parameters() -> None:
    model = nn.Sequential(
        nn.Linear(4, 40), nn.Linear(40, 40), nn.Linear(40, 5), nn.Linear(5, 40), nn.Linear(40, 4)
    )
    ranks = choose_ranks(model, torch.randn(1, 4, generator=RNG), 0.62, "channel", granule=8)
    assert ranks["1"] % 8 == 0
    assert ranks["2"] in range(1, 5)  # 8 would cost more than the layer itself


def test_the_ends_of_a_network_stay_whole() -> None:
    model, example = network("detector")
    whole = end_layers(model, example)
    assert whole == {"stem.0", "classes.0", "classes.1", "boxes.0", "boxes.1"}
    assert choose_ranks(model, example, 0.9, "channel").keys() == {"deep.0"}


def test_ends_are_found_behind_changes_in_place() -> None:
    model = nn.Sequential(
        nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True),
        nn.Linear(6, 6), nn.ReLU(inplace=True),
    ).requires_grad_(False)  # fmt: skip
    assert end_layers(model, torch.randn(1, 3, 6, generator=RNG)) == {"0", "4"}
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_named_layers_alone_change_the_first_too() -> None:
    model, example = network("perceptron")
    assert choose_ranks(model, example, 0.9, "channel", layers=["0"]).keys() == {"0"}


def test_layers_that_must_stay_whole_do() -> None:
    model, example = network("mixer")
    ranks = choose_ranks(model, example, 0.9, "channel", whole=["features.0"])
    assert ranks
    assert "features.0" not in ranks


class Odd(nn.Module):
    """Layers of which only the last inner one can be separated."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 1)
        self.normed = parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1))
        self.one, self.two = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)
        self.two.weight = self.one.weight
        self.up = nn.ConvTranspose2d(16, 16, 3)
        self.grouped = nn.Conv2d(16, 16, 3, groups=2)
        self.mirrored = nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")
        self.read = nn.Linear(4, 16 * 9)
        self.free = nn.Conv2d(16, 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(self.normed(self.first(x))))
        x = self.mirrored(self.grouped(self.up(x)))
        x = x * self.read(x.new_ones(1, self.read.in_features)).mean()
        return self.last(self.free(x))


def test_layers_that_cannot_be_separated_stay_whole() -> None:
    assert choose_ranks(Odd().eval(), EXAMPLE, 0.95, "channel").keys() == {"free"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("normed", "Parametrized"),
        ("one", "used elsewhere"),
        ("up", "ConvTranspose2d"),
        ("grouped", "groups"),
        ("mirrored", "reflect"),
        ("fre", "none of that name.*Did you mean 'free'"),
        ("", "none of that name"),
    ],
)
def test_a_named_layer_that_cannot_be_separated_is_told_with_the_reason(
    name: str, why: str
) -> None:
    model = Odd().eval()
    with pytest.raises(ConfigError, match=why):
        factorised(model, {name: 2}, "channel")
    with pytest.raises(ConfigError, match=why):
        choose_ranks(model, EXAMPLE, 0.9, "channel", layers=[name])


def test_layers_of_torchs_own_attention_that_it_reads_itself_stay_whole() -> None:
    model, example = network("encoder")
    with pytest.raises(
        ConfigError,
        match="no layer to separate. It takes those of the kinds Conv2d, Conv1d, Linear",
    ):
        choose_ranks(model, example, 0.9, "channel")
    with pytest.raises(ConfigError, match="only Conv2d"):
        choose_ranks(model, example, 0.9, "channel", layers=["layer.self_attn.out_proj"])


@pytest.mark.parametrize("rank", [0, 9])
def test_a_rank_out_of_range_is_refused(rank: int) -> None:
    with pytest.raises(ConfigError, match="1 to 8"):
        factorised(nn.Sequential(nn.Linear(10, 8)), {"0": rank}, "channel")


def test_a_share_out_of_reach_is_told_with_the_least_that_is() -> None:
    model, example = network("mixer")
    with pytest.raises(ConfigError, match=r"can't get to 5\.0 %.* (\d\d\.\d) % are left") as told:
        choose_ranks(model, example, 0.05, "channel")
    least = float(str(told.value).split(" % are left")[0].split()[-1]) / 100
    ranks = choose_ranks(model, example, least, "channel")
    assert set(ranks.values()) == {1}


def test_the_original_stays_and_ranks_are_the_same_every_time() -> None:
    model, example = network("residual")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    ranks = choose_ranks(model, example, 0.8, "spatial")
    smaller = factorised(model, ranks, "spatial")
    assert torch.equal(state, torch.get_rng_state())
    assert ranks == choose_ranks(model, example, 0.8, "spatial")
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_frozen_layers_stay_frozen_and_modes_stay() -> None:
    model = nn.Sequential(nn.Linear(8, 8)).requires_grad_(False)
    pair = factorised(model.eval(), {"0": 2}, "channel")[0]
    assert not any(parameter.requires_grad for parameter in pair.parameters())
    assert not pair[0].training


def test_layers_of_zeros_get_the_smallest_rank() -> None:
    model, example = network("mixer")
    nn.init.zeros_(model.features[0].weight)
    assert choose_ranks(model, example, 0.9, "channel")["features.0"] == 1


def test_a_residual_network_of_low_rank_takes_its_weights_back() -> None:
    model = ResNet(3, 1, 5, widths=(4, 8, 16)).eval()
    ranks = {"layer2.0.shortcut": 2, "layer3.0.conv1": 5}
    smaller, again = (make(model, ranks, "channel") for make in (factorised, unfilled))
    again.load_state_dict(smaller.state_dict())
    assert torch.equal(smaller(EXAMPLE), again(EXAMPLE))


def test_a_network_that_fails_is_told() -> None:
    with pytest.raises(TaskError, match="doesn't run"):
        choose_ranks(nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 4), 0.5, "channel")

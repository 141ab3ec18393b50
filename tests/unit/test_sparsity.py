"""Which weights may become zero, and the masks that set them to zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from harness.compression.sparsity.eligible import Eligible, Weight, eligible
from harness.compression.sparsity.masks import (
    nonzeros,
    patterned,
    read_pattern,
    unstructured,
    with_zeros_first,
)
from harness.errors import ConfigError
from support.networks import NETWORKS, network


def layers(found: Eligible) -> list[str]:
    return [weight.layer for weight in found.weights]


def scores(weights: tuple[Weight, ...]) -> list[torch.Tensor]:
    values = [weight.values.detach() for weight in weights]
    return [with_zeros_first(value.abs(), value) for value in values]


class Tied(nn.Module):
    """Two linear layers share a weight; a third shares the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(12, 8)
        self.one, self.two, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 12)
        self.two.weight, self.out.weight = self.one.weight, self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.two(self.one(self.words(x))))


# Which weights


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_convolution_and_linear_layers_may_become_sparse(name: str) -> None:
    model, _ = network(name)
    found = eligible(model)
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
    expected = [n for n, m in model.named_modules() if isinstance(m, kinds)]
    assert layers(found) == expected
    own = dict(model.named_parameters())
    assert all(weight.values is own[weight.name] for weight in found.weights)
    assert all(weight.name == f"{weight.layer}.weight" for weight in found.weights)


def test_a_network_that_is_one_layer_has_a_weight_without_a_module() -> None:
    found = eligible(nn.Linear(4, 4))
    assert [(weight.layer, weight.name) for weight in found.weights] == [("", "weight")]


def test_a_weight_that_layers_share_is_there_once() -> None:
    found = eligible(nn.Sequential(layer := nn.Linear(4, 4), nn.ReLU(), layer))
    assert layers(found) == ["0"]
    assert layers(eligible(Tied())) == ["one"]


def test_a_weight_has_the_name_that_the_network_has_for_it() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.matrix = self.inner.weight  # a network's own parameters come first

    (weight,) = eligible(Held()).weights
    assert (weight.layer, weight.name) == ("inner", "matrix")


def test_what_stays_dense_is_named_with_its_reason() -> None:
    model = nn.ModuleDict(
        {
            "plain": nn.Linear(4, 4),
            "parametrized": parametrizations.weight_norm(nn.Linear(4, 4)),
            "tied": Tied(),
            "attention": nn.MultiheadAttention(8, 2),
            "memory": nn.GRU(4, 4),
        }
    )
    found = eligible(model)
    assert layers(found) == ["plain", "tied.one", "attention.out_proj"]
    assert set(found.left) == {"parametrized", "tied.out", "attention", "memory"}
    assert "computed from others" in found.left["parametrized"]
    assert "embedding" in found.left["tied.out"]


def test_what_is_excluded_stays_dense_without_being_named() -> None:
    model, _ = network("transformer")
    every = layers(eligible(model))
    assert layers(eligible(model, ["attention", "head"])) == [
        name for name in every if not name.startswith("attention") and name != "head"
    ]
    assert not eligible(model, ["attention"]).left
    memory, _ = network("gru")
    assert "rnn" in eligible(memory).left
    assert not eligible(memory, ["rnn"]).left


def test_a_layer_is_not_excluded_by_the_beginning_of_its_name() -> None:
    model = nn.ModuleDict({"up": nn.Linear(4, 4), "upper": nn.Linear(4, 4)})
    assert layers(eligible(model, ["up"])) == ["upper"]


def test_a_shared_weight_is_excluded_by_any_of_its_layers() -> None:
    model = nn.Sequential(Tied(), nn.Linear(4, 4))
    assert layers(eligible(model, ["0.two"])) == ["1"]
    twice = nn.Sequential(layer := nn.Linear(4, 4), layer, nn.Linear(4, 4))
    assert layers(eligible(twice, ["1"])) == ["2"]


def test_a_weight_that_is_a_bag_of_embeddings_too_stays_dense() -> None:
    model = nn.Sequential(nn.EmbeddingBag(12, 8), nn.Linear(8, 12), nn.Linear(12, 4))
    model[1].weight = model[0].weight
    assert layers(eligible(model)) == ["2"]


def test_an_unknown_name_is_refused_with_a_hint() -> None:
    model, _ = network("transformer")
    with pytest.raises(ConfigError, match="Received: 'attenton.q'. Did you mean 'attention.q'?"):
        eligible(model, ["attenton.q"])
    with pytest.raises(ConfigError, match="Received: 'norm1'"):
        eligible(model, ["norm1"])


def test_a_network_without_such_weights_is_refused_with_the_reasons() -> None:
    with pytest.raises(ConfigError, match="it has no such layer"):
        eligible(nn.BatchNorm1d(4))
    with pytest.raises(ConfigError, match="'': its 6 input channels are no multiple of 4"):
        eligible(nn.Linear(6, 4), block=4)
    with pytest.raises(ConfigError, match="excluded: 0, 1"):
        eligible(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), ["0", "1"])


def test_a_weight_that_is_no_floating_number_stays_dense() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    found = eligible(model)
    assert layers(found) == ["1"]
    assert "torch.int8" in found.left["0"]


def test_input_channels_must_be_a_multiple_of_a_patterns_block() -> None:
    model, _ = network("depthwise")
    found = eligible(model, block=4)
    assert layers(found) == ["body.2.0", "body.4.0", "head"]
    assert "3 input channels" in found.left["body.0.0"]
    assert "one input channel per group" in found.left["body.1.0"]
    grouped, _ = network("grouped")  # 16 channels in 4 groups
    assert "body.1.0" in layers(eligible(grouped, block=4))
    assert "4 input channels" in eligible(grouped, block=8).left["body.1.0"]


def test_layers_that_sum_over_different_dimensions_can_not_share_a_pattern() -> None:
    down, up = nn.Conv2d(8, 8, 2, bias=False), nn.ConvTranspose2d(8, 8, 2, bias=False)
    up.weight = down.weight
    model = nn.Sequential(down, up, nn.Conv2d(8, 4, 1))
    assert layers(eligible(model)) == ["0", "2"]
    found = eligible(model, block=4)
    assert layers(found) == ["2"]
    assert set(found.left) == {"0", "1"}


# Unstructured masks


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["depthwise", "transformer", "volume", "detector"])
def test_exactly_the_share_asked_is_dropped(name: str, share: float) -> None:
    found = scores(eligible(network(name)[0]).weights)
    kept = unstructured(found, share)
    assert [mask.shape for mask in kept] == [score.shape for score in found]
    total = sum(score.numel() for score in found)
    assert sum(int((~mask).sum()) for mask in kept) == round(share * total)
    for mask, score in zip(unstructured(found, share, "layer"), found, strict=True):
        assert int((~mask).sum()) == round(share * score.numel())


def test_one_threshold_holds_for_all_layers_or_one_for_each() -> None:
    large, small = torch.tensor([[5.0, 6.0], [7.0, 8.0]]), torch.tensor([1.0, 4.0, 2.0, 3.0])
    one, other = unstructured([large, small], 0.5)
    assert one.all()
    assert not other.any()
    one, other = unstructured([large, small], 0.5, "layer")
    assert one.tolist() == [[False, False], [True, True]]
    assert other.tolist() == [False, True, False, True]


def test_the_lowest_scores_are_dropped_and_the_first_of_equal_ones() -> None:
    (kept,) = unstructured([torch.tensor([3.0, 1.0, 1.0, 2.0, 1.0])], 0.4)
    assert kept.tolist() == [True, False, False, True, True]
    (kept,) = unstructured([torch.ones(1000)], 0.5)
    assert not kept[:500].any()
    assert kept[500:].all()


def test_zeros_go_first_whatever_their_score() -> None:
    values = torch.tensor([0.0, -2.0, 0.0, 3.0])
    ordered = with_zeros_first(torch.tensor([9.0, 0.0, 8.0, 0.0]), values)
    (kept,) = unstructured([ordered], 0.75)
    assert kept.tolist() == [False, False, False, True]


# N:M


def test_of_every_block_of_inputs_the_largest_are_kept() -> None:
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -4.0, 3.0, 2.0, 5.0, -8.0, 6.0, -7.0]]))
    (weight,) = eligible(layer, block=4).weights
    kept = patterned(weight, weight.values.detach().abs(), 2, 4)
    assert kept.tolist() == [[False, True, True, False, False, True, False, True]]
    kept = patterned(weight, weight.values.detach().abs(), 1, 4)
    assert kept.tolist() == [[False, True, False, False, False, True, False, False]]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(16, 6), nn.Conv1d(8, 6, 3), nn.Conv2d(8, 6, (3, 2)), nn.Conv3d(4, 6, 2),
        nn.Conv2d(16, 12, 3, groups=4), nn.ConvTranspose1d(8, 6, 3), nn.ConvTranspose2d(8, 6, 2),
        nn.ConvTranspose2d(16, 12, 2, groups=4), nn.ConvTranspose3d(4, 6, 2),
    ],
    ids=str,
)  # fmt: skip
def test_blocks_lie_along_what_a_layer_sums_over(layer: nn.Module) -> None:
    (weight,) = eligible(layer, block=4).weights
    kept = patterned(weight, weight.values.detach().abs(), 2, 4)
    assert kept.shape == weight.values.shape
    groups = getattr(layer, "groups", 1)
    # As it is in a matrix product: [groups, inputs of a group, everything else].
    if getattr(layer, "transposed", False):
        by_input = kept.view(groups, -1, kept[0].numel())
    else:
        by_input = kept.view(groups, len(kept) // groups, kept.shape[1], -1).transpose(1, 2)
        by_input = by_input.flatten(2)
    for block in by_input.split(4, dim=1):
        assert (block.sum(1) == 2).all()


def test_of_equal_weights_in_a_block_the_last_are_kept() -> None:
    (weight,) = eligible(nn.Linear(4, 1), block=4).weights
    assert patterned(weight, torch.ones(1, 4), 1, 4).tolist() == [[False, False, False, True]]


@pytest.mark.parametrize("text", ["2:4", " 2 : 4 ", "02:4"])
def test_a_pattern_is_read(text: str) -> None:
    assert read_pattern(text) == (2, 4)


@pytest.mark.parametrize("bad", ["", "2", "4:2", "4:4", "0:4", "-1:4", "2:4:8", "a:b", "2.0:4"])
def test_what_is_no_pattern_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="N:M, two whole numbers"):
        read_pattern(bad)


# Counting


def test_parameters_that_are_not_zero_are_counted() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 1.0, -0.0], [2.0, 0.0, -3.0]]))
        model.bias.fill_(1)
    assert nonzeros(model) == 5


def test_shared_parameters_are_counted_once_and_originals_of_parametrized_ones_too() -> None:
    assert nonzeros(nn.Sequential(layer := nn.Linear(3, 2), layer)) == nonzeros(layer) == 8
    tied = Tied()
    assert nonzeros(tied) == sum(parameter.numel() for parameter in tied.parameters())
    assert nonzeros(parametrizations.weight_norm(nn.Linear(3, 2))) == 6 + 2 + 2

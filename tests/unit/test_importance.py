from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.pruning.dependency.graph import PruningGraph, pruning_graph
from harness.compression.pruning.importance import (
    CRITERIA,
    applicable_criteria,
    channel_scores,
    inapplicable_criteria,
    scoring_batches,
    silent_groups,
)
from harness.errors import TaskError
from harness.tasks.objective import as_tuple
from support.networks import NETWORKS, conv, network
from support.tiny import TinyNet, stripes

EXAMPLE = torch.zeros(1, 1, 8, 8)


@pytest.fixture
def dense() -> TinyNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TinyNet().eval()


@pytest.fixture
def graph(dense: TinyNet) -> PruningGraph:
    return pruning_graph(dense, EXAMPLE)


def scores(
    dense: TinyNet, graph: PruningGraph, criterion: str, n: int = 64
) -> dict[str, torch.Tensor]:
    split = stripes(0, n)
    rows = torch.arange(n).split(32)
    batches = [(split.batch(part), split.targets_of(part)) for part in rows]
    return channel_scores(dense, graph, batches, F.cross_entropy, criterion)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_channel_has_a_score_and_a_groups_mean_is_one(
    dense: TinyNet, graph: PruningGraph, criterion: str
) -> None:
    found = scores(dense, graph, criterion)
    assert {name: len(values) for name, values in found.items()} == graph.dense_widths()
    for values in found.values():
        assert (values >= 0).all()
        assert values.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_network_is_left_as_it_was(dense: TinyNet, graph: PruningGraph, criterion: str) -> None:
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    scores(dense, graph, criterion)
    assert all(torch.equal(before[n], t) for n, t in dense.state_dict().items())
    assert all(parameter.grad is None for parameter in dense.parameters())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_repeat_themselves(dense: TinyNet, graph: PruningGraph, criterion: str) -> None:
    first, again = scores(dense, graph, criterion), scores(dense, graph, criterion)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_l2_prefers_large_weights(dense: TinyNet, graph: PruningGraph) -> None:
    with torch.no_grad():
        dense.conv1.weight[7] *= 10
        dense.conv1.weight[3] = 0
        dense.conv2.weight[:, 3] = 0
    found = scores(dense, graph, "l2")["conv1"]
    assert found.argmax() == 7
    assert found.argmin() == 3


def test_l2_is_the_mean_of_what_a_channel_consists_of(dense: TinyNet, graph: PruningGraph) -> None:
    with torch.no_grad():
        own = dense.conv1.weight.square().sum((1, 2, 3))
        norm = dense.bn1.weight.square()
        following = dense.conv2.weight.square().sum((0, 2, 3))
    expected = (own + norm + following) / 3
    found = scores(dense, graph, "l2")["conv1"]
    torch.testing.assert_close(found, expected / expected.mean())


def test_bn_scale_goes_by_the_batch_norms_scale(dense: TinyNet, graph: PruningGraph) -> None:
    with torch.no_grad():
        dense.bn1.weight.copy_(torch.linspace(2.0, 0.1, 32))
    found = scores(dense, graph, "bn_scale")["conv1"]
    assert torch.equal(found.argsort(descending=True), torch.arange(32))


def test_taylor_gives_least_to_a_channel_that_changes_nothing(
    dense: TinyNet, graph: PruningGraph
) -> None:
    with torch.no_grad():
        dense.bn1.weight[5] = 0
        dense.bn1.bias[5] = 0
    assert scores(dense, graph, "taylor")["conv1"].argmin() == 5


def test_taylor_depends_on_the_data_and_l2_does_not(dense: TinyNet, graph: PruningGraph) -> None:
    for criterion, same in (("taylor", False), ("l2", True)):
        found = scores(dense, graph, criterion, n=32)["conv1"]
        assert torch.equal(found, scores(dense, graph, criterion)["conv1"]) is same


def test_taylor_of_a_frozen_network_leaves_it_frozen(dense: TinyNet, graph: PruningGraph) -> None:
    expected = scores(dense, graph, "taylor")
    dense.requires_grad_(False)
    found = scores(dense, graph, "taylor")
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert not any(parameter.requires_grad for parameter in dense.parameters())


def squares(
    outputs: torch.Tensor | tuple[torch.Tensor, ...], targets: torch.Tensor
) -> torch.Tensor:
    del targets
    return torch.stack([part.square().mean() for part in as_tuple(outputs)]).sum()


@functools.cache
def traced(name: str) -> tuple[nn.Module, torch.Tensor, PruningGraph]:
    model, example = network(name)
    return model, example, pruning_graph(model, example)


@pytest.mark.parametrize("criterion", ["l2", "l1", "taylor", "activation", "fpgm"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_has_a_score_per_channel(name: str, criterion: str) -> None:
    model, example, graph = traced(name)
    batches = [(torch.randn(2, *example.shape[1:]), torch.zeros(2))]
    found = channel_scores(model, graph, batches, squares, criterion)
    assert not silent_groups(model, graph, criterion)
    assert {n: tuple(v.shape) for n, v in found.items()} == {
        n: (width,) for n, width in graph.dense_widths().items()
    }
    for values in found.values():
        assert torch.isfinite(values).all()
        assert values.std() > 0
        assert values.mean() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "group", "parameter", "dim", "entries"),
    [
        ("flattened", "2.0", "4.weight", 1, range(32, 48)),
        ("dense", "body.one.0", "body.last.weight", 1, [10]),
        ("depthwise", "body.0.0", "body.1.0.weight", 0, [2]),
        ("fused", "attention.qkv", "attention.qkv.weight", 0, [2, 18, 34]),
        ("unet", "up", "up.weight", 1, [2]),
        ("unet", "deep.0", "up.weight", 0, [2]),
        ("sequence", "4", "6.weight", 1, range(16, 24)),
        ("volume", "0", "3.weight", 0, [2]),
    ],
)
def test_all_places_of_a_channel_count(
    name: str, group: str, parameter: str, dim: int, entries: list[int]
) -> None:
    """Channel 2 gets the highest score from any of its weights, and nothing else does."""
    model, example = network(name)
    graph = pruning_graph(model, example)
    with torch.no_grad():
        weight = model.get_parameter(parameter)
        weight.index_fill_(dim, torch.tensor(list(entries)), 50.0)
    found = channel_scores(model, graph, [], squares, "l2")[group]
    assert found.argmax() == 2
    # Its input side is another group's: all channels of a layer rise together there.
    assert found[2] > 1.5 * found.sort().values[-2]


def test_scores_of_a_grouped_convolutions_inputs_are_by_group() -> None:
    model, example = network("grouped")
    graph = pruning_graph(model, example)
    with torch.no_grad():
        # Outputs 6 to 11 are of group 1, whose inputs are channels 4 to 7.
        model.body[1][0].weight[6:12, 2] = 50.0
    found = channel_scores(model, graph, [], squares, "l2")["body.0.0"]
    assert found.argmax() == 6


def test_l1_sums_sizes_where_l2_sums_squares(dense: TinyNet, graph: PruningGraph) -> None:
    with torch.no_grad():
        own = dense.conv1.weight.abs().sum((1, 2, 3))
        norm = dense.bn1.weight.abs()
        following = dense.conv2.weight.abs().sum((0, 2, 3))
    expected = (own + norm + following) / 3
    found = scores(dense, graph, "l1")["conv1"]
    torch.testing.assert_close(found, expected / expected.mean())


def test_activation_is_the_mean_size_of_what_goes_into_the_next_layer(
    dense: TinyNet, graph: PruningGraph
) -> None:
    with torch.no_grad():
        dense.bn1.bias.copy_(torch.linspace(-1.0, 1.0, 32))
        out = dense.bn1(dense.conv1(stripes(0, 64).inputs))
    expected = out.relu().mean((0, 2, 3))
    found = scores(dense, graph, "activation")["conv1"]
    torch.testing.assert_close(found, expected / expected.mean())


def test_channels_that_a_rectifier_silences_count_least_however_loud(
    dense: TinyNet, graph: PruningGraph
) -> None:
    with torch.no_grad():
        dense.bn1.bias[5] = -100
    found = scores(dense, graph, "activation")["conv1"]
    assert found[5] == 0


def test_activation_of_residual_streams_is_that_of_the_sums() -> None:
    model, example = network("residual")
    graph = pruning_graph(model, example)
    x = torch.randn(4, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    found = channel_scores(model, graph, [(x, torch.zeros(4))], squares, "activation")["body.0.0"]
    with torch.no_grad():
        first = model.body[0](x)
        second = model.body[1](first)
    expected = (first.mean((0, 2, 3)) + second.mean((0, 2, 3))) / 2
    torch.testing.assert_close(found, expected / expected.mean())


@pytest.mark.parametrize(
    ("name", "group", "module", "entry"),
    [
        ("perceptron", "0", "1", 3),  # a batch norm of rows
        ("perceptron", "3", "4", 3),  # a layer norm
        ("sequence", "4", "4", 3),  # a convolution over time, flattened
        ("volume", "3", "3", 3),  # a transposed one in space
        ("unet", "deep.0", "deep.1", 3),  # what goes into a transposed one
        ("flattened", "4", "4", 3),
        ("grouped", "body.0.0", "body.0.1", 3),
        ("depthwise", "body.0.0", "body.1.1", 3),
        ("fused", "attention.qkv", "attention.qkv", 35),  # the value of head 0's channel 3
        ("dense", "body.one.0", "body.norm", 11),  # a norm of three groups' channels
        ("bare", "lift", "lift", 3),  # goes into no layer
    ],
)
def test_activation_is_read_where_the_channels_are(
    name: str, group: str, module: str, entry: int
) -> None:
    model, example = network(name)
    graph = pruning_graph(model, example)
    inputs = torch.randn(4, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.get_submodule(module).bias[entry] = 1000.0
    found = channel_scores(model, graph, [(inputs, torch.zeros(4))], squares, "activation")[group]
    assert found.argmax() == 3
    assert found[3] > 3 * found.sort().values[-2]


class ByName(nn.Module):
    """Gives a layer its input by name, and changes in place what another returns."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 8)
        self.last = nn.Parameter(torch.randn(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(input=self.one(x)).relu_() @ self.last


def test_activation_is_read_at_once_however_a_layer_is_called() -> None:
    model = ByName().eval()
    graph = pruning_graph(model, torch.randn(1, 4))
    rising = torch.arange(1.0, 9.0)
    with torch.no_grad():
        model.one.weight.zero_()
        model.one.bias.copy_(rising[:6])
        model.two.weight.zero_()
        model.two.bias.copy_(-rising)
    found = channel_scores(model, graph, [(torch.ones(3, 4), None)], squares, "activation")
    torch.testing.assert_close(found["one"], rising[:6] / 3.5)
    torch.testing.assert_close(found["two"], rising / 4.5)


class Tied(nn.Module):
    """Two layers share a weight; the one that holds it is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.used = nn.Linear(6, 8), nn.Linear(6, 8)
        self.used.weight = self.idle.weight
        self.last = nn.Parameter(torch.randn(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.used(x)) @ self.last


def test_a_group_whose_layers_never_run_has_equal_scores() -> None:
    model = Tied().eval()
    graph = pruning_graph(model, torch.randn(1, 6))
    found = channel_scores(model, graph, [(torch.randn(4, 6), None)], squares, "activation")
    assert torch.equal(found["idle"], torch.ones(8))


def test_fpgm_sums_the_distances_to_the_other_filters(dense: TinyNet, graph: PruningGraph) -> None:
    filters = dense.conv1.weight.detach().flatten(1)
    sums = (filters[:, None] - filters[None]).square().sum(2).sqrt().sum(1)
    found = scores(dense, graph, "fpgm")["conv1"]
    torch.testing.assert_close(found, sums / sums.mean())


def test_fpgm_gives_least_to_the_filter_that_others_stand_for(
    dense: TinyNet, graph: PruningGraph
) -> None:
    with torch.no_grad():
        dense.conv1.weight[7] = dense.conv1.weight.mean(0)
        dense.conv1.weight[3] *= 10
    found = scores(dense, graph, "fpgm")["conv1"]
    assert found.argmin() == 7
    assert found.argmax() == 3


def test_equal_filters_have_equal_scores(dense: TinyNet, graph: PruningGraph) -> None:
    nn.init.ones_(dense.conv1.weight)
    assert torch.equal(scores(dense, graph, "fpgm")["conv1"], torch.ones(32))


def test_chance_goes_by_its_seed_and_the_groups_name(dense: TinyNet, graph: PruningGraph) -> None:
    state = torch.get_rng_state()
    first, other = (
        channel_scores(dense, graph, [], F.cross_entropy, "random", seed) for seed in (0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first["conv1"], other["conv1"])
    alone = PruningGraph(graph.groups[1:], graph.layers)
    found = channel_scores(dense, alone, [], F.cross_entropy, "random", 0)
    assert torch.equal(found["conv2"], first["conv2"])


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_a_network_that_takes_one_sample_alone_is_told(criterion: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Flatten(0), nn.Linear(6, 2))
    graph = pruning_graph(model, torch.randn(1, 4))
    with pytest.raises(TaskError, match=rf"'{criterion}' runs the network.*such as l2"):
        channel_scores(model, graph, [(torch.randn(3, 4), None)], squares, criterion)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_that_are_not_finite_are_refused(dense: TinyNet, graph: PruningGraph) -> None:
    with torch.no_grad():
        dense.conv2.weight[0, 0] = torch.inf
    with pytest.raises(TaskError, match="finite"):
        scores(dense, graph, "l2")


def test_scoring_batches_are_some_samples_of_all_the_split() -> None:
    split = stripes(0, 1000)
    first, again, other = (list(scoring_batches(split, seed)) for seed in (0, 0, 1))
    assert [len(inputs) for inputs, _ in first] == [128] * 4
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], other[0][0])
    rows = (split.inputs[:, None] == first[0][0][None, :1]).flatten(1).all(1)
    assert split.targets[rows].tolist() == first[0][1][:1].tolist()
    assert len(list(scoring_batches(stripes(0, 100)))) == 1


def test_all_criteria_but_chance_apply_where_channels_have_batch_norms(
    dense: TinyNet, graph: PruningGraph
) -> None:
    assert applicable_criteria(dense, graph) == tuple(c for c in CRITERIA if c != "random")
    assert applicable_criteria(dense, graph)[0] == "l2"
    assert inapplicable_criteria(dense, graph) == ()


def test_bn_scale_is_left_out_with_a_reason_where_few_have() -> None:
    model = nn.Sequential(
        conv(3, 8), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )
    graph = pruning_graph(model, torch.randn(1, 3, 8, 8))
    assert applicable_criteria(model, graph) == ("l2", "l1", "taylor", "activation", "fpgm")
    assert len(silent_groups(model, graph, "bn_scale")) == 2
    (reason,) = inapplicable_criteria(model, graph)
    assert "bn_scale" in reason
    assert "1 of 3 groups" in reason


def test_a_group_without_a_batch_norm_has_equal_scores_by_it() -> None:
    model, example = network("residual")
    model.body[2][1] = nn.Identity()
    graph = pruning_graph(model, example)
    found = channel_scores(model, graph, [], squares, "bn_scale")
    assert torch.equal(found["body.2.0"], torch.ones(8))

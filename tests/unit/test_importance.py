from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.dependency.graph import PruningGraph, pruning_graph
from harness.compression.importance import (
    CRITERIA,
    applicable_criteria,
    channel_scores,
    inapplicable_criteria,
)
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


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_has_a_score_per_channel(name: str, criterion: str) -> None:
    model, example = network(name)
    graph = pruning_graph(model, example)
    batches = [(torch.randn(2, *example.shape[1:]), torch.zeros(2))]
    found = channel_scores(model, graph, batches, squares, criterion)
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


def test_all_criteria_apply_where_channels_have_batch_norms(
    dense: TinyNet, graph: PruningGraph
) -> None:
    assert applicable_criteria(dense, graph) == CRITERIA
    assert inapplicable_criteria(dense, graph) == ()


def test_bn_scale_is_left_out_with_a_reason_where_few_have() -> None:
    model = nn.Sequential(
        conv(3, 8), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )
    graph = pruning_graph(model, torch.randn(1, 3, 8, 8))
    assert applicable_criteria(model, graph) == ("l2", "taylor")
    (reason,) = inapplicable_criteria(model, graph)
    assert "bn_scale" in reason
    assert "1 of 3 groups" in reason


def test_a_group_without_a_batch_norm_has_equal_scores_by_it() -> None:
    model, example = network("residual")
    model.body[2][1] = nn.Identity()
    graph = pruning_graph(model, example)
    found = channel_scores(model, graph, [], squares, "bn_scale")
    assert torch.equal(found["body.2.0"], torch.ones(8))

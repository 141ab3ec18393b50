from __future__ import annotations

import pytest
import torch

from harness.compression.graph import PruningGraph, pruning_graph
from harness.compression.importance import CRITERIA, channel_scores
from support.tiny import Tiny, TinyNet

TASK = Tiny()


@pytest.fixture
def dense() -> TinyNet:
    network = TinyNet().eval()
    network.load_state_dict(TASK.model().state_dict())
    return network


@pytest.fixture
def graph(dense: TinyNet) -> PruningGraph:
    return pruning_graph(dense, TASK.example_input(1))


def scores(dense: TinyNet, graph: PruningGraph, criterion: str) -> dict[str, torch.Tensor]:
    return channel_scores(dense, graph, TASK.example_input(1), TASK.train(), criterion)


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
    example, few = TASK.example_input(1), TASK.validation()
    for criterion, same in (("taylor", False), ("l2", True)):
        found = channel_scores(dense, graph, example, few, criterion)["conv1"]
        assert torch.equal(found, scores(dense, graph, criterion)["conv1"]) is same

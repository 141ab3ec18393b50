from __future__ import annotations

import random

import pytest
import torch

from harness.compression.pruning.dependency.graph import PruningGraph, pruning_graph
from harness.compression.pruning.prune import choose_channels, prune
from harness.errors import ConfigError
from harness.models.residual import ResidualCnn
from support.tiny import TinyNet

EXAMPLE = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def dense() -> torch.nn.Module:
    return TinyNet().eval()


@pytest.fixture
def graph(dense: torch.nn.Module) -> PruningGraph:
    return pruning_graph(dense, EXAMPLE)


def random_scores(graph: PruningGraph, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.width, generator=rng) for group in graph.groups}


def test_the_highest_scored_channels_stay(graph: PruningGraph) -> None:
    scores = random_scores(graph)
    history = choose_channels(graph, scores, {"conv1": 10, "conv2": 48})
    assert history.keys() == {"conv1"}
    kept = set(range(32)) - set(history["conv1"])
    assert len(kept) == 10
    assert min(scores["conv1"][list(kept)]) > max(scores["conv1"][history["conv1"]])


def test_channels_of_equal_score_are_chosen_alike_every_time(graph: PruningGraph) -> None:
    even = {group.name: torch.ones(group.width) for group in graph.groups}
    widths = {"conv1": 7, "conv2": 9}
    assert choose_channels(graph, even, widths) == choose_channels(graph, even, widths)


@pytest.mark.parametrize("keep", [0, -1, 33])
def test_a_width_out_of_range_is_refused(graph: PruningGraph, keep: int) -> None:
    with pytest.raises(ConfigError, match="1 to 32"):
        choose_channels(graph, random_scores(graph), {"conv1": keep, "conv2": 48})


def test_the_kept_channels_keep_their_weights(dense: torch.nn.Module, graph: PruningGraph) -> None:
    history = choose_channels(graph, random_scores(graph), {"conv1": 5, "conv2": 11})
    first = [i for i in range(32) if i not in history["conv1"]]
    second = [i for i in range(48) if i not in history["conv2"]]
    smaller = prune(dense, graph, EXAMPLE, history).state_dict()
    whole = dense.state_dict()
    assert torch.equal(smaller["conv1.weight"], whole["conv1.weight"][first])
    assert torch.equal(smaller["bn1.running_mean"], whole["bn1.running_mean"][first])
    assert torch.equal(smaller["conv2.weight"], whole["conv2.weight"][second][:, first])
    assert torch.equal(smaller["head.weight"], whole["head.weight"][:, second])
    assert torch.equal(smaller["head.bias"], whole["head.bias"])


@pytest.mark.parametrize("seed", range(5))
def test_realised_widths_are_those_asked_for(seed: int) -> None:
    model = ResidualCnn(1, (16, 32), (2, 1), classes=5)
    example = torch.zeros(1, 1, 16, 16)
    graph = pruning_graph(model, example)
    rng = random.Random(seed)
    widths = {group.name: rng.randint(1, group.width) for group in graph.groups}
    history = choose_channels(graph, random_scores(graph, seed), widths)
    smaller = prune(model, graph, example, history)
    again = pruning_graph(smaller, example).dense_widths()
    assert again == widths
    assert smaller(example).shape == (1, 5)


def test_channels_that_say_nothing_can_go_without_a_change(graph: PruningGraph) -> None:
    network = TinyNet().eval()
    silent = [0, 3, 4, 20]
    with torch.no_grad():
        network.bn1.weight[silent] = 0
        network.bn1.bias[silent] = 0
    smaller = prune(network, graph, EXAMPLE, {"conv1": silent})
    with torch.no_grad():
        torch.testing.assert_close(smaller(EXAMPLE), network(EXAMPLE))


def test_the_original_is_left_as_it_was(dense: torch.nn.Module, graph: PruningGraph) -> None:
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    smaller = prune(dense, graph, EXAMPLE, {"conv1": [1, 2], "conv2": [5]})
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.add_(1.0)
    after = dense.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pruning_nothing_gives_an_equal_copy(dense: torch.nn.Module, graph: PruningGraph) -> None:
    copy = prune(dense, graph, EXAMPLE, {})
    assert copy is not dense
    assert all(torch.equal(t, copy.state_dict()[n]) for n, t in dense.state_dict().items())


@pytest.mark.parametrize(
    "history",
    [
        {"conv1": list(range(32))},
        {"conv1": [32]},
        {"conv1": [-1]},
        {"conv3": [0]},
        {"head": [0]},
    ],
    ids=["all", "above", "below", "unknown", "classes"],
)
def test_a_history_that_asks_too_much_is_refused(
    dense: torch.nn.Module, graph: PruningGraph, history: dict[str, list[int]]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(history))):
        prune(dense, graph, EXAMPLE, history)

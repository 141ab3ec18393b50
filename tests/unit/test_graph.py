from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.pruning.dependency.graph import PruningGraph, pruning_graph
from harness.compression.pruning.prune import prune
from harness.errors import TaskError
from harness.export import layer_macs
from harness.models.residual import ResidualCnn
from support.tiny import TinyNet

EXAMPLE = torch.zeros(1, 1, 16, 16)


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.spatial = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 24, 1)
        self.hidden = nn.Linear(24 * 16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.point(F.relu(self.spatial(F.relu(self.stem(x))))))
        x = F.adaptive_avg_pool2d(x, 4).flatten(1)
        return self.head(F.relu(self.hidden(x)))


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.head = nn.Linear(9, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x))


NETWORKS = {
    "tiny": TinyNet,
    "residual": lambda: ResidualCnn(1, (16, 32), (2, 1), classes=5),
    "depthwise": Depthwise,
}


def random_widths(graph: PruningGraph, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    return {group.name: rng.randint(1, group.width) for group in graph.groups}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_the_formula_gives_the_arithmetic_of_the_pruned_network(name: str, seed: int) -> None:
    model = NETWORKS[name]()
    graph = pruning_graph(model, EXAMPLE)
    widths = random_widths(graph, seed)
    history = {n: list(range(keep, graph.dense_widths()[n])) for n, keep in widths.items()}
    smaller = prune(model, graph, EXAMPLE, {n: gone for n, gone in history.items() if gone})
    assert graph.macs(widths) == pytest.approx(layer_macs(smaller, EXAMPLE))
    weights = sum(
        m.weight.numel() for m in smaller.modules() if isinstance(m, (nn.Conv2d, nn.Linear))
    )
    assert graph.params(widths) == pytest.approx(weights)


def test_dense_widths_give_the_dense_arithmetic() -> None:
    model = TinyNet()
    graph = pruning_graph(model, EXAMPLE)
    assert graph.dense_widths() == {"conv1": 32, "conv2": 48}
    assert graph.macs(graph.dense_widths()) == layer_macs(model, EXAMPLE)


def test_channels_that_are_added_are_one_group() -> None:
    model = ResidualCnn(1, (16, 32), (2, 1), classes=5)
    graph = pruning_graph(model, EXAMPLE)
    stem = next(group for group in graph.groups if group.name == "stem")
    assert {"stages.0.0.conv2", "stages.0.1.conv2"} <= set(stem.layers)
    names = [group.name for group in graph.groups]
    assert names == [
        "stem", "stages.0.0.conv1", "stages.0.1.conv1", "stages.1.0.conv1", "stages.1.0.conv2",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_classes_are_no_group(name: str) -> None:
    graph = pruning_graph(NETWORKS[name](), EXAMPLE)
    assert "head" not in graph.dense_widths()
    assert next(layer for layer in graph.layers if layer.name == "head").outs == ()


def test_tracing_works_under_inference_and_leaves_the_weights() -> None:
    model = TinyNet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        pruning_graph(model, EXAMPLE)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_network_without_inner_channels_is_refused() -> None:
    with pytest.raises(TaskError, match="no channels that can be pruned"):
        pruning_graph(nn.Sequential(nn.Flatten(), nn.Linear(256, 5)), EXAMPLE)


class BehindSoftmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 10)
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 48, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return torch.log_softmax(self.head(features.mean((2, 3))), 1)


def test_the_classes_stay_whole_behind_a_softmax() -> None:
    graph = pruning_graph(BehindSoftmax(), torch.zeros(1, 1, 8, 8))
    assert list(graph.dense_widths()) == ["conv1", "conv2"]


def test_a_network_that_fails_is_told_as_such() -> None:
    with pytest.raises(TaskError, match="can't be traced for pruning: mat1 and mat2"):
        pruning_graph(Broken(), torch.zeros(1, 1, 8, 8))


def test_a_flattened_channel_counts_with_all_its_places() -> None:
    graph = pruning_graph(Depthwise(), EXAMPLE)
    hidden = next(layer for layer in graph.layers if layer.name == "hidden")
    assert [(part.group, part.share) for part in hidden.ins] == [("point", 1.0)]
    assert graph.macs({**graph.dense_widths(), "point": 6})["hidden"] == 6 * 16 * 12


def test_a_depthwise_convolution_counts_its_channels_once() -> None:
    graph = pruning_graph(Depthwise(), EXAMPLE)
    halved = graph.macs({**graph.dense_widths(), "stem": 8})
    dense = graph.macs(graph.dense_widths())
    assert halved["spatial"] == dense["spatial"] / 2


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3), nn.Conv2d(1, 24, 3)
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.one(x), self.two(x)], 1))


def test_a_layer_may_be_fed_by_several_groups() -> None:
    graph = pruning_graph(Concatenated(), EXAMPLE)
    head = next(layer for layer in graph.layers if layer.name == "head")
    assert [(part.group, part.share) for part in head.ins] == [("one", 0.25), ("two", 0.75)]
    assert graph.macs({"one": 4, "two": 6})["head"] == 10 * 2 * 14 * 14


class TwoHalves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3)
        self.one, self.two = nn.Conv2d(4, 2, 1), nn.Conv2d(8, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)
        self.split = 4

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        return self.one(x[:, : self.split]), self.head(self.two(x[:, self.split :]))


def test_channels_of_one_layer_that_go_apart_are_judged_apart() -> None:
    graph = pruning_graph(TwoHalves(), EXAMPLE)
    assert graph.dense_widths() == {"stem#2": 8, "two": 6}
    assert {one.name for one in graph.unprunable} == {"stem"}


class WithSpare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.spare, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.spare(self.one(x)) if self.training else self.one(x))


def test_layers_that_do_not_run_are_no_groups() -> None:
    assert pruning_graph(WithSpare(), EXAMPLE).dense_widths() == {"one": 8}


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.lift, self.head = nn.Embedding(9, 6), nn.Linear(6, 10), nn.Linear(10, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(torch.relu(self.lift(self.words(x).mean(1))))}


def test_words_and_their_features() -> None:
    example = torch.tensor([[1, 2, 3, 8]])
    model = Words()
    graph = pruning_graph(model, example)
    assert graph.dense_widths() == {"words": 6, "lift": 10}
    smaller = prune(model, graph, example, {"words": [1, 2], "lift": [0]})
    assert smaller.words.embedding_dim == 4
    assert smaller(example)["logits"].shape == (1, 2)

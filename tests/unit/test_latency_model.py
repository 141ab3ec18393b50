from __future__ import annotations

import random

import pytest

from harness.compression.pruning.dependency.graph import PruningGraph, pruning_graph
from harness.models.residual import ResidualCnn
from harness_search.latency_model import LatencyModel
from support.tiny import tiny


@pytest.fixture(scope="module")
def graph() -> PruningGraph:
    network = ResidualCnn(1, (32, 64), (2, 1), classes=5)
    return pruning_graph(network, tiny().example_input(1))


def floor(graph: PruningGraph) -> dict[str, int]:
    return {group.name: 8 for group in graph.groups}


def model_of(graph: PruningGraph, floor_share: float, dense_share: float = 1.0) -> LatencyModel:
    dense, smallest = graph.macs(graph.dense_widths()), graph.macs(floor(graph))
    return LatencyModel(dense, {}, smallest, floor_share, dense_share)


def random_widths(graph: PruningGraph, rng: random.Random) -> dict[str, int]:
    return {group.name: rng.randrange(8, group.width + 1, 8) for group in graph.groups}


def true_share(graph: PruningGraph, widths: dict[str, int]) -> float:
    dense, macs = graph.macs(graph.dense_widths()), graph.macs(widths)
    weight = {name: 1.0 + i % 3 for i, name in enumerate(dense)}
    total = sum(weight[name] * dense[name] for name in dense)
    return 0.1 + 0.9 * sum(weight[name] * macs[name] for name in dense) / total


def test_it_begins_at_the_two_networks_that_were_measured(graph: PruningGraph) -> None:
    model = model_of(graph, 0.2)
    assert model.predict(graph.macs(graph.dense_widths())) == pytest.approx(1.0, rel=0.01)
    assert model.predict(graph.macs(floor(graph))) == pytest.approx(0.2, rel=0.01)
    assert model.error() == 0.01


def test_in_another_precision_it_begins_at_the_two_networks_measured_in_it(
    graph: PruningGraph,
) -> None:
    for dense, smallest in ((0.5, 0.15), (1.75, 0.4), (0.3, 0.31)):
        model = model_of(graph, smallest, dense)
        assert model.predict(graph.macs(graph.dense_widths())) == pytest.approx(dense, rel=0.05)
        assert model.predict(graph.macs(floor(graph))) == pytest.approx(smallest, rel=0.05)


def test_a_wider_network_is_never_predicted_to_be_faster(graph: PruningGraph) -> None:
    rng = random.Random(0)
    model = model_of(graph, 0.3)
    for _ in range(4):
        model.add(graph.macs(random_widths(graph, rng)), rng.uniform(0.3, 0.9))
    for _ in range(50):
        widths = random_widths(graph, rng)
        for name, dense in graph.dense_widths().items():
            assert (
                model.predict(graph.macs(widths))
                <= model.predict(graph.macs({**widths, name: dense})) + 1e-9
            )


def test_measurements_correct_the_layers_costs(graph: PruningGraph) -> None:
    rng = random.Random(1)
    model = model_of(graph, true_share(graph, floor(graph)))
    unseen = [random_widths(graph, rng) for _ in range(30)]

    def off() -> float:
        return sum(
            abs(model.predict(graph.macs(w)) / true_share(graph, w) - 1) for w in unseen
        ) / len(unseen)

    before = off()
    for _ in range(25):
        widths = random_widths(graph, rng)
        model.add(graph.macs(widths), true_share(graph, widths))
    assert off() < before / 2


def test_its_error_grows_when_measurements_contradict_each_other(graph: PruningGraph) -> None:
    model = model_of(graph, 0.2)
    widths = {group.name: 16 for group in graph.groups}
    for share in (0.3, 0.5):
        model.add(graph.macs(widths), share)
    assert model.error() > 0.05
    assert 0.3 < model.predict(graph.macs(widths)) < 0.5


@pytest.mark.parametrize("share", [0.001, 0.99, 1.0, 1.05])
def test_a_floor_of_any_speed_gives_usable_predictions(graph: PruningGraph, share: float) -> None:
    model = model_of(graph, share)
    for widths in (floor(graph), graph.dense_widths()):
        assert 0 < model.predict(graph.macs(widths)) < 1.2


def test_a_block_that_is_left_out_saves_what_its_layers_cost_however_narrow() -> None:
    dense = {"stem": 100.0, "block.a": 100.0, "block.b": 100.0, "head": 100.0}
    blocks = {"block": ("block.a", "block.b")}
    floor = {"stem": 10.0, "head": 10.0}
    # By hand, 0.6 of which is spent per MAC and 0.4 by layer: half the layers, a twentieth of MACs.
    model = LatencyModel(dense, blocks, floor, 0.5 * 0.4 + 0.05 * 0.6)
    narrow = dict.fromkeys(dense, 10.0)
    assert model.predict(dense) == pytest.approx(1.0, rel=0.01)
    assert model.predict(narrow) == pytest.approx(0.4 + 0.1 * 0.6, rel=0.02)
    assert model.predict({**floor}) == pytest.approx(0.23, rel=0.02)
    without = {"stem": 100.0, "head": 100.0}
    assert model.predict(without) == pytest.approx(0.5, rel=0.02)
    for _ in range(5):  # it learns what the block really costs
        model.add(without, 0.7)
    assert model.predict(without) == pytest.approx(0.7, rel=0.05)
    assert model.predict(dense) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("floor_share", [0.01, 0.3, 0.9])
def test_cheap_blocks_give_usable_predictions_too(floor_share: float) -> None:
    dense = {"stem": 400.0, "a.x": 1.0, "b.x": 1.0, "head": 1.0}
    blocks = {"a": ("a.x",), "b": ("b.x",)}
    floor = {"stem": 400.0, "head": 1.0}  # half the layers, nearly all arithmetic
    model = LatencyModel(dense, blocks, floor, floor_share)
    for macs in (dense, floor):
        assert 0 < model.predict(macs) < 1.5

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from harness.compression.pruning.allocation import (
    adaptive,
    allowed_widths,
    nearest_widths,
    ranked_ladder,
    scaled_ladder,
    widest_within,
)
from harness.compression.pruning.dependency.graph import Group, PruningGraph, pruning_graph
from harness.compression.pruning.goals import COSTS, check_names, cost_of, reach, widths_by_name
from harness.compression.pruning.prune import choose_channels, prune, pruned_params
from harness.errors import ConfigError
from harness.export import count_macs
from support.networks import network
from support.tiny import TinyNet

GROUPS = (Group("a", 30, ("a",)), Group("b", 64, ("b",)), Group("heads", 24, ("heads",), blocks=4))
GRAPH = PruningGraph(GROUPS, ())


@pytest.mark.parametrize(
    ("granule", "fixed", "floor", "a", "heads"),
    [
        (8, (), 0.0, (8, 16, 24, 30), (8, 16, 24)),
        (6, (), 0.0, (6, 12, 18, 24, 30), (12, 24)),  # whole granules, as many in all four heads
        (16, ("a",), 0.0, (30,), (16, 24)),
        (20, (), 0.0, (20, 30), (20, 24)),
        (40, (), 0.0, (30,), (24,)),
        (10, (), 0.1, (10, 20, 30), (20, 24)),
        (5, (), 0.5, (15, 20, 25, 30), (20, 24)),
    ],
)
def test_widths_are_whole_granules_above_the_floor(
    granule: int, fixed: tuple[str, ...], floor: float, a: tuple[int, ...], heads: tuple[int, ...]
) -> None:
    found = allowed_widths(GRAPH, granule, fixed, floor)
    assert found["a"] == a
    assert found["heads"] == heads


def test_a_floor_is_rounded_up_to_whole_channels_and_no_further() -> None:
    assert allowed_widths(GRAPH, 1, (), 0.1)["a"][0] == 3
    assert allowed_widths(GRAPH, 1, (), 0.11)["a"][0] == 4
    assert allowed_widths(GRAPH, 1)["a"][0] == 1


def test_the_nearest_width_is_taken_and_of_two_the_wider() -> None:
    allowed = allowed_widths(GRAPH, 8, ("heads",))
    assert nearest_widths(allowed, {"a": 0.4, "b": 0.5}) == {"a": 16, "b": 32, "heads": 24}
    assert nearest_widths(allowed, {"b": 0.001}) == {"a": 30, "b": 8, "heads": 24}


def test_equal_densities_are_the_default() -> None:
    allowed = allowed_widths(GRAPH, 4)
    assert scaled_ladder(allowed) == scaled_ladder(allowed, dict.fromkeys(allowed, 0.7))
    assert {"a": 16, "b": 32, "heads": 12} in scaled_ladder(allowed)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return TinyNet().eval()


@pytest.fixture(scope="module")
def graph(dense: nn.Module) -> PruningGraph:
    return pruning_graph(dense, torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("limit", [0, 1, 5, 5.5, 12, 100])
def test_the_widest_within_a_limit_is_found(limit: float) -> None:
    ladder = [{"a": width} for width in (1, 2, 5, 6, 9, 12)]
    expected = [rung for rung in ladder if rung["a"] <= limit]
    assert widest_within(ladder, lambda rung: rung["a"], limit) == (
        expected[-1] if expected else None
    )


@pytest.mark.parametrize("name", ["residual", "depthwise", "grouped", "fused", "volume", "mixer"])
def test_costs_are_what_pruning_really_comes_to(name: str) -> None:
    model, example = network(name)
    graph = pruning_graph(model, example)
    rng = torch.Generator().manual_seed(0)
    scores = {group.name: torch.rand(group.width, generator=rng) for group in graph.groups}
    ladder = ranked_ladder(allowed_widths(graph, 1), scores)
    params, macs = (cost_of(kind, model, graph, ()) for kind in ("params", "macs"))
    for widths in (ladder[0], ladder[len(ladder) // 3], ladder[-1]):
        smaller = prune(model, graph, example, choose_channels(graph, scores, widths))
        assert params(widths) == sum(parameter.numel() for parameter in smaller.parameters())
        assert macs(widths) == pytest.approx(count_macs(smaller, example))
    for kind in COSTS:
        costs = [cost_of(kind, model, graph, ())(widths) for widths in ladder]
        assert all(lower <= upper for lower, upper in pairwise(costs))


def test_counting_leaves_the_network_alone(dense: nn.Module, graph: PruningGraph) -> None:
    before = sum(parameter.numel() for parameter in dense.parameters())
    assert pruned_params(dense, graph, {"conv1": 4, "conv2": 5}) < before
    assert sum(parameter.numel() for parameter in dense.parameters()) == before
    assert dense.conv1.out_channels == 32


def test_fixed_groups_have_no_channels_that_count(dense: nn.Module, graph: PruningGraph) -> None:
    cost = cost_of("channels", dense, graph, ("conv1",))
    assert cost({"conv1": 32, "conv2": 7}) == 7


@pytest.mark.parametrize("kept", [0.57, 0.5, 0.3])
@pytest.mark.parametrize("kind", COSTS)
def test_one_rung_more_would_miss_the_goal(
    dense: nn.Module, graph: PruningGraph, kind: str, kept: float
) -> None:
    ladder = scaled_ladder(allowed_widths(graph, 1))
    cost = cost_of(kind, dense, graph, ())
    found = reach(ladder, kind, kept, cost, "")
    limit = kept * cost(graph.dense_widths()) * (1 + 1e-9)
    assert cost(found) <= limit < cost(ladder[ladder.index(found) + 1])


def test_a_share_that_is_no_exact_number_is_met_exactly() -> None:
    ladder = [{"a": width} for width in range(1, 101)]
    assert 0.57 * 100 < 57
    assert reach(ladder, "channels", 0.57, lambda widths: widths["a"], "") == {"a": 57}


def test_a_goal_out_of_reach_says_how_far_it_gets(dense: nn.Module, graph: PruningGraph) -> None:
    ladder = scaled_ladder(allowed_widths(graph, 16))
    cost = cost_of("params", dense, graph, ())
    least = cost({"conv1": 16, "conv2": 16}) / cost(graph.dense_widths())
    told = math.ceil(1000 * least) / 10
    with pytest.raises(ConfigError, match=rf"at most 1\.0 % .*keeps {told} %\. Do this"):
        reach(ladder, "params", 0.01, cost, "Do this")


def test_widths_by_name_leave_other_groups_whole() -> None:
    found = widths_by_name(GRAPH, 8, {"a": 7, "b": 0.3})
    assert found == {"a": 7, "b": 16, "heads": 24}


def test_a_share_of_one_granule_at_least() -> None:
    assert widths_by_name(GRAPH, 4, {"heads": 0.01})["heads"] == 4


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("body.1.inner.1.0", "Its channels go with those of body.0.0"),
        ("body.0.1", "Did you mean 'body.0.0'"),
        ("head", "Expected one of: body.0.0, "),
    ],
)
def test_a_name_that_is_no_groups_is_refused_with_what_it_may_mean(wrong: str, hint: str) -> None:
    model, example = network("residual")
    model.body[1].inner[1], model.body[1].inner[2] = (
        nn.Sequential(model.body[1].inner[1], model.body[1].inner[2]), nn.Identity(),
    )  # fmt: skip
    graph = pruning_graph(model, example)
    with pytest.raises(ConfigError, match=rf"no prunable group '{wrong}'.*{hint}"):
        check_names(graph, (wrong,))


def test_a_name_that_is_left_whole_is_refused_with_the_reason() -> None:
    graph = pruning_graph(*network("gru"))
    with pytest.raises(ConfigError, match="'lift'.*left whole: rnn is a recurrent layer"):
        check_names(graph, ("lift",))


def test_adaptive_scores_are_over_the_sum_of_those_from_them_on() -> None:
    scores = {"a": torch.tensor([1.0, 4.0, 3.0]), "none": torch.zeros(2)}
    found = adaptive(scores)
    torch.testing.assert_close(found["a"], torch.tensor([1 / 8, 1.0, 3 / 7]))
    assert not found["none"].any()
    assert torch.equal(adaptive({"a": scores["a"] * 1000})["a"], found["a"])


def test_adaptive_scores_take_most_from_wide_groups() -> None:
    rng = torch.Generator().manual_seed(0)
    scores = {"narrow": torch.rand(16, generator=rng), "wide": torch.rand(64, generator=rng)}
    ladder = ranked_ladder({"narrow": range(1, 17), "wide": range(1, 65)}, adaptive(scores))
    half = next(rung for rung in ladder if sum(rung.values()) == 40)
    assert half["narrow"] / 16 > 0.6 > half["wide"] / 64

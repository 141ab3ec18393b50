from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from harness_search.ladder import Ladder, highest_within, ranked_ladder, scaled_ladder
from harness_search.space import SearchSpace

SPACE = SearchSpace(
    {"a": 64, "b": 64, "c": 100, "fixed": 10},
    {"a": (16, 32, 48, 64), "b": (16, 32, 48, 64), "c": (32, 64, 96, 100), "fixed": (10,)},
    ("l2",),
    uses_temperature=True,
    precisions=("fp32",),
)


def random_scores(seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.rand(width, generator=rng) for name, width in SPACE.dense.items()}


def ladders() -> list[Ladder]:
    return [
        scaled_ladder(SPACE, dict.fromkeys(SPACE.dense, 1.0)),
        scaled_ladder(SPACE, {"a": 0.3, "b": 1.0, "c": 0.5, "fixed": 1.0}),
        scaled_ladder(SPACE, {"a": 1.0, "b": 0.32, "c": 0.99, "fixed": 0.2}),
        *(ranked_ladder(SPACE, random_scores(seed)) for seed in range(5)),
    ]


@pytest.mark.parametrize("ladder", ladders())
def test_a_ladder_climbs_from_the_floor_to_the_dense_network(ladder: Ladder) -> None:
    assert ladder[0] == SPACE.floor()
    assert ladder[-1] == dict(SPACE.dense)
    for lower, upper in pairwise(ladder):
        assert lower != upper
        assert all(lower[name] <= upper[name] for name in SPACE.dense)


@pytest.mark.parametrize("ladder", ladders())
def test_every_rung_has_allowed_widths(ladder: Ladder) -> None:
    for widths in ladder:
        assert all(widths[name] in allowed for name, allowed in SPACE.allowed.items())


def test_equal_densities_keep_equal_groups_equal() -> None:
    for widths in scaled_ladder(SPACE, dict.fromkeys(SPACE.dense, 1.0)):
        assert widths["a"] == widths["b"]


def test_only_the_proportions_of_densities_matter() -> None:
    densities = {"a": 0.2, "b": 0.8, "c": 0.4, "fixed": 1.0}
    halved = {name: value / 2 for name, value in densities.items()}
    assert scaled_ladder(SPACE, densities) == scaled_ladder(SPACE, halved)


def test_a_rung_has_the_proportions_that_were_asked_for() -> None:
    densities = {"a": 0.5, "b": 1.0, "c": 0.64, "fixed": 1.0}
    assert {"a": 32, "b": 64, "c": 64, "fixed": 10} in scaled_ladder(SPACE, densities)


def test_the_group_of_higher_density_grows_first() -> None:
    ladder = scaled_ladder(SPACE, {"a": 0.25, "b": 1.0, "c": 0.5, "fixed": 1.0})
    assert all(widths["b"] >= widths["a"] for widths in ladder)


def test_global_pruning_adds_the_most_important_granule_first() -> None:
    scores = {name: torch.full((width,), 0.5) for name, width in SPACE.dense.items()}
    scores["b"] = torch.full((64,), 2.0)
    ladder = ranked_ladder(SPACE, scores)
    assert [widths["b"] for widths in ladder[:4]] == [16, 32, 48, 64]
    assert all(widths["a"] == 16 and widths["c"] == 32 for widths in ladder[:4])


def test_global_pruning_ranks_across_groups_by_the_granules_mean() -> None:
    space = replace(SPACE, dense={"a": 4, "b": 4}, allowed={"a": (2, 4), "b": (2, 4)})
    scores = {"a": torch.tensor([9.0, 0.1, 0.3, 9.0]), "b": torch.tensor([0.9, 0.6, 0.8, 0.1])}
    assert ranked_ladder(space, scores) == [
        {"a": 2, "b": 2}, {"a": 2, "b": 4}, {"a": 4, "b": 4},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "low", "high", "found"),
    [(0.5, 0, 4, 3), (0.5, 0, 2, 2), (0.05, 0, 4, None), (0.25, 3, 4, None), (9.0, 0, 4, 4)],
)
def test_the_highest_rung_within_a_limit(
    limit: float, low: int, high: int, found: int | None
) -> None:
    assert highest_within([0.1, 0.2, 0.35, 0.3, 0.9], limit, low, high) == found

from __future__ import annotations

import pytest
import torch

from harness.data.reduce import METHODS, reduce_split
from harness.data.split import Split
from harness.errors import ConfigError

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100, generator=GENERATOR)]
FEATURES = torch.randn(100, 3, generator=GENERATOR) + 5 * LABELS[:, None]
SPLIT = Split(FEATURES, LABELS)


def reduce(fraction, method, split=SPLIT, features=FEATURES, seed=0):
    return reduce_split(split, fraction, method, features=lambda: features, seed=seed)


@pytest.mark.parametrize("method", METHODS)
def test_a_part_is_repeatable_ascending_and_of_different_samples(method):
    one, same = reduce(0.3, method), reduce(0.3, method)
    assert len(one) == 30
    assert torch.equal(one.rows, same.rows)
    assert (one.rows.diff() > 0).all()
    assert torch.equal(one.targets_of(), LABELS[one.rows])


@pytest.mark.parametrize("method", ["random", "herding"])
def test_classes_keep_their_shares(method):
    assert reduce(0.3, method).targets_of().bincount().tolist() == [18, 9, 3]


@pytest.mark.parametrize("method", METHODS)
def test_every_class_stays(method):
    assert set(reduce(0.01, method).targets_of().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("method", METHODS)
def test_a_part_of_a_part(method):
    rows = torch.arange(50, 100)
    part = reduce(0.5, method, SPLIT.take(rows), FEATURES[rows])
    assert set(part.rows.tolist()) <= set(rows.tolist())
    assert len(part) == 25


def test_the_whole_is_the_split_itself():
    assert reduce_split(SPLIT, 1, "k-center", features=None, seed=0) is SPLIT


def test_random_depends_on_the_seed():
    assert not torch.equal(reduce(0.3, "random").rows, reduce(0.3, "random", seed=1).rows)


def test_k_center_covers_within_twice_the_least_radius():
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0], [4.9], [5.1], [9.0], [0.1]])
    split = Split(line, torch.zeros(8, 1))
    for seed in range(8):
        chosen = line[reduce(3 / 8, "k-center", split, line, seed).rows, 0]
        radius = (line - chosen[None]).abs().min(1).values.max()
        assert radius <= 2 * 1.0  # centres at 1, 5.1 and 9 reach all within 1.0


def test_k_center_never_takes_one_twice_among_equal_samples():
    equal = torch.ones(20, 2)
    part = reduce(0.5, "k-center", Split(equal, torch.zeros(20, 1)), equal)
    assert len(part.rows.unique()) == 10


def test_herding_keeps_the_mean_better_than_chance():
    values = torch.randn(400, 8, generator=GENERATOR)
    split = Split(values, torch.zeros(400, 1))

    def error(method):
        rows = reduce(0.1, method, split, values).rows
        return (values[rows].mean(0) - values.mean(0)).norm()

    assert error("herding") < error("random") / 3


def test_what_is_no_reduction():
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            reduce(fraction, "random")
    with pytest.raises(ConfigError, match="Known: random, k-center, herding"):
        reduce(0.5, "best")
    with pytest.raises(ConfigError, match="needs features"):
        reduce_split(SPLIT, 0.5, "herding", features=None, seed=0)
    for wrong in (FEATURES[:50], FEATURES[:, 0], FEATURES / 0):
        with pytest.raises(ConfigError, match=r"finite features \[100, d\]"):
            reduce(0.5, "k-center", features=wrong)

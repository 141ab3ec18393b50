"""How networks are trained: defaults by the data, and values from a user checked."""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.tasks.recipe import Recipe, default_recipe

RECIPE = Recipe(
    teacher_epochs=8, trial_epochs=2, batch=64, teacher_lr=0.1, trial_lr=0.05, weight_decay=5e-4
)


@pytest.mark.parametrize("samples", [20, 100, 1_000, 10_000, 50_000, 1_000_000])
def test_the_default_fits_the_number_of_samples(samples: int) -> None:
    made = default_recipe(samples, pretrained=False)
    assert made.optimizer == "adamw"
    assert 3 <= made.teacher_epochs <= 60
    assert 1 <= made.trial_epochs <= 20
    assert made.trial_epochs <= made.teacher_epochs
    assert 8 <= made.batch <= 128
    # Enough steps to learn from, but for the smallest data.
    assert samples / made.batch >= 16 or made.batch == 8


def test_more_samples_are_seen_fewer_times() -> None:
    made = [default_recipe(n, pretrained=False) for n in (100, 2_000, 6_000, 60_000, 10**6)]
    for name in ("teacher_epochs", "trial_epochs"):
        epochs = [getattr(one, name) for one in made]
        assert epochs == sorted(epochs, reverse=True)
        assert len(set(epochs)) >= 3
    assert [one.batch for one in made] == sorted(one.batch for one in made)


def test_a_trained_network_is_taken_as_it_is() -> None:
    made, untrained = (default_recipe(5_000, pretrained=p) for p in (True, False))
    assert made.teacher_epochs == 0
    assert made.trial_epochs == untrained.trial_epochs


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("teacher_epochs", "12", 12), ("teacher_epochs", 0, 0), ("trial_epochs", 3, 3),
        ("batch", "2", 2), ("teacher_lr", "1e-3", 1e-3), ("trial_lr", 2, 2.0),
        ("weight_decay", "0", 0.0), ("optimizer", "adamw", "adamw"),
    ],
)  # fmt: skip
def test_values_come_as_texts_or_as_numbers(key: str, given: Any, value: Any) -> None:
    made = RECIPE.with_values({key: given}, "here")
    assert getattr(made, key) == value
    assert type(getattr(made, key)) is type(value)
    assert RECIPE.with_values({}, "here") == RECIPE
    others = {name for name in Recipe.__slots__ if name != key}
    assert all(getattr(made, name) == getattr(RECIPE, name) for name in others)


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("teacher_epochs", -1), ("teacher_epochs", "-1"), ("teacher_epochs", 1.5),
        ("teacher_epochs", True), ("trial_epochs", 0), ("trial_epochs", "two"),
        ("batch", 1), ("batch", None), ("batch", [2]), ("teacher_lr", 0), ("teacher_lr", "fast"),
        ("trial_lr", -0.1), ("trial_lr", math.nan), ("trial_lr", "inf"), ("trial_lr", True),
        ("weight_decay", -1e-9), ("weight_decay", {}), ("optimizer", "adam"),
        ("optimizer", "SGD"), ("optimizer", 1), ("optimizer", ["sgd"]),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_with_what_was_received(key: str, given: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        RECIPE.with_values({key: given}, "the task file")
    for part in ("the task file", key, repr(given), "must be"):
        assert part in str(caught.value)


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"here: unknown key 'epochs'. Expected one of: teacher"):
        RECIPE.with_values({"epochs": 3}, "here")
    with pytest.raises(ConfigError, match="Did you mean 'trial_lr'"):
        RECIPE.with_values({"trail_lr": 3}, "here")

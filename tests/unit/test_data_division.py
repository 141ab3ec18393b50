from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness.data.division import divided
from harness.data.options import DataSpec
from harness.errors import ConfigError

SPEC = DataSpec("npz", (("all", "x"),))


def digests(values):
    """Return a digest per number: equal numbers, equal digests."""
    found = np.zeros((len(values), 16), np.uint8)
    found[:, :8] = np.asarray(values, np.int64).view(np.uint8).reshape(-1, 8)
    return found


def divide(values, classes=None, **options):
    return divided({"all": digests(values)}, classes, dataclasses.replace(SPEC, **options))


def sizes(division):
    return {name: len(rows) for name, rows in division.rows.items()}


def test_everyone_is_in_one_split_and_the_seed_decides():
    one, same, other = (divide(np.arange(1000), split_seed=s) for s in (0, 0, 1))
    assert sizes(one) == {"train": 700, "test": 150, "validation": 150}
    together = np.sort(np.concatenate(list(one.rows.values())))
    assert np.array_equal(together, np.arange(1000))
    for name in one.rows:
        assert np.array_equal(one.rows[name], same.rows[name])
        assert (np.diff(one.rows[name]) > 0).all()
    assert not np.array_equal(one.rows["test"], other.rows["test"])
    assert one.origin == "test and validation drawn from all samples, seed 0"


def test_held_out_splits_have_at_most_ten_thousand_unless_asked():
    values = np.arange(100_000)
    assert sizes(divide(values)) == {"train": 80_000, "test": 10_000, "validation": 10_000}
    assert sizes(divide(values, test_fraction=0.3))["test"] == 30_000


def test_classes_keep_their_shares():
    classes = np.repeat([0, 1, 2], [800, 150, 50])
    division = divide(np.arange(1000), classes)
    for name, expected in (("train", 700), ("test", 150), ("validation", 150)):
        counts = np.bincount(classes[division.rows[name]], minlength=3)
        assert np.abs(counts - expected * np.array([0.8, 0.15, 0.05])).max() <= 1


def test_small_classes_are_in_every_split_and_tiny_ones_in_training():
    classes = np.zeros(200, np.int64)
    classes[:3] = 1
    classes[3:5] = 2
    division = divide(np.arange(200), classes)
    for rows in division.rows.values():
        assert (classes[rows] == 1).sum() == 1
    assert (classes[division.rows["train"]] == 2).sum() == 2
    assert any("1 classes have fewer than three" in note for note in division.notes)


def test_repeats_stay_together():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.arange(700), rng.integers(0, 700, 300)])
    division = divide(values, values % 5)
    members = {name: set(values[rows]) for name, rows in division.rows.items()}
    assert not members["train"] & members["test"]
    assert not members["train"] & members["validation"]
    assert not members["test"] & members["validation"]
    assert abs(len(division.rows["test"]) - 150) < 15
    assert any("300 of 1,000 samples repeat" in note for note in division.notes)


def test_a_bulky_group_is_trained_on():
    values = np.arange(1000)
    values[:200] = 5000  # one image two hundred times: no held-out split should be made of it
    for seed in range(5):
        rows = divide(values, split_seed=seed).rows
        assert set(range(200)) <= set(rows["train"].tolist())
        assert len(rows["test"]) == 150


def test_given_splits_stay_and_what_they_share_is_told():
    parts = {"train": digests(np.arange(100)), "test": digests(np.arange(95, 125)),
             "validation": digests(np.arange(120, 150))}  # fmt: skip
    division = divided(parts, None, SPEC)
    assert division.origin == "given"
    assert sizes(division) == {"train": 100, "test": 30, "validation": 30}
    assert division.notes == (
        "5 of 30 test samples are also in the training split: test scores are flattered.",
        "5 of 30 test samples are also in the validation split: test scores are flattered.",
    )


def test_what_is_missing_comes_out_of_training():
    parts = {"train": digests(np.arange(100)), "test": digests(np.arange(200, 250))}
    division = divided(parts, None, SPEC)
    assert sizes(division) == {"train": 85, "validation": 15, "test": 50}
    assert division.part == {"train": "train", "validation": "train", "test": "test"}


def test_too_few_samples():
    with pytest.raises(ConfigError, match="train 34, test 8, validation 8"):
        divide(np.arange(50))

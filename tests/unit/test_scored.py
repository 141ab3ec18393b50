from __future__ import annotations

import pytest
import torch

from harness.data.split import Split
from harness_search.scored import LEAST, _sample, affordable


@pytest.mark.parametrize(
    ("total", "sample_s", "count"),
    [
        (600, 1e-3, 600),
        (60_000, 1e-3, 60_000),
        (60_001, 1e-3, 32_768),
        (70_000, 1e-3, 32_768),
        (5_000, 0.05, 1024),
        (5_000, 10.0, LEAST),
        (100, 10.0, 100),
    ],
)
def test_all_are_scored_or_as_many_as_the_pace_affords(
    total: int, sample_s: float, count: int
) -> None:
    assert affordable(total, sample_s, 60.0) == count


def test_a_pace_that_is_measured_a_little_otherwise_gives_the_same_samples() -> None:
    assert {affordable(9000, pace, 60.0) for pace in (0.02, 0.021, 0.025)} == {2048}


def test_the_same_samples_are_drawn_every_time_and_in_order() -> None:
    split = Split(torch.arange(1000.0)[:, None], torch.arange(1000))
    first, again, other = (_sample(split, 64, seed) for seed in (1, 1, 2))
    rows = first.targets_of()
    assert isinstance(rows, torch.Tensor)
    assert torch.equal(rows, again.targets_of())  # type: ignore[arg-type]
    assert not torch.equal(rows, other.targets_of())  # type: ignore[arg-type]
    assert torch.equal(rows, rows.sort().values)
    assert len(first) == len(rows.unique()) == 64
    assert _sample(split, 1000, 1) is split

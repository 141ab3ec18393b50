from __future__ import annotations

import numpy as np
import pytest

from harness.measurement.offline import throughput
from harness.measurement.types import LatencySample


def sample(wall_ns: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> LatencySample:
    rounds = len(wall_ns)
    return LatencySample(
        wall_ns, wall_ns, np.zeros_like(wall_ns), np.arange(rounds, dtype=np.int64)
    )


def steady(ns: float, seed: int = 0, noise: float = 0.01) -> LatencySample:
    luck = np.random.default_rng(seed).lognormal(0.0, noise, (20, 11))
    return sample(np.round(ns * luck).astype(np.int64))


def test_a_throughput_is_samples_over_all_the_time_that_the_calls_took() -> None:
    wall = np.full((12, 11), 1_000_000, np.int64)
    wall[:, 5] = 11_000_000  # a slow call counts: one got that many samples, and no more
    found = throughput([sample(wall)], 4, None, 0.95)
    assert found.per_s.value == pytest.approx(4 * 10 / (9e-3 + 11e-3))
    assert (found.batch, found.ratio) == (4, None)


@pytest.mark.parametrize("processes", [1, 5])
def test_the_interval_covers_the_truth_and_the_ratio_is_paired(processes: int) -> None:
    fast = [steady(1e6, seed) for seed in range(processes)]
    slow = [steady(2e6, 100 + seed) for seed in range(processes)]
    found = throughput(slow, 8, (fast, 2), 0.95)
    assert found.per_s.lo < 8 / 2e-3 < found.per_s.hi
    assert found.ratio is not None
    assert found.ratio.lo < 0.5 * 8 / 2 < found.ratio.hi
    assert found.ratio.half_width < 0.01

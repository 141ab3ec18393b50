from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.measurement import flags
from harness.measurement.types import Estimate, LatencySample

QUIET: dict[str, Any] = {
    "governor": "performance", "max_khz": 3000, "throttle_count": 4, "cpu_ticks": 1000,
    "steal_ticks": 0,
}  # fmt: skip


def sample(preempted: float = 0.0, logs: Any = None) -> LatencySample:
    wall = np.full((40, 51), 1000)
    if logs is not None:
        wall = np.round(1e6 * np.exp(np.asarray(logs)))[:, None].repeat(51, 1).astype(np.int64)
    switches = np.zeros_like(wall)
    switches[:, 1 : 1 + round(50 * preempted)] = 1
    return LatencySample(wall, wall, switches)


def test_an_undisturbed_measurement_has_no_flag() -> None:
    assert flags.of_samples([sample()]) == set()
    assert flags.of_states(QUIET, dict(QUIET)) == set()


def test_only_blocking_flags_block() -> None:
    assert not flags.is_blocked([])
    assert not flags.is_blocked(list(flags.NOTES))
    for name in flags.BLOCKING:
        assert flags.is_blocked(["contended", name])
    assert not flags.BLOCKING.keys() & flags.NOTES.keys()


def test_more_than_one_call_in_twenty_preempted_is_contended() -> None:
    assert flags.of_samples([sample(0.04)]) == set()
    assert flags.of_samples([sample(0.10)]) == {"contended"}


def test_too_few_undisturbed_calls_are_said() -> None:
    assert flags.of_samples([sample(0.6)]) == {"contended", "clean_unavailable"}


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"governor": "powersave"}, "frequency_changed"),
        ({"max_khz": 2000}, "frequency_changed"),
        ({"throttle_count": 5}, "throttled"),
        ({"cpu_ticks": 2000, "steal_ticks": 20}, "steal"),
    ],
)
def test_a_change_of_state_is_a_flag(change: dict[str, Any], flag: str) -> None:
    assert flags.of_states(QUIET, {**QUIET, **change}) == {flag}


def test_a_little_steal_is_none() -> None:
    after = {**QUIET, "cpu_ticks": 2000, "steal_ticks": 9}
    assert flags.of_states(QUIET, after) == set()


@pytest.mark.parametrize("missing", ["governor", "max_khz"])
def test_an_absent_sensor_is_said_and_is_not_a_change(missing: str) -> None:
    before = {**QUIET, missing: None}
    assert flags.of_states(before, QUIET) == {"sensor_absent"}


def test_an_unreadable_throttle_count_is_no_throttling() -> None:
    assert flags.of_states({**QUIET, "throttle_count": None}, QUIET) == set()


def test_a_wide_final_is_not_precise() -> None:
    assert flags.of_precision(Estimate(1.0, 0.99, 1.01)) == set()
    assert flags.of_precision(Estimate(1.0, 0.97, 1.03)) == {"precision_not_reached"}

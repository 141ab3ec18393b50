from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.measurement import flags
from harness.measurement.types import Estimate, LatencySample

QUIET: dict[str, Any] = {
    "governor": "performance", "max_khz": 3000, "throttle_count": 4, "cpu_ticks": 1000,
    "steal_ticks": 0, "stalled_us": 0, "clock_s": 100.0,
}  # fmt: skip


def sample(preempted: float = 0.0) -> LatencySample:
    wall = np.full((40, 51), 1000)
    switches = np.zeros_like(wall)
    switches[:, 1 : 1 + round(50 * preempted)] = 1
    return LatencySample(wall, wall, switches, np.arange(40) // 4)


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
        ({"stalled_us": 600_000, "clock_s": 110.0}, "pressure"),
        ({"throttled": ["under-voltage"]}, "throttled"),
        ({"throttled_since_start": ["soft temperature limit"]}, "throttled"),
        ({"power_mode": "0001"}, "power_mode_changed"),
        ({"cpus_online": "0-3"}, "power_mode_changed"),
    ],
)
def test_a_change_of_state_is_a_flag(change: dict[str, Any], flag: str) -> None:
    assert flags.of_states(QUIET, {**QUIET, **change}) == {flag}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"throttled": ["throttled"]}, {"throttled"}),
        ({"throttled": [], "throttled_since_start": ["throttled"]}, {"throttled_before"}),
        ({"throttle_count": None}, {"sensor_absent"}),
        ({"throttle_count": None, "throttled": []}, set()),
        ({"max_khz": 1500, "limit_khz": 2400}, {"frequency_capped"}),
        ({"max_khz": 2400, "limit_khz": 2400}, set()),
        ({"cpus_online": "0-3", "cpus_present": "0-5"}, {"cores_offline"}),
        ({"cpus_online": "0-3", "cpus_present": "0-3", "power_mode": "0001"}, set()),
    ],
)
def test_what_a_board_says_of_itself_all_the_time_is_a_flag(
    state: dict[str, Any], expected: set[str]
) -> None:
    assert flags.of_states({**QUIET, **state}, {**QUIET, **state}) == expected


@pytest.mark.parametrize(
    "change",
    [{"cpu_ticks": 2000, "steal_ticks": 9}, {"stalled_us": 400_000, "clock_s": 110.0}],
    ids=["steal", "pressure"],
)
def test_a_little_is_none(change: dict[str, Any]) -> None:
    assert flags.of_states(QUIET, {**QUIET, **change}) == set()


@pytest.mark.parametrize("side", ["before", "after"])
def test_pressure_that_was_not_read_is_unknown(side: str) -> None:
    sides = {"before": dict(QUIET), "after": {**QUIET, "stalled_us": 9_000_000, "clock_s": 110.0}}
    sides[side]["stalled_us"] = None
    assert flags.of_states(**sides) == set()
    del sides[side]["stalled_us"]
    assert flags.of_states(**sides) == set()


def test_a_process_that_ends_slower_or_faster_than_it_began_drifts() -> None:
    rng = np.random.default_rng(1)
    steady = rng.normal(0.0, 0.005, 12)
    for change in (0.1, -0.1):
        ramp = steady + change * np.arange(12) / 12
        assert flags.of_series([steady, ramp]) == {"drift"}
    assert flags.of_series([steady, steady + 0.1]) == set()  # processes may differ


def test_one_process_whose_sittings_follow_each_other_is_autocorrelated() -> None:
    waves = 0.01 * np.sin(np.arange(24) * 2 * np.pi / 8)
    assert flags.of_series([waves]) == {"autocorrelated"}
    assert flags.of_series([waves, waves]) == set()  # the unit is the process, then
    assert flags.of_series([np.array([])]) == set()


@pytest.mark.parametrize("missing", ["governor", "max_khz"])
def test_an_absent_sensor_is_said_and_is_not_a_change(missing: str) -> None:
    before = {**QUIET, missing: None}
    assert flags.of_states(before, QUIET) == {"sensor_absent"}


def test_an_unreadable_throttle_count_is_no_throttling() -> None:
    assert flags.of_states({**QUIET, "throttle_count": None}, QUIET) == {"sensor_absent"}


def test_a_wide_final_is_not_precise() -> None:
    assert flags.of_precision(Estimate(1.0, 0.99, 1.01)) == set()
    assert flags.of_precision(Estimate(1.0, 0.97, 1.03)) == {"precision_not_reached"}

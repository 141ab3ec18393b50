from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.budget import parse_budget
from harness.measurement.summary import Run, judged, summarise
from harness.measurement.types import LatencySample


def run(wall_ns: Any, switches: Any = None, create_s: float = 0.1, first_s: float = 0.2) -> Run:
    wall = np.asarray(wall_ns, np.int64)
    nivcsw = np.zeros_like(wall) if switches is None else np.asarray(switches, np.int64)
    session = SimpleNamespace(session_create_s=create_s, first_inference_s=first_s)
    return Run(session, LatencySample(wall, wall, nivcsw))


def noisy(seed: int, rounds: int = 10, calls: int = 51, scale: float = 1e6) -> Run:
    rng = np.random.default_rng(seed)
    return run(np.round(scale * rng.lognormal(0.0, 0.02, (rounds, calls))))


def test_one_process_gives_the_mean_of_the_rounds_log_medians() -> None:
    stats = summarise([run([[9, 1000, 1000, 8000], [9, 4000, 4000, 100]])], None, 0.95)
    assert math.isclose(stats.p50.value, 2e-6)
    assert (stats.n_rounds, stats.n_processes, stats.n_calls) == (2, 1, 6)


def test_several_processes_count_one_each_however_many_rounds_they_ran() -> None:
    short, long = run(np.full((2, 6), 1000)), run(np.full((40, 6), 4000))
    stats = summarise([short, long], None, 0.95)
    assert math.isclose(stats.p50.value, 2e-6)
    assert stats.n_processes == 2
    assert stats.p50.lo < 1e-6
    assert stats.p50.hi > 4e-6


def test_preempted_calls_are_left_out_of_clean_figures_and_kept_in_raw_ones() -> None:
    wall = np.full((10, 51), 1000)
    wall[:, -10:] = 50_000
    stats = summarise([run(wall, wall > 1000)], None, 0.95)
    assert stats.p90 is not None
    assert math.isclose(stats.p90.value, 1e-6)
    assert math.isclose(stats.p90_raw_s, 50e-6)
    assert math.isclose(stats.contended, 0.2)
    assert stats.n_clean == 400


def test_raw_figures_are_used_where_hardly_a_call_was_undisturbed() -> None:
    wall = np.full((10, 51), 3000)
    wall[:, 1:5] = 1000
    stats = summarise([run(wall, wall == 3000)], None, 0.95)
    assert math.isclose(stats.p50.value, 3e-6)


def test_a_99th_percentile_needs_662_calls() -> None:
    few = summarise([noisy(1, rounds=10, calls=67)], None, 0.95)
    many = summarise([noisy(1, rounds=10, calls=68)], None, 0.95)
    assert few.n_calls == 660
    assert few.p99 is None
    assert few.p99_raw_s is None
    assert many.p99 is not None
    assert many.p99_raw_s is not None
    assert many.p50.value < many.p90_raw_s < many.p99_raw_s


def test_the_references_ratio_to_itself_is_one() -> None:
    runs = [noisy(2)]
    stats = summarise(runs, runs, 0.95)
    for statistic in ("p50", "p90"):
        ratio = stats.ratio(statistic)
        assert (ratio.value, ratio.lo, ratio.hi) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("processes", [1, 5])
def test_ratios_are_paired_so_that_common_moods_cancel(processes: int) -> None:
    rng = np.random.default_rng(3)
    ours, theirs = [], []
    for _ in range(processes):
        mood = np.exp(rng.normal(0.0, 0.3, (10, 1)))
        theirs.append(run(np.round(1e6 * mood * rng.lognormal(0.0, 0.005, (10, 51)))))
        ours.append(run(np.round(0.4e6 * mood * rng.lognormal(0.0, 0.005, (10, 51)))))
    stats = summarise(ours, theirs, 0.95)
    assert stats.ratio_p50 is not None
    assert stats.ratio_p50.lo < 0.4 < stats.ratio_p50.hi
    assert stats.ratio_p50.half_width < 0.01 < stats.p50.half_width


def test_without_a_reference_there_is_no_ratio() -> None:
    stats = summarise([noisy(4)], None, 0.95)
    assert stats.ratio_p50 is None
    assert stats.ratio_p90 is None


def test_start_up_times_are_medians_over_processes() -> None:
    runs = [run(np.full((2, 5), 1000), create_s=s, first_s=2 * s) for s in (0.1, 9.0, 0.2)]
    stats = summarise(runs, None, 0.95)
    assert stats.session_create_s == 0.2
    assert stats.first_inference_s == 0.4


@pytest.mark.parametrize("statistic", ["p50", "p90"])
@pytest.mark.parametrize("text", ["50%", "1ms"])
@pytest.mark.parametrize("processes", [1, 3])
def test_what_a_look_judges_is_what_the_summary_reports(
    processes: int, text: str, statistic: str
) -> None:
    ours = [noisy(10 + i, scale=5e5) for i in range(processes)]
    theirs = [noisy(20 + i) for i in range(processes)]
    budget = parse_budget(text, statistic)
    reported = summarise(ours, theirs, 0.9875).judged(budget)
    assert judged(ours, theirs, budget, 0.9875) == reported

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from harness.budget import Decision, parse_budget, parse_budgets
from harness.errors import ConfigError, MeasurementError
from harness.measurement.types import Estimate, LatencyStats

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_time_bounds_the_p90_and_a_share_the_p50() -> None:
    time, share = parse_budget("10 ms"), parse_budget("50%")
    assert (time.kind, time.value, time.statistic, time.text) == ("time", 0.010, "p90", "10ms")
    assert (share.kind, share.value, share.statistic, share.text) == ("share", 0.5, "p50", "50%")


def test_the_statistic_can_be_chosen() -> None:
    assert parse_budget("10ms", "p50").statistic == "p50"
    assert parse_budget("50%", "p90").statistic == "p90"
    with pytest.raises(ConfigError, match="p99"):
        parse_budget("10ms", "p99")


@pytest.mark.parametrize("text", ["", "10", "fast", "10MB", "0%", "-5ms", "0Minstr", "80MI"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("lo", "hi", "decision"),
    [
        (0.48, 0.50, Decision.FEASIBLE),
        (0.49, 0.501, Decision.UNDECIDED),
        (0.50, 0.52, Decision.UNDECIDED),
        (0.501, 0.52, Decision.INFEASIBLE),
    ],
)
def test_the_upper_bound_decides(
    stats: Callable[..., LatencyStats], lo: float, hi: float, decision: Decision
) -> None:
    measured = stats(ratio_p50=Estimate((lo + hi) / 2, lo, hi))
    assert parse_budget("50%").decide(measured) is decision


@pytest.mark.parametrize(
    ("text", "statistic", "field"),
    [
        ("50%", "p50", "ratio_p50"),
        ("50%", "p90", "ratio_p90"),
        ("500ms", "p50", "p50"),
        ("500ms", "p90", "p90"),
    ],
)
def test_each_budget_looks_at_its_own_figure(
    stats: Callable[..., LatencyStats], text: str, statistic: str, field: str
) -> None:
    over = dict.fromkeys(("p50", "p90", "ratio_p50", "ratio_p90"), Estimate(9.0, 9.0, 9.0))
    within: dict[str, Any] = {**over, field: Estimate(0.4, 0.4, 0.4)}
    budget = parse_budget(text, statistic)
    assert budget.decide(stats(**within)) is Decision.FEASIBLE
    assert budget.decide(stats(**over)) is Decision.INFEASIBLE


def test_a_missing_figure_is_never_a_verdict(stats: Callable[..., LatencyStats]) -> None:
    with pytest.raises(MeasurementError, match="ratio of p50"):
        parse_budget("50%").decide(stats())


def test_a_time_is_a_share_of_the_dense_latency() -> None:
    assert math.isclose(parse_budget("5ms").as_share(0.020), 0.25)
    assert parse_budget("50%").as_share(0.020) == 0.5


def test_a_list_is_sorted_and_has_no_repeats() -> None:
    assert [b.text for b in parse_budgets("70%, 30%,50%,30%")] == ["30%", "50%", "70%"]


@pytest.mark.parametrize("text", ["50%,10ms", "50%,", ",", "50%,x"])
def test_a_list_of_mixed_kinds_or_with_gaps_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        parse_budgets(text)

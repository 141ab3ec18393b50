from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from harness.budget import Decision, check_budgets, parse_budget, parse_budgets
from harness.errors import ConfigError, MeasurementError
from harness.measurement.types import Estimate, LatencyStats
from harness.quantity import INSTRUCTIONS, TIME
from harness.target import Target

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


def test_instructions_bound_the_p50() -> None:
    budget = parse_budget("0.08 Ginstr")
    assert (budget.kind, budget.statistic, budget.text) == ("instructions", "p50", "0.08Ginstr")
    assert math.isclose(budget.value, 80e6)
    assert math.isclose(budget.as_share(160e6), 0.5)
    assert budget.describe() == "p50 within 80.0 Minstr"
    assert parse_budget("80Minstr", "p90").statistic == "p90"


@pytest.mark.parametrize("text", ["10ms,80Minstr", "50%,80Minstr"])
def test_instructions_are_not_mixed_with_other_kinds(text: str) -> None:
    with pytest.raises(ConfigError, match="not mixed"):
        parse_budgets(text)
    assert [b.text for b in parse_budgets("80Minstr,9Minstr")] == ["9Minstr", "80Minstr"]


def test_the_limit_is_in_the_unit_of_the_dense_figure() -> None:
    assert parse_budget("50%").limit(160e6) == 80e6
    assert parse_budget("80Minstr").limit(1.0) == 80e6
    assert parse_budget("5ms").limit(1.0) == 5e-3


@pytest.mark.parametrize(
    ("text", "cpu", "words"),
    [
        ("10ms", "cortex-a76", "such as '80Minstr' or a share .* Received: '10ms'.*no latency"),
        ("80Minstr", "", "such as '10ms' or a share .* Received: '80Minstr'.*emulated targets"),
    ],
)
def test_a_budget_of_another_quantity_than_the_targets_is_refused(
    text: str, cpu: str, words: str
) -> None:
    target = Target("board", "fake", emulated_cpu=cpu)
    with pytest.raises(ConfigError, match=words):
        check_budgets(parse_budgets(text), target)
    check_budgets(parse_budgets("50%"), target)


def test_instructions_never_satisfy_a_time_nor_the_other_way(
    stats: Callable[..., LatencyStats],
) -> None:
    few = Estimate(1e-9, 1e-9, 1e-9)
    for text, quantity in (("10ms", INSTRUCTIONS), ("80Minstr", TIME)):
        with pytest.raises(MeasurementError, match="can't be held against"):
            parse_budget(text).decide(stats(p50=few, p90=few, quantity=quantity))
    counted = stats(p50=few, quantity=INSTRUCTIONS)
    assert parse_budget("80Minstr").decide(counted) is Decision.FEASIBLE

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness.budget import Decision, parse_budget
from harness.target import Target
from harness_search.baseline import dense_suffices
from harness_search.finals import ranked_candidates
from harness_search.settings import Settings
from harness_search.tools import derived_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_results.record import RunRecord

    MakeRecord = Callable[..., RunRecord]

BUDGET = parse_budget("50%")


def order(records: list[RunRecord], **changes: Any) -> list[int | None]:
    settings = replace(Settings(Target("cpu", "onnxruntime"), (BUDGET,)), **changes)
    bench: Any = SimpleNamespace(settings=settings, dense_validation={"value": 0.95})
    return [record.index for record in ranked_candidates(bench, BUDGET, records)]


def test_the_most_accurate_wins_then_the_surer_then_the_earlier(trial_record: MakeRecord) -> None:
    records = [
        trial_record(0, value=0.90, loss=0.3),
        trial_record(1, value=0.92, loss=0.5),
        trial_record(2, value=0.92, loss=0.4),
        trial_record(3, value=0.92, loss=0.4),
    ]
    assert order(records) == [2, 3, 1, 0]


def test_speed_within_the_budget_earns_nothing(trial_record: MakeRecord) -> None:
    fast = trial_record(0, value=0.90, ratio=(0.1, 0.1, 0.1))
    slow = trial_record(1, value=0.91, ratio=(0.49, 0.49, 0.5))
    assert order([fast, slow]) == [1, 0]


def test_only_trained_unflagged_trials_surely_within_the_budget_may_win(
    trial_record: MakeRecord,
) -> None:
    records = [
        trial_record(0, ratio=(0.49, 0.48, 0.501)),
        trial_record(1, status="over_budget"),
        trial_record(2, status="failed"),
        trial_record(3, flags=("throttled",)),
        trial_record(4, flags=("parity_failed",)),
        trial_record(5, flags=("contended",)),
    ]
    assert order(records) == [5]


def test_a_trial_for_a_wider_budget_may_win_if_it_is_within_this_one(
    trial_record: MakeRecord,
) -> None:
    records = [
        trial_record(0, budget="70%", ratio=(0.45, 0.44, 0.46)),
        trial_record(1, budget="70%", ratio=(0.65, 0.64, 0.66)),
    ]
    assert order(records) == [0]


def test_a_size_limit_keeps_larger_files_out(trial_record: MakeRecord) -> None:
    records = [trial_record(0, size_bytes=1001, value=0.99), trial_record(1, size_bytes=1000)]
    assert order(records, max_size_bytes=1000) == [1]
    assert order(records) == [0, 1]


def test_under_a_drop_the_fastest_within_it_wins(trial_record: MakeRecord) -> None:
    records = [
        trial_record(0, value=0.95, ratio=(0.45, 0.44, 0.46)),
        trial_record(1, value=0.94, ratio=(0.30, 0.29, 0.31)),
        trial_record(2, value=0.90, ratio=(0.20, 0.19, 0.21)),
    ]
    assert order(records, max_drop=0.02) == [1, 0]


def floor(lo: float, hi: float) -> Any:
    triples = {"ratio_p50": [lo, lo, hi], "p90_s": [lo, lo, hi]}
    return SimpleNamespace(latency={"probe": triples, "dense": triples})


def asked(
    max_drop: float | None = None,
    max_size: int | None = None,
    precisions: tuple[str, ...] = ("fp32", "int8"),
) -> Any:
    settings = SimpleNamespace(max_drop=max_drop, max_size_bytes=max_size)
    space = SimpleNamespace(precisions=precisions)
    return SimpleNamespace(settings=settings, space=space, dense=SimpleNamespace(size_bytes=1000))


def test_the_dense_model_meets_a_budget_only_if_it_surely_does() -> None:
    assert dense_suffices(asked(), floor(0.4, 0.45), parse_budget("500ms"))
    assert not dense_suffices(asked(), floor(0.4, 0.499), parse_budget("500ms"))
    assert not dense_suffices(asked(), floor(0.4, 0.51), parse_budget("500ms"))
    assert dense_suffices(asked(), floor(0.4, 0.49), parse_budget("100%"))
    assert not dense_suffices(asked(), floor(0.4, 0.49), parse_budget("99%"))


def test_a_faster_or_smaller_network_is_looked_for_where_it_is_asked_for() -> None:
    wide = parse_budget("120%")
    assert not dense_suffices(asked(max_drop=0.01), floor(0.4, 0.49), wide)
    assert not dense_suffices(asked(max_size=999), floor(0.4, 0.49), wide)
    assert dense_suffices(asked(max_size=1000), floor(0.4, 0.49), wide)


def test_the_dense_network_is_no_answer_where_float32_is_not_asked_for() -> None:
    assert not dense_suffices(asked(precisions=("int8",)), floor(0.4, 0.49), parse_budget("500ms"))


def test_a_decision_has_three_values() -> None:
    assert {str(decision) for decision in Decision} == {"feasible", "infeasible", "undecided"}


def test_derived_seeds_differ_by_part_and_fit_31_bits() -> None:
    seeds = {derived_seed(seed, *rest) for seed in range(20) for rest in ((), (1,), ("train", 1))}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derived_seed(0, "train", 1) == derived_seed(0, "train", 1)

"""What floors say of a target: precisions that pay, budgets in reach, where models begin."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from harness.budget import parse_budget
from harness.compression.pruning.dependency.graph import pruning_graph
from harness.errors import ConfigError
from harness.quantity import TIME
from harness.target import Target
from harness_search.bases import Base
from harness_search.reach import allows, fastest, space_within, take_floors
from harness_search.settings import Settings
from harness_search.space import search_space
from support.tiny import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_results.record import RunRecord

BOTH = ("fp32", "int8")


def triple(value: float) -> list[float]:
    return [value, value * 0.98, value * 1.02]


def figures(share: float) -> dict[str, Any]:
    return {f"{kind}_{s}" if kind == "ratio" else f"{s}_s": triple(share)
            for kind in ("ratio", "time") for s in ("p50", "p90")}  # fmt: skip


def floor(
    precision: str,
    share: float,
    whole: float | None = None,
    size_bytes: int = 1000,
    reason: str | None = None,
) -> Any:
    latency = {"probe": figures(share), "dense": figures(1.0)}
    if whole is not None:
        latency["whole"] = figures(whole)
    return SimpleNamespace(
        candidate={"precision": precision}, latency=latency, budget={"statistic": "p50"},
        model={"size_bytes": size_bytes}, reason=reason, quantity=TIME, timings_s={"timing": 1.0},
        status="complete" if reason is None else "failed",
    )  # fmt: skip


def bench(max_size: int | None = None, precisions: tuple[str, ...] = BOTH) -> Any:
    network = tiny().model()
    graph = pruning_graph(network, tiny().example_input(1))
    settings = Settings(
        Target("cpu", "onnxruntime"), (), precisions=precisions, max_size_bytes=max_size
    )
    said: list[str] = []
    space = search_space(graph, 16, settings, ("l2",), uses_temperature=True)
    return SimpleNamespace(
        graph=graph, settings=settings, target=settings.target, notes=(), said=said, space=space,
        base=lambda blocks: Base((), graph, space), progress=SimpleNamespace(note=said.append),
    )  # fmt: skip


HELPS = [floor("fp32", 0.3, size_bytes=4000), floor("int8", 0.2, 0.5)]
HURTS = [floor("fp32", 0.3, size_bytes=4000), floor("int8", 0.6, 1.75)]


def test_latency_models_begin_at_what_was_timed_in_their_precision() -> None:
    made = bench()
    assert take_floors(made, HELPS, []) == HELPS
    assert made.space.precisions == BOTH
    for name, whole, smallest in (("fp32", 1.0, 0.3), ("int8", 0.5, 0.2)):
        model, macs = made.latency_models[name], made.graph.macs
        assert model.predict(macs(made.space.dense)) == pytest.approx(whole, rel=0.02)
        assert model.predict(macs(made.space.floor())) == pytest.approx(smallest, rel=0.02)
    assert made.floor_shares == {"fp32": 0.3, "int8": 0.2}
    assert made.floor_bytes == {"fp32": 4000, "int8": 1000}
    assert made.dense_figures == {"p50": 1.0, "p90": 1.0}
    assert made.notes == ()


def test_a_precision_that_is_slower_everywhere_is_left_out_and_told() -> None:
    made = bench()
    assert take_floors(made, HURTS, []) == HURTS[:1]
    assert made.space.precisions == ("fp32",)
    assert made.latency_models.keys() == {"fp32"}
    (note,) = made.notes
    assert made.said == [f"note: {note}"]
    assert "int8 is left out of the search: it is no faster than fp32 here." in note
    assert "network's p50: the dense network in int8 175.0% (171.5% to 178.5%)" in note
    assert "the floor in int8 60.0% (58.8% to 61.2%), in fp32 30.0% (29.4% to 30.6%)" in note


def test_a_precision_that_may_be_faster_stays() -> None:
    for ours in ([0.31, 1.5], [0.6, 0.99], [0.6, 1.019]):
        made = bench()
        take_floors(made, [HELPS[0], floor("int8", *ours)], [])
        assert made.space.precisions == BOTH, ours


def test_a_slower_precision_stays_where_files_have_to_be_small_or_trials_have_it(
    trial_record: Callable[..., RunRecord],
) -> None:
    small = bench(max_size=2000)
    take_floors(small, HURTS, [])
    assert small.space.precisions == BOTH
    trial = trial_record(2)
    used = replace(trial, candidate={**trial.candidate, "precision": "int8"})
    resumed = bench()
    take_floors(resumed, HURTS, [used])
    assert resumed.space.precisions == BOTH


def test_a_pinned_precision_stays_however_slow() -> None:
    made = bench(precisions=("int8",))
    take_floors(made, HURTS[1:], [])
    assert made.space.precisions == ("int8",)
    assert made.notes == ()


def test_a_precision_that_failed_is_told_and_refused_where_trials_have_it(
    trial_record: Callable[..., RunRecord],
) -> None:
    floors = [HELPS[0], floor("int8", 0.2, 0.5, reason="ExportError: no int8")]
    made = bench()
    assert take_floors(made, floors, [trial_record(0)]) == floors[:1]
    assert made.space.precisions == ("fp32",)
    assert made.notes == ("int8 is left out of the search: ExportError: no int8",)
    trial = trial_record(2)
    used = replace(trial, candidate={**trial.candidate, "precision": "int8"})
    with pytest.raises(ConfigError, match=r"trials in int8, .* any more: ExportError: no int8"):
        take_floors(bench(), floors, [used])


def test_under_a_budget_precisions_that_cannot_meet_it_are_left_out(
    trial_record: Callable[..., RunRecord],
) -> None:
    made = bench()
    take_floors(made, HELPS, [])

    def precisions(text: str, *trials: RunRecord) -> tuple[str, ...] | None:
        found = space_within(made, HELPS, parse_budget(text), trials)
        return None if found is None else found.precisions

    assert precisions("50%") == BOTH
    assert precisions("25%") == ("int8",)
    assert precisions("25%", trial_record(0, budget="25%")) == BOTH
    assert precisions("25%", trial_record(0, budget="50%")) == ("int8",)
    assert precisions("10%") is None


@pytest.mark.parametrize("text", ["50%", "500ms"])
def test_a_budget_is_hopeless_only_if_the_floor_is_clearly_over_it(text: str) -> None:
    budget = parse_budget(text)
    assert allows(floor("fp32", 0.45), budget, None)
    assert allows(floor("fp32", 0.505), budget, None)
    assert not allows(floor("fp32", 0.52), budget, None)


def test_a_floor_that_is_too_large_allows_nothing() -> None:
    budget = parse_budget("50%")
    large, small = floor("fp32", 0.4, size_bytes=4000), floor("int8", 0.45, size_bytes=1000)
    assert not allows(large, budget, 2000)
    assert allows(small, budget, 2000)
    assert fastest([small, large]) is large

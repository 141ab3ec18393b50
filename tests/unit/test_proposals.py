from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from harness.budget import Budget, parse_budget, parse_budgets
from harness.errors import TaskError
from harness.target import Target
from harness_search.bases import Base
from harness_search.ladder import ranked_ladder, scaled_ladder
from harness_search.proposals import is_within_drop, propose
from harness_search.settings import Settings
from harness_search.space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness_results.record import RunRecord

    MakeRecord = Callable[..., RunRecord]

SPACE = SearchSpace(
    {"conv1": 32, "conv2": 48}, {"conv1": (8, 16, 32), "conv2": (8, 24, 48)}, ("l2", "taylor"),
    uses_temperature=True, precisions=("fp32",),
)  # fmt: skip
SCORES = {"conv1": torch.linspace(0.5, 1.5, 32), "conv2": torch.linspace(1.9, 0.1, 48)}
SUGGESTED = {"ratio.conv1": 0.5, "ratio.conv2": 0.0, **SPACE.defaults(), "temperature": 2.0}
ASKED = object()


class Sampler:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def ask(self, index: int) -> tuple[Any, dict[str, Any]]:
        self.asked.append(index)
        return ASKED, SUGGESTED


def bench(
    budgets: tuple[Budget, ...],
    max_drop: float | None = None,
    precisions: tuple[str, ...] = ("fp32",),
) -> Any:
    settings = Settings(Target("cpu", "onnxruntime"), budgets)
    return SimpleNamespace(
        settings=replace(settings, max_drop=max_drop), floor_shares={"fp32": 0.1},
        space=SPACE, spaces={b.text: replace(SPACE, precisions=precisions) for b in budgets},
        order=(), base=lambda blocks: Base(tuple(blocks), None, SPACE),  # type: ignore[arg-type]
        dense_validation={"value": 0.95}, dense_figures={"p50": 0.020, "p90": 0.025},
        scores=lambda criterion, blocks=(): SCORES,
    )  # fmt: skip


def proposals(text: str, count: int) -> tuple[list[Any], dict[str, Sampler]]:
    budgets = parse_budgets(text)
    samplers = {budget.text: Sampler() for budget in budgets}
    made = bench(budgets)
    return [propose(made, i, [], samplers, budgets) for i in range(count)], samplers  # type: ignore[arg-type]


def aims(records: Sequence[RunRecord], max_drop: float | None = 0.02) -> float:
    budgets = parse_budgets("50%")
    samplers: Any = {"50%": Sampler()}
    return propose(bench(budgets, max_drop), 9, records, samplers, budgets)[0].aim


def test_the_controls_come_first_and_are_not_the_samplers() -> None:
    made, samplers = proposals("50%", 4)
    assert [proposal.role for proposal, _ in made] == ["global", "uniform", "searched", "searched"]
    assert [asked for _, asked in made] == [None, None, ASKED, ASKED]
    assert samplers["50%"].asked == [2, 3]
    for proposal, _ in made[:2]:
        assert proposal.suggestion is None
        assert proposal.params == SPACE.defaults()


def test_the_controls_are_uniform_and_global_pruning() -> None:
    made, _ = proposals("50%", 2)
    assert made[0][0].ladder == ranked_ladder(SPACE, SCORES)
    assert made[1][0].ladder == scaled_ladder(SPACE, {"conv1": 1.0, "conv2": 1.0})


def test_each_further_precision_begins_with_global_pruning_in_it() -> None:
    budgets = parse_budgets("50%")
    made, samplers = bench(budgets, precisions=("fp32", "int8")), {"50%": Sampler()}
    found = [propose(made, i, [], samplers, budgets)[0] for i in range(4)]  # type: ignore[arg-type]
    assert [one.role for one in found] == ["global", "int8", "uniform", "searched"]
    assert [one.params["precision"] for one in found] == ["fp32", "int8", "fp32", "fp32"]
    assert found[1].ladder == found[0].ladder
    assert found[1].suggestion is None
    assert samplers["50%"].asked == [3]


def test_depth_comes_after_global_pruning_and_is_told_by_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness_search.proposals.best_depth", lambda bench, space, share: 2)
    budgets = parse_budgets("50%")
    made: Any = bench(budgets, precisions=("fp32", "int8"))
    made.spaces = {"50%": replace(made.spaces["50%"], blocks=("x", "y", "z"))}
    made.order = ("z", "x", "y")
    samplers: Any = {"50%": Sampler()}
    found = [propose(made, i, [], samplers, budgets)[0] for i in range(5)]
    assert [one.role for one in found] == ["global", "depth", "int8", "uniform", "searched"]
    assert [one.base.blocks for one in found] == [(), ("z", "x"), (), (), ()]
    assert found[1].params["depth"] == 2


def test_where_a_network_without_blocks_cannot_be_traced_fewer_go() -> None:
    budgets = parse_budgets("50%")
    made: Any = bench(budgets)

    def base(blocks: Any) -> Base:
        if len(blocks) > 1:
            raise TaskError("no")
        return Base(tuple(blocks), None, SPACE)  # type: ignore[arg-type]

    made.base, made.order, said = base, ("z", "x", "y"), []
    made.progress = SimpleNamespace(note=said.append)
    sampler: Any = SimpleNamespace(ask=lambda index: (ASKED, {**SUGGESTED, "depth": 3}))
    found, _ = propose(made, 5, [], {"50%": sampler}, budgets)
    assert found.base.blocks == ("z",)
    assert said == ["one block more stays: no"] * 2


def test_a_searched_proposal_is_what_the_sampler_suggested() -> None:
    proposal = proposals("50%", 3)[0][2][0]
    assert proposal.ladder == scaled_ladder(SPACE, {"conv1": 0.5, "conv2": 1.0})
    assert proposal.params == SUGGESTED
    drawn = {name: SUGGESTED[name] for name in SPACE.distributions()}  # one precision: not drawn
    assert proposal.suggestion == drawn


def test_budgets_take_turns_and_each_has_its_controls() -> None:
    made, samplers = proposals("30%,60%", 6)
    assert [(p.budget.text, p.role) for p, _ in made] == [
        ("30%", "global"), ("60%", "global"), ("30%", "uniform"), ("60%", "uniform"),
        ("30%", "searched"), ("60%", "searched"),
    ]  # fmt: skip
    assert {text: sampler.asked for text, sampler in samplers.items()} == {"30%": [4], "60%": [5]}


@pytest.mark.parametrize(
    ("text", "statistic", "aim"), [("50%", None, 0.5), ("5ms", "p50", 0.25), ("5ms", "p90", 0.2)]
)
def test_the_aim_is_the_budget_as_a_share_of_dense(
    text: str, statistic: str | None, aim: float
) -> None:
    budget = parse_budget(text, statistic)
    samplers: Any = {budget.text: Sampler()}
    for index in (0, 1, 2):
        proposal, _ = propose(bench((budget,)), index, [], samplers, (budget,))
        assert proposal.aim == pytest.approx(aim)


def test_within_a_drop_means_so_much_below_dense_and_no_more(trial_record: MakeRecord) -> None:
    allowed = bench(parse_budgets("50%"), max_drop=0.02)
    assert is_within_drop(allowed, trial_record(0, value=0.93))
    assert not is_within_drop(allowed, trial_record(0, value=0.929))
    assert is_within_drop(bench(parse_budgets("50%")), trial_record(0, value=0.0))


def test_under_a_drop_the_next_aims_to_be_faster_than_the_best(trial_record: MakeRecord) -> None:
    good = trial_record(0, value=0.94, ratio=(0.4, 0.39, 0.41))
    assert aims([], 0.02) == 0.5
    assert aims([good], None) == 0.5
    assert 0.2 <= aims([good]) < 0.4


def test_it_does_not_go_back_to_where_accuracy_was_lost(trial_record: MakeRecord) -> None:
    good = trial_record(0, value=0.94, ratio=(0.4, 0.39, 0.41))
    lost = trial_record(1, value=0.90, ratio=(0.38, 0.37, 0.39))
    assert 0.38 < aims([good, lost]) < 0.4


def test_it_does_not_aim_below_the_floor(trial_record: MakeRecord) -> None:
    good = trial_record(0, value=0.94, ratio=(0.11, 0.10, 0.12))
    assert aims([good]) == pytest.approx(0.1)


def test_what_is_slower_than_the_fastest_within_the_loss_cannot_win(
    trial_record: MakeRecord,
) -> None:
    budgets = parse_budgets("50%")
    samplers: Any = {"50%": Sampler()}
    good = trial_record(0, value=0.94, ratio=(0.4, 0.39, 0.41))
    limits = [
        propose(bench(budgets, drop), 9, records, samplers, budgets)[0].limit
        for drop, records in ((0.02, [good]), (0.02, []), (None, [good]))
    ]
    assert limits == [0.4, None, None]


def test_other_budgets_and_untrained_trials_say_nothing_of_the_aim(
    trial_record: MakeRecord,
) -> None:
    other = trial_record(0, value=0.94, ratio=(0.2, 0.19, 0.21), budget="30%")
    over = trial_record(1, status="over_budget", ratio=(0.2, 0.19, 0.21))
    assert aims([other, over]) == 0.5

from __future__ import annotations

import pytest
import torch

from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Work
from harness.errors import ConfigError, TaskError
from support.tiny import tiny


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def context() -> Context:
    task = tiny()
    return Context(task, task.model())


@pytest.mark.parametrize("text", ["low-rank:params=60%", "low-rank:params=0.6,scheme=spatial"])
def test_the_network_is_within_the_share_and_can_be_built_again(
    text: str, context: Context
) -> None:
    step, work = parse_step(text), Work(context.teacher)
    decision = step.decide(work, context)
    assert decision == {
        "ranks": decision["ranks"], "scheme": step.options()["scheme"], "granule": 1,
    }  # fmt: skip
    assert decision["ranks"].keys() == {"conv2"}
    done, again = step.apply(work, decision, context), step.rebuild(work, decision, context)
    assert count(done.module) / count(work.module) <= 0.6
    again.module.load_state_dict(done.module.state_dict())
    assert torch.equal(done.module(context.example), again.module(context.example))
    assert not done.module.training


def test_only_named_layers_change(context: Context) -> None:
    step = parse_step("low-rank:params=99.9%,layers=conv1")
    assert step.decide(Work(context.teacher), context)["ranks"].keys() == {"conv1"}


def test_an_unknown_layer_is_refused(context: Context) -> None:
    step = parse_step("low-rank:params=90%,layers=conv3")
    with pytest.raises(ConfigError, match="conv3.*Expected one of: conv1, conv2, head"):
        step.decide(Work(context.teacher), context)


def test_sparse_layers_stay_whole(context: Context) -> None:
    work = Work(context.teacher, sparse=("conv2.weight",))
    with pytest.raises(ConfigError, match="no layer.*sparse weight stay whole. Put 'low-rank' bef"):
        parse_step("low-rank:params=90%").decide(work, context)


def test_sparse_names_stay(context: Context) -> None:
    work = Work(context.teacher, sparse=("conv1.weight",))
    step = parse_step("low-rank:params=90%")
    assert step.apply(work, step.decide(work, context), context).sparse == ("conv1.weight",)


def test_a_result_that_does_not_run_is_told(context: Context) -> None:
    work = Work(torch.nn.Sequential(torch.nn.Linear(9, 9)))
    with pytest.raises(TaskError, match="doesn't run"):
        parse_step("low-rank:params=90%").apply(
            work, {"ranks": {"0": 1}, "scheme": "channel"}, context
        )


@pytest.mark.parametrize("text", ["low-rank", "low-rank:params=2", "low-rank:params=9%,scheme=x"])
def test_options_are_checked(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_step(text)


def test_a_named_layer_that_is_sparse_is_refused(context: Context) -> None:
    work = Work(context.teacher, sparse=("conv2.weight",))
    with pytest.raises(ConfigError, match="Received: conv2. Put 'low-rank' before 'sparsify'"):
        parse_step("low-rank:params=90%,layers=conv1+conv2").decide(work, context)

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from harness.compression.depth.blocks import drop_blocks, residual_blocks
from harness.compression.depth.choice import Judge, choose_blocks
from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Silent, Work
from harness.errors import ConfigError, TaskError
from harness.export import count_macs
from harness.models.network import Network
from harness.models.resnet import ResNet
from support.tiny import TinyNet, tiny

EXAMPLE = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def make_context(model: nn.Module, **changes: Any) -> Context:
    data = tiny().data
    data = replace(data, train=data.train.take(torch.arange(48)))
    task = replace(tiny(), network=Network(model, "m"), data=data, **changes)
    return Context(task, model)


@pytest.fixture
def resnet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet(1, 3, 3, widths=(4, 8, 16)).eval()


@pytest.fixture
def context(resnet: nn.Module) -> Context:
    return make_context(resnet)


def test_named_blocks_go(resnet: nn.Module, context: Context) -> None:
    step, work = parse_step("depth:blocks=layer2.2+layer1.1"), Work(resnet)
    decision = step.decide(work, context)
    assert decision == {"blocks": ["layer1.1", "layer2.2"]}
    done = step.apply(work, decision, context).module
    assert isinstance(done.get_submodule("layer1.1"), nn.Identity)
    again = step.rebuild(work, decision, context).module
    again.load_state_dict(done.state_dict())
    assert torch.equal(done(EXAMPLE), again(EXAMPLE))
    assert not done.training
    assert count(done) < count(resnet)


@pytest.mark.parametrize("by", ["params", "macs"])
@pytest.mark.parametrize("keep", [0.9, 0.6])
def test_the_network_is_within_the_share_and_no_block_went_in_vain(
    by: str, keep: float, resnet: nn.Module, context: Context
) -> None:
    def share(names: list[str]) -> float:
        smaller = drop_blocks(resnet, names)
        if by == "params":
            return count(smaller) / count(resnet)
        return count_macs(smaller, EXAMPLE) / count_macs(resnet, EXAMPLE)

    gone = parse_step(f"depth:{by}={keep}").decide(Work(resnet), context)["blocks"]
    assert share(gone) <= keep
    for name in gone:
        assert share([other for other in gone if other != name]) > keep


class Counting(Judge):
    """Gives losses from a table of what each block adds, and counts how often it is asked."""

    def __init__(self, *given: Any, adds: dict[str, float]) -> None:
        super().__init__(*given)
        self.adds, self.asked = adds, 0

    def loss(self, gone: Any) -> float:
        self.asked += 1
        return sum(self.adds[name] for name in gone)


def test_the_block_that_matters_least_for_its_size_goes_first(
    resnet: nn.Module, context: Context
) -> None:
    blocks = residual_blocks(resnet, EXAMPLE)
    adds = {block.name: 9.0 for block in blocks} | {"layer1.1": 0.1, "layer3.2": 0.2}
    judge = Counting(resnet, context, "params", adds=adds)
    assert choose_blocks(judge, blocks, 0.999, context) == ["layer3.2"]
    judge = Counting(resnet, context, "macs", adds=adds)  # the same for both
    assert choose_blocks(judge, blocks, 0.999, context) == ["layer1.1"]


def test_few_blocks_are_judged_again(resnet: nn.Module, context: Context) -> None:
    blocks = residual_blocks(resnet, EXAMPLE)
    adds = {block.name: float(i + 1) * block.params for i, block in enumerate(blocks)}
    judge = Counting(resnet, context, "params", adds=adds)
    first = [block.name for block in blocks[:3]]
    assert choose_blocks(judge, blocks, judge.kept(first), context) == first
    assert judge.asked == 1 + len(blocks) + 2


def test_blocks_that_need_not_have_gone_come_back(resnet: nn.Module, context: Context) -> None:
    blocks = residual_blocks(resnet, EXAMPLE)
    adds = {block.name: 1e6 for block in blocks} | {"layer1.0": 0.0, "layer3.1": 1.0}
    judge = Counting(resnet, context, "params", adds=adds)
    assert choose_blocks(judge, blocks, judge.kept(["layer3.1"]), context) == ["layer3.1"]


def test_the_loss_is_that_of_training_samples(context: Context) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()  # no norms
    judge = Judge(model, make_context(model), "params")
    split = context.task.data.train
    with torch.no_grad():
        outputs = model(split.batch(torch.arange(len(split))))
    expected = nn.functional.cross_entropy(outputs, split.targets_of())
    assert judge.loss([]) == pytest.approx(float(expected), rel=1e-4)


def test_losses_that_are_no_number_keep_a_block(resnet: nn.Module, context: Context) -> None:
    blocks = residual_blocks(resnet, EXAMPLE)
    adds = {block.name: float("inf") for block in blocks} | {"layer3.2": 1.0}
    judge = Counting(resnet, context, "params", adds=adds)
    assert choose_blocks(judge, blocks, 0.8, context) == ["layer3.2"]
    assert len(choose_blocks(judge, blocks, 0.4, context)) > 1


def test_the_choice_is_the_same_every_time_and_leaves_the_network(
    resnet: nn.Module, context: Context
) -> None:
    before = copy.deepcopy(resnet.state_dict())
    step, state = parse_step("depth:macs=70%"), torch.get_rng_state()
    found = [step.decide(Work(resnet), context) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[n], t) for n, t in resnet.state_dict().items())


def test_a_share_out_of_reach_is_told_with_how_far_it_gets(
    resnet: nn.Module, context: Context
) -> None:
    blocks = residual_blocks(resnet, EXAMPLE)
    least = count(drop_blocks(resnet, [b.name for b in blocks])) / count(resnet)
    with pytest.raises(ConfigError, match=f"{least:.1%} are left.*'prune' after 'depth'"):
        parse_step("depth:params=5%").decide(Work(resnet), context)


def test_an_unknown_block_is_told_with_those_that_there_are(
    resnet: nn.Module, context: Context
) -> None:
    step = parse_step("depth:blocks=layer2.0")  # halves the resolution
    with pytest.raises(ConfigError, match=r"Expected one of: layer1\.0, .*Did you mean"):
        step.decide(Work(resnet), context)


def test_a_network_without_blocks_is_told_what_to_do() -> None:
    model = TinyNet().eval()
    with pytest.raises(ConfigError, match="no residual block"):
        parse_step("depth:params=50%").decide(Work(model), make_context(model))


@pytest.mark.parametrize("text", ["depth", "depth:params=50%,macs=50%", "depth:blocks=a,macs=5%"])
def test_exactly_one_option_is_needed(text: str) -> None:
    with pytest.raises(ConfigError, match="exactly one of blocks, params and macs"):
        parse_step(text)


def test_sparse_names_that_are_gone_are_forgotten(resnet: nn.Module, context: Context) -> None:
    sparse = ("layer1.1.conv1.weight", "layer1.2.conv1.weight")
    done = parse_step("depth:blocks=layer1.1").apply(
        Work(resnet, sparse), {"blocks": ["layer1.1"]}, context
    )
    assert done.sparse == sparse[1:]


def test_a_loss_that_fails_is_told(resnet: nn.Module) -> None:
    def broken(outputs: Any, targets: Any) -> torch.Tensor:
        raise KeyError("nothing")

    context = make_context(resnet, objective=replace(tiny().objective, loss=broken))
    with pytest.raises(TaskError, match="KeyError"):
        parse_step("depth:params=90%").decide(Work(resnet), context)


def test_waiting_timings_get_their_turn_and_progress_is_told(resnet: nn.Module) -> None:
    told: list[Any] = []

    class Telling(Silent):
        def advance(self, done: int, total: int) -> None:
            told.append((done, total))

    breaths: list[None] = []
    context = replace(
        make_context(resnet), listener=Telling(), breathe=lambda: breaths.append(None)
    )
    parse_step("depth:params=80%").decide(Work(resnet), context)
    assert told[0] == (1, 7)
    assert len(breaths) >= 7


def test_a_network_that_answers_nothing_is_told_how_its_blocks_are_found(
    resnet: nn.Module, context: Context
) -> None:
    with torch.no_grad():
        resnet.get_submodule("bn1").weight.zero_()
        for name, parameter in resnet.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(-1.0)
    assert residual_blocks(resnet, context.example) == ()
    with pytest.raises(ConfigError, match="answers nothing, put 'recalibrate' before 'depth'"):
        parse_step("depth:params=50%").decide(Work(resnet), context)

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.compression.running import difference, tensors_of
from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Decision, Work
from harness.compression.steps.rewrite import Rewrite
from harness.errors import ConfigError, TaskError
from harness.models.network import Network
from harness.models.resnet import resnet20
from harness.models.small_cnn import build as build_small
from harness.tasks.base import Task
from support.networks import PaddedBlock
from support.tiny import TinyNet, tiny


class Heard:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def phase(self, text: str) -> None:
        pass

    def advance(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


class Rewritable(TinyNet):
    """With a padded shortcut, norms, and a head that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.block = PaddedBlock(32, 48, inline=True)
        self.block2 = PaddedBlock(48, 96, inline=False)
        self.auxiliary = nn.Linear(48, 3)
        self.head = nn.Linear(96, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block2(self.block(self.bn1(self.conv1(x))))
        return self.head(x.mean((2, 3)))


def setting(module: nn.Module) -> tuple[Work, Context, Heard]:
    task: Task = replace(tiny(), network=Network(module.eval(), "own"))
    heard = Heard()
    return (
        Work(module, ("auxiliary.weight", "conv1.weight")),
        Context(task, module, listener=heard),
        heard,
    )


def rewritable() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Rewritable()


def stored(decision: Decision) -> Decision:
    told: Decision = json.loads(json.dumps(decision))
    return told


def test_what_can_be_rewritten_is_decided_done_and_told() -> None:
    work, context, heard = setting(rewritable())
    before = {name: tensor.clone() for name, tensor in work.module.state_dict().items()}
    decision = Rewrite().decide(work, context)
    assert decision["dead"] == ["conv2", "bn2", "auxiliary"]
    assert [one["module"] for one in decision["shortcuts"]] == ["block2.shortcut", "block"]
    assert "norms" not in decision
    new = Rewrite().apply(work, stored(decision), context)
    batch = context.task.example_input(50)
    assert difference(tensors_of(work.module, batch), tensors_of(new.module, batch)) == 0.0
    assert not new.module.training
    assert new.sparse == ("conv1.weight",)
    assert all(torch.equal(before[n], t) for n, t in work.module.state_dict().items())
    assert before.keys() == work.module.state_dict().keys()
    dead, shortcuts = heard.notes
    assert "conv2, bn2, auxiliary; 14,067 parameters" in dead
    assert "block2.shortcut (48 to 96, stride 2), block (32 to 48, stride 2)" in shortcuts
    assert "difference of outputs: 0 of" in shortcuts
    assert "51 samples" in shortcuts


def test_norms_are_folded_when_asked() -> None:
    work, context, heard = setting(rewritable())
    step = parse_step("rewrite:only=norms+shortcuts")
    assert step.options() == {"only": ["shortcuts", "norms"]}
    decision = step.decide(work, context)
    assert ["block.conv1", "block.bn1"] in decision["norms"]
    new = step.apply(work, stored(decision), context)
    batch = context.task.example_input(50)
    assert 0 < difference(tensors_of(work.module, batch), tensors_of(new.module, batch)) < 1e-5
    assert isinstance(new.module.get_submodule("block.bn1"), nn.Identity)
    assert "5 norms are folded" in heard.notes[-1]


@pytest.mark.parametrize("only", ["dead", "shortcuts", "norms", "dead+shortcuts+norms"])
def test_the_same_structure_is_rebuilt(only: str) -> None:
    work, context, _ = setting(rewritable())
    step = Rewrite(only)
    decision = stored(step.decide(work, context))
    new = step.apply(work, decision, context)
    again = step.rebuild(Work(Rewritable().eval(), work.sparse), decision, context)
    again.module.load_state_dict(new.module.state_dict())
    assert again.sparse == new.sparse
    assert [n for n, _ in again.module.named_modules()] == [
        n for n, _ in new.module.named_modules()
    ]
    example = context.example
    assert difference(tensors_of(new.module, example), tensors_of(again.module, example)) == 0.0


def test_nothing_to_rewrite() -> None:
    work, context, heard = setting(TinyNet())
    decision = Rewrite().decide(work, context)
    assert decision == {"dead": [], "shortcuts": []}
    assert Rewrite().apply(work, decision, context) is work
    assert heard.notes == ["Nothing to rewrite (dead, shortcuts): the network stays as it is."]


class Twofold(TinyNet):
    """Takes a layer away for samples that the decision hasn't seen."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(3, 3)
        self.used = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return self.spare(y) if self.used else y


def test_other_outputs_are_an_error() -> None:
    work, context, _ = setting(Twofold())
    decision = Rewrite().decide(work, context)
    assert decision["dead"] == ["spare"]
    work.module.used = True
    with pytest.raises(TaskError, match="'dead' must leave the outputs as they are .* Received"):
        Rewrite().apply(work, decision, context)


class Single(TinyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise KeyError("one at a time")
        return super().forward(x)


def test_a_network_that_doesn_t_run_is_told() -> None:
    work, context, _ = setting(Single())
    with pytest.raises(TaskError, match="several at once. Received: KeyError"):
        Rewrite().decide(work, context)


@pytest.mark.parametrize("only", ["", "norm", "dead+norm", 3, [], ["dead", 1]])
def test_names_that_are_none(only: object) -> None:
    with pytest.raises(ConfigError, match=r"names among dead, shortcuts, norms.*Received"):
        Rewrite(only)


@pytest.mark.parametrize("build", [resnet20, build_small])
def test_shipped_networks_have_nothing_to_rewrite(
    build: Callable[[tuple[int, ...], int], nn.Module],
) -> None:
    work, context, _ = setting(build((1, 8, 8), 3))
    assert Rewrite().decide(work, context) == {"dead": [], "shortcuts": []}


class NormedShortcut(Rewritable):
    """With a norm behind the padding, which is folded into what the padding becomes."""

    def __init__(self) -> None:
        super().__init__()
        self.block2.shortcut = nn.Sequential(self.block2.shortcut, nn.BatchNorm2d(96))


def test_a_decision_whose_rewrites_are_sorted_is_done_in_their_own_order() -> None:
    work, context, _ = setting(NormedShortcut())
    step = Rewrite("dead+shortcuts+norms")
    decision = json.loads(json.dumps(step.decide(work, context), sort_keys=True))
    assert list(decision) == ["dead", "norms", "shortcuts"]
    assert ["block2.shortcut.0", "block2.shortcut.1"] in decision["norms"]
    new = step.apply(work, decision, context)
    again = step.rebuild(Work(NormedShortcut().eval(), work.sparse), decision, context)
    again.module.load_state_dict(new.module.state_dict())
    example = context.example
    assert difference(tensors_of(new.module, example), tensors_of(again.module, example)) == 0.0

"""What steps refuse before a network is trained: what its structure alone tells."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.compression.steps import parse_step
from harness.compression.steps.base import Work
from harness.errors import ConfigError
from harness.models.network import Network
from harness.models.resnet import ResNet
from harness.tasks.base import Task
from harness_search.pipeline import foresee_steps
from support.steps import context
from support.tiny import tiny


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x[:, 0])[0][:, -1])


def resnet() -> nn.Module:
    return ResNet(1, 1, 3, (8, 16, 32)).eval()


def task_of(module: nn.Module) -> Task:
    return replace(tiny(), network=Network(module.eval(), "any"))


REFUSED = [
    (resnet, "prune:params=1%", r"at most 1\.0 % of .*keeps \d+\.\d %\. Give a larger share"),
    (resnet, "prune:params=0.1%,scope=uniform,granule=1", "can't reach"),
    (resnet, "prune:scope=layers,layers=foo=8", "no prunable group 'foo'"),
    (resnet, "prune:scope=layers,layers=conv1=900", "must keep 1 to"),
    (resnet, "prune:params=50%,exclude=foo", "no prunable group 'foo'"),
    (resnet, "prune:ratio=99%", r"that may go.*Give a smaller ratio"),
    (resnet, "low-rank:params=1%", "can't get to"),
    (resnet, "low-rank:params=50%,layers=foo", "'foo' can't be separated"),
    (resnet, "depth:blocks=layer9.9", "no block 'layer9.9'"),
    (resnet, "depth:params=1%", "can't get to params"),
    (resnet, "student:model=nope", "Received: 'nope'"),
    (lambda: tiny().model(), "depth:params=50%", "no residual block"),
    (lambda: tiny().model(), "depth:blocks=conv1", "no residual block"),
    (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 6), nn.Flatten()),
     "prune:params=50%,criterion=bn_scale", "says nothing of any"),
    (Recurrent, "prune:params=50%", "Left whole: rnn: rnn is a recurrent layer"),
    (Recurrent, "low-rank:params=50%", "no layer to separate"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "step", "named"), REFUSED)
def test_what_can_not_be_is_refused_by_the_structure_as_by_the_network(
    make: type[nn.Module], step: str, named: str
) -> None:
    module = make()
    task, asked = task_of(module), parse_step(step)
    kept = copy.deepcopy(module.state_dict())
    messages = []
    for ask in (asked.foresee, asked.decide):
        with pytest.raises(ConfigError, match=named) as caught:
            ask(Work(module), context(task, module))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert all(torch.equal(kept[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    "step",
    ["prune:params=50%", "prune:ratio=30%,scope=uniform", "prune:scope=layers,layers=conv1=4",
     "low-rank:params=80%", "depth:params=95%", "depth:macs=90%", "depth:blocks=layer1.0",
     "rewrite", "sparsify:zeros=50%", "int8"],
)  # fmt: skip
def test_what_can_be_is_let_through_and_what_it_leaves_is_not_known(step: str) -> None:
    module = resnet()
    assert parse_step(step).foresee(Work(module), context(task_of(module), module)) is None


@pytest.mark.parametrize("step", ["distil", "recalibrate"])
def test_steps_that_only_train_leave_the_structure(step: str) -> None:
    module = resnet()
    work = Work(module)
    assert parse_step(step).foresee(work, context(task_of(module), module)) is work


def test_a_student_is_what_the_next_step_gets() -> None:
    task = tiny()
    found = parse_step("student:model=small-cnn").foresee(
        Work(task.model()), context(task, task.model())
    )
    assert found is not None
    assert type(found.module) is not type(task.model())


class Quiet:
    """What `foresee_steps` needs of a command's tools."""

    def __init__(self, task: Task) -> None:
        self.task, self.network, self.progress = task, task.model(), self
        self.lock = context(task, self.network)
        self.phases: list[str] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def seed(self, *parts: object) -> int:
        return 0


def foresee(module: nn.Module, *steps: str) -> None:
    tools = Quiet(task_of(module))
    foresee_steps(tools, [parse_step(step) for step in steps])  # type: ignore[arg-type]


def test_steps_are_foreseen_up_to_the_first_that_changes_the_structure() -> None:
    foresee(resnet(), "prune:params=50%", "depth:blocks=foo")  # only after pruning can it be known
    with pytest.raises(ConfigError, match="no block 'foo'"):
        foresee(resnet(), "distil", "recalibrate", "depth:blocks=foo")
    with pytest.raises(ConfigError, match="no residual block"):
        foresee(resnet(), "student:model=small-cnn", "distil", "depth:params=50%")


def test_a_network_that_begins_with_zeros_has_its_blocks() -> None:
    module = resnet()
    for tensor in module.get_submodule("linear").parameters():
        nn.init.zeros_(tensor)
    with pytest.raises(ConfigError, match="no residual block"):
        parse_step("depth:params=95%").foresee(Work(module), context(task_of(module), module))
    before = torch.get_rng_state()
    foresee(module, "depth:params=95%")
    assert torch.equal(torch.get_rng_state(), before)

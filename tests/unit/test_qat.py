from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from harness.compression.quantisation.convert import converted
from harness.compression.quantisation.fake import FakeInput, FakeWeight, fake_quantised, quantisable
from harness.compression.quantisation.precision import FP32, Precision
from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Silent, Work
from harness.data.augment import Augmentation
from harness.errors import ConfigError, TaskError
from harness.export import onnx_bytes
from harness.tasks.base import Reduction
from harness.training import fit
from support.networks import network
from support.tiny import TinyNet, tiny

TASK = tiny()
STEP = parse_step("qat")


def trained() -> nn.Module:
    """Return the dense network, trained for a second."""
    recipe = TASK.recipe
    return fit(
        TASK.model(),
        TASK.data.train,
        TASK.objective,
        recipe,
        epochs=3,
        lr=recipe.teacher_lr,
        seed=0,
    )


DENSE = trained()
CONTEXT = Context(TASK, DENSE)


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks hold the same."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def applied(text: str, work: Work, context: Context = CONTEXT) -> Work:
    step = parse_step(text)
    return step.apply(work, step.decide(work, context), context)


def test_weights_are_rounded_per_channel_as_the_file_has_them() -> None:
    rng = torch.Generator().manual_seed(0)
    weight = (
        torch.randn(4, 3, 3, 3, generator=rng)
        * torch.tensor([1.0, 10, 0.1, 0])[:, None, None, None]
    )
    weight[0, 0] = 0
    found = FakeWeight()(weight)
    scale = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12) / 127
    steps = found / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert (found - weight).abs().le(0.5001 * scale).all()
    assert found[0, 0].eq(0).all()
    assert found[3].eq(0).all()
    torch.testing.assert_close(FakeWeight()(found), found)


def test_gradients_go_straight_through() -> None:
    weight = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    FakeWeight()(weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.eq(1).all()


def test_inputs_are_rounded_to_a_range_that_moves_in_training_only() -> None:
    seen: list[torch.Tensor] = []

    class Seeing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    layer = Seeing(2, 2)
    hook = FakeInput(layer)
    layer(torch.tensor([[0.102, 1.0]]))
    torch.testing.assert_close(seen[-1], torch.tensor([[26 / 255, 1.0]]))
    copied = copy.deepcopy(layer)
    layer.eval()(torch.tensor([[-1.0, 3.0]]))
    torch.testing.assert_close(seen[-1], torch.tensor([[0.0, 1.0]]))
    for one in (layer.train(), copied):  # a copy has a range of its own
        one(torch.tensor([[-1.0, 3.0]]))
        torch.testing.assert_close(seen[-1], torch.tensor([[-0.01, 1.02]]), atol=0.005, rtol=0)
    layer(torch.tensor([1]))
    assert seen[-1].equal(torch.tensor([1]))
    assert layer.state_dict().keys() == {"weight", "bias"}
    hook.remove()
    assert dict(layer.named_buffers()) == {}


def test_fake_quantisation_leaves_no_trace() -> None:
    module, example = network("residual")
    before, names = module(example), list(dict(module.named_parameters()))
    weight = module.get_parameter("head.weight")
    with fake_quantised(module):
        assert not torch.equal(module(example), before)
        inside = [id(one) for one in module.parameters()]
        assert id(weight) in inside
    assert torch.equal(module(example), before)
    assert sorted(dict(module.named_parameters())) == sorted(names)
    assert module.get_parameter("head.weight") is weight
    assert not any(layer._forward_pre_hooks for layer in module.modules())


def test_weights_that_are_computed_stay_as_they_are() -> None:
    module = nn.Sequential(weight_norm(nn.Linear(3, 3)), nn.Linear(3, 2))
    assert quantisable(module) == [module[1]]
    with fake_quantised(module):
        module(torch.zeros(1, 3))
    assert "parametrizations.weight.original0" in dict(module[0].named_parameters())


def test_the_step_folds_trains_and_gives_a_plain_network() -> None:
    before = copy.deepcopy(DENSE)
    work = Work(DENSE)
    decision = STEP.decide(work, CONTEXT)
    assert decision.pop("channels_last") in (True, False)
    assert decision == {
        "epochs": 1, "lr": 0.005, "seed": 0, "samples": 320, "of": 320,
        "bfloat16": False, "folded": [["conv1", "bn1"], ["conv2", "bn2"]],
    }  # fmt: skip
    decision = STEP.decide(work, CONTEXT)
    done = STEP.apply(work, decision, CONTEXT)
    assert same(before, DENSE)
    assert not done.module.training
    assert done.precision == FP32
    assert {type(one) for one in done.module.modules()} == {
        TinyNet, nn.Conv2d, nn.Identity, nn.Linear
    }  # fmt: skip
    folded = STEP.rebuild(work, decision, CONTEXT).module
    assert folded.state_dict().keys() == done.module.state_dict().keys()
    assert not torch.equal(folded.conv1.weight, done.module.conv1.weight)
    torch.testing.assert_close(folded(CONTEXT.example), DENSE(CONTEXT.example))
    folded.load_state_dict(done.module.state_dict())
    assert torch.equal(folded(CONTEXT.example), done.module(CONTEXT.example))


def test_the_same_seed_gives_the_same_weights() -> None:
    state = torch.get_rng_state()
    one, two = applied("qat", Work(DENSE)), applied("qat", Work(DENSE))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(one.module, two.module)
    other = applied("qat", Work(DENSE), replace(CONTEXT, seed=1))
    assert not same(one.module, other.module)


@pytest.mark.parametrize(
    "text", ["qat:epochs=2", "qat:lr=0.5", "qat:weight=0", "qat:temperature=1"]
)
def test_every_option_counts(text: str) -> None:
    assert not same(applied("qat", Work(DENSE)).module, applied(text, Work(DENSE)).module)


def test_the_rate_is_a_tenth_of_the_recipes() -> None:
    given = applied(f"qat:lr={TASK.recipe.trial_lr / 10}", Work(DENSE))
    assert same(applied("qat", Work(DENSE)).module, given.module)


def test_zeros_of_sparse_parameters_stay_zero_and_others_move() -> None:
    module = copy.deepcopy(DENSE)
    module.conv2.weight.data[:, ::2] = 0
    module.head.weight.data[:, ::2] = 0
    done = applied("qat", Work(module, ("conv2.weight", "bn1.weight")))
    assert done.module.conv2.weight[:, ::2].eq(0).all()
    assert done.module.conv2.weight[:, 1::2].ne(0).all()
    assert done.module.head.weight[:, ::2].ne(0).any()
    assert done.sparse == ("conv2.weight",)


class Counting(Silent):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def advance(self, done: int, total: int) -> None:
        self.steps.append((done, total))


def test_progress_is_told_and_others_get_their_turn() -> None:
    listener, breaths = Counting(), []
    context = replace(CONTEXT, listener=listener, breathe=lambda: breaths.append(1))
    applied("qat", Work(DENSE), context)
    assert listener.steps == [(i, 10) for i in range(1, 11)]
    assert len(breaths) >= 10


def test_the_file_of_a_trained_network_bears_integers_that_ruin_the_other() -> None:
    """Where one weight per channel is very large, all others are rounded to a few steps."""
    module = copy.deepcopy(DENSE)
    with torch.no_grad():
        module.bn1.weight[0] = module.bn1.bias[0] = 0  # nobody reads what they multiply
        module.conv2.weight[:, 0] = 127 * 5 * module.conv2.weight[:, 1:].std()
    split = TASK.data.test

    def accuracy(network: nn.Module) -> float:
        data = onnx_bytes(network, split.inputs)
        samples = TASK.data.train.inputs.numpy()
        file = converted(data, Precision("int8"), samples, "input", True)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"input": split.inputs.numpy()})
        return float((logits.argmax(1) == split.targets_of().numpy()).mean())

    assert accuracy(module) < 0.5
    assert accuracy(applied("qat:epochs=2,lr=0.05", Work(module)).module) > 0.6


class Recording(nn.Module):
    """A teacher that counts the samples it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = DENSE, 0

    def forward(self, x: torch.Tensor) -> Any:
        self.seen += len(x)
        return self.inner(x)


def test_the_teacher_is_asked_once_where_all_views_are_one() -> None:
    teacher = Recording().eval()
    context, step = replace(CONTEXT, teacher=teacher), parse_step("qat:epochs=3")
    decision = step.decide(Work(DENSE), context)
    teacher.seen = 0
    step.apply(Work(DENSE), decision, context)
    assert teacher.seen == len(TASK.data.train)


class Killed(Exception):
    pass


class Killing(Silent):
    """Ends a step in its third epoch."""

    def advance(self, done: int, total: int) -> None:
        if done == 25:
            raise Killed


def test_a_killed_step_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    module = copy.deepcopy(DENSE)
    module.conv2.weight.data[:, ::2] = 0
    work = Work(module, ("conv2.weight",))
    train = replace(TASK.data.train, augmentation=Augmentation(shift=True))
    task = replace(TASK, data=replace(TASK.data, train=train), reduction=Reduction(0.9, "random"))
    context = replace(CONTEXT, task=task)
    whole = applied("qat:epochs=3", work, context)
    listener = Counting()
    kept = replace(context, folder=tmp_path)
    with pytest.raises(Killed):
        applied("qat:epochs=3", work, replace(kept, listener=Killing()))
    rest = applied("qat:epochs=3", work, replace(kept, listener=listener))
    assert listener.steps[0] == (19, 27)
    assert same(rest.module, whole.module)
    assert rest.module.conv2.weight[:, ::2].eq(0).all()


class Column(nn.Module):
    """A teacher whose outputs would be broadcast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return DENSE(x)[:, :1]


def test_a_teacher_of_other_outputs_is_refused_where_it_is_imitated() -> None:
    context = replace(CONTEXT, teacher=Column().eval())
    with pytest.raises(ConfigError, match=r"Step 'qat': .*\[N, 1\]. Received: \[N, 3\]"):
        STEP.decide(Work(DENSE), context)
    parse_step("qat:weight=0").decide(Work(DENSE), context)


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="Leave the step out"):
        STEP.decide(Work(nn.Sequential(nn.Flatten(), nn.ReLU())), CONTEXT)


def test_a_network_that_does_not_run_is_a_task_error() -> None:
    with pytest.raises(TaskError, match="can't be run"):
        STEP.decide(Work(nn.Linear(3, 2)), CONTEXT)


@pytest.mark.parametrize(
    "decision", [{"folded": [["conv1", "gone"]]}, {"folded": [["bn1", "conv1"]]}]
)
def test_a_decision_of_another_network_is_refused(decision: Any) -> None:
    with pytest.raises(ConfigError, match="in this network"):
        STEP.rebuild(Work(DENSE), decision, CONTEXT)


@pytest.mark.parametrize(
    ("text", "message"),
    [("qat:epochs=0", "from 1"), ("qat:lr=0", "above 0"), ("qat:weight=2", "from 0 to 1")],
)
def test_options_that_do_not_fit_are_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_step(text)

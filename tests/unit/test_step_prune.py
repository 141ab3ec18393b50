from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import nn

from harness.compression.pruning.allocation import FLOOR, adaptive, allowed_widths, ranked_ladder
from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.goals import cost_of, reach
from harness.compression.pruning.importance import CRITERIA, channel_scores
from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Decision, Silent, Work
from harness.compression.steps.prune import Prune
from harness.data.split import Data, Split
from harness.errors import ConfigError
from harness.export import count_macs
from harness.models.network import Network
from harness.tasks.base import Task
from harness.tasks.objective import make_objective
from support.networks import Recurrent, network
from support.tiny import RECIPE, tiny


@dataclass
class Heard(Silent):
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)


def context(task: Task | None = None, **changes: Any) -> Context:
    task = task or tiny()
    return Context(task, task.model().eval(), **changes)


def context_of(model: nn.Module, example: torch.Tensor, **changes: Any) -> Context:
    """Return the context of any network that tells classes apart, on random samples."""
    with torch.inference_mode():
        classes = model(example).shape[1]
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(24, *example.shape[1:], generator=rng)
    split = Split(inputs, torch.arange(24) % classes)
    data = Data("random", split, split, split, "classification", classes, "0" * 64)
    task = Task("any", Network(model, "any"), data, make_objective(data), RECIPE)
    return context(task, **changes)


def pruned(step: Prune, given: Context, module: nn.Module | None = None) -> tuple[Work, Decision]:
    work = Work(given.teacher if module is None else module)
    decision = step.decide(work, given)
    return step.apply(work, decision, given), decision


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("goal", ["params", "macs"])
def test_a_goal_is_met_and_narrowly(scope: str, goal: str) -> None:
    given = context()
    smaller, decision = pruned(Prune(scope=scope, **{goal: 0.6}), given)

    def kept(module: nn.Module) -> float:
        cost = params if goal == "params" else lambda one: count_macs(one, given.example)
        return cost(module) / cost(given.teacher)

    assert 0.55 < kept(smaller.module) <= 0.6
    assert decision["dense_widths"] == {"conv1": 32, "conv2": 48}
    assert pruning_graph(smaller.module, given.example).dense_widths() == decision["widths"]
    for name, gone in decision["removed_channels"].items():
        assert len(gone) == decision["dense_widths"][name] - decision["widths"][name]


def test_a_ratio_is_removed_of_every_group_or_of_all() -> None:
    assert pruned(Prune(scope="uniform", ratio=0.25), context())[1]["widths"] == {
        "conv1": 24, "conv2": 36,
    }  # fmt: skip
    widths = pruned(Prune(ratio=0.25), context())[1]["widths"]
    assert sum(widths.values()) == 60
    widths = pruned(Prune(ratio=0.25, exclude=("conv1",)), context())[1]["widths"]
    assert widths == {"conv1": 32, "conv2": 36}


@pytest.mark.parametrize("text", ["conv1=8+conv2=50%", {"conv1": 8, "conv2": 0.5}])
def test_layers_have_the_widths_given(text: Any) -> None:
    widths = pruned(Prune(scope="layers", layers=text), context())[1]["widths"]
    assert widths == {"conv1": 8, "conv2": 24}


def test_options_are_read_from_text() -> None:
    step = parse_step("prune:scope=layers,layers=conv1=8+conv2=50%,granule=4,criterion=fpgm")
    assert step == Prune("fpgm", "layers", layers=(("conv1", 8), ("conv2", 0.5)), granule=4)
    step = parse_step("prune:params=70%,exclude=conv1+conv2,floor=20%")
    assert step == Prune(params=0.7, exclude=("conv1", "conv2"), floor=0.2)


@pytest.mark.parametrize(
    "step",
    [
        Prune(scope="layers", layers="a=8+b=50%"),
        Prune(macs=0.5, exclude="a+b"),
        Prune(scope="uniform", ratio=0.1),
    ],
)
def test_options_survive_json(step: Prune) -> None:
    assert Prune(**json.loads(json.dumps(step.options()))) == step


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"exactly one of params, macs, ratio.*Received: none"),
        ({"params": 0.5, "macs": 0.5}, "exactly one.*Received: params, macs"),
        ({"params": 0.5, "layers": "a=1"}, "layers go with scope=layers.*params, layers"),
        ({"scope": "layers"}, "needs layers.*Received: no layers"),
        ({"scope": "layers", "layers": "a=1", "params": 0.5}, "no goal.*Received: params"),
        ({"scope": "layers", "layers": "a=1", "exclude": "b"}, "no goal.*Received: exclude"),
        ({"scope": "uniform", "params": 0.5, "floor": 0.2}, "floor with scope=global alone"),
        ({"params": 1}, "params must be a share above 0 % and below 100 %"),
        ({"params": 0.5, "criterion": "l3"}, "criterion must be one of l2, l1"),
        ({"params": 0.5, "granule": 0}, "granule must be a whole number from 1"),
        ({"scope": "layers", "layers": "a"}, "layers must be names, each once, with"),
        ({"scope": "layers", "layers": "a=0"}, "layers must be names"),
        ({"scope": "layers", "layers": "a=1+a=2"}, "layers must be names"),
        ({"scope": "layers", "layers": "=1"}, "layers must be names"),
        ({"scope": "layers", "layers": {"a": True}}, "layers must be names"),
        ({"scope": "layers", "layers": 7}, "layers must be names"),
        ({"scope": "layers", "layers": []}, "layers must be names"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Prune(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"params": 0.001}, "can't reach the goal: .*parameters, the smallest network.* keeps \\d"),
        ({"macs": 0.05, "exclude": "conv2"}, "multiply-accumulates, the smallest .*exclude fewer"),
        ({"params": 0.5, "exclude": "conv3"}, "no prunable group 'conv3'.*Did you mean 'conv"),
        ({"scope": "layers", "layers": "head=2"}, "no prunable group 'head'"),
        ({"scope": "layers", "layers": "conv1=33"}, "'conv1' must keep 1 to 32.*33"),
    ],
)
def test_what_the_network_does_not_allow_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Prune(**options).decide(Work(tiny().model()), context())


def test_no_group_of_global_pruning_falls_below_the_floor() -> None:
    given = context()
    with torch.no_grad():  # as good as nothing to keep in it, going by l2 alone
        given.teacher.conv2.weight[:44] *= 1e-3
        given.teacher.bn2.weight[:44] *= 1e-3
        given.teacher.head.weight[:, :44] *= 1e-3
    assert pruned(Prune(params=0.13), given)[1]["widths"]["conv2"] == 5
    assert pruned(Prune(params=0.15, floor=0.25), given)[1]["widths"]["conv2"] == 12


def test_widths_are_whole_granules() -> None:
    widths = pruned(Prune(params=0.5, granule=16), context())[1]["widths"]
    assert set(widths.values()) <= {16, 32, 48}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_chooses_the_same_channels_every_time(criterion: str) -> None:
    step = Prune(criterion, "uniform", ratio=0.5)
    first, again = (
        step.decide(Work(given.teacher), given)["removed_channels"]
        for given in (context(), context())
    )
    assert first == again
    # All scales of an untrained network are 1.
    assert (first["conv1"] == list(range(16))) is (criterion == "bn_scale")


def test_chance_goes_by_the_contexts_seed() -> None:
    step = Prune("random", "uniform", ratio=0.5)
    first, other = (step.decide(Work(tiny().model()), context(seed=seed)) for seed in (0, 1))
    assert first["removed_channels"] != other["removed_channels"]


@pytest.mark.parametrize("criterion", ["taylor", "activation", "l2"])
def test_the_network_given_stays_as_it_is(criterion: str) -> None:
    given = context()
    module = given.teacher.requires_grad_(False)
    module.head.weight.requires_grad_(True).grad = torch.ones_like(module.head.weight)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    smaller, _ = pruned(Prune(criterion, params=0.5), given)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(module.head.weight.grad, torch.ones_like(module.head.weight))
    assert not module.conv1.weight.requires_grad
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())
    assert not smaller.module.training
    with torch.no_grad():
        for parameter in smaller.module.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_decision_read_from_json_rebuilds_the_structure_with_any_values() -> None:
    given, step = context(), Prune(params=0.4)
    smaller, decision = pruned(step, given)
    other = tiny().model().eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    again = step.rebuild(Work(other), json.loads(json.dumps(decision)), given).module
    again.load_state_dict(smaller.module.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(given.example), smaller.module(given.example))


def test_a_second_pruning_starts_from_the_first() -> None:
    given = context()
    first, _ = pruned(Prune(params=0.5), given)
    second, decision = pruned(Prune(params=0.5), given, first.module)
    assert decision["dense_widths"] == pruning_graph(first.module, given.example).dense_widths()
    assert params(second.module) <= params(first.module) / 2


def test_zeros_stay_zeros_and_what_is_known_of_the_network_is_kept() -> None:
    given = context()
    mask = torch.rand(given.teacher.conv2.weight.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given.teacher.conv2.weight.mul_(mask > 0.5)
    work = Work(given.teacher, sparse=("conv2.weight",))
    step = Prune(params=0.5)
    decision = step.decide(work, given)
    smaller = step.apply(work, decision, given)
    assert (smaller.sparse, smaller.precision) == (work.sparse, work.precision)
    kept = {
        name: [i for i in range(width) if i not in decision["removed_channels"].get(name, ())]
        for name, width in decision["dense_widths"].items()
    }
    expected = given.teacher.conv2.weight[kept["conv2"]][:, kept["conv1"]]
    assert torch.equal(smaller.module.conv2.weight, expected)


def test_what_stays_whole_and_what_a_criterion_says_nothing_of_is_told() -> None:
    heard = Heard()
    given = context_of(*network("gru"), listener=heard)
    _, decision = pruned(Prune("fpgm", scope="uniform", ratio=0.5), given)
    assert decision["widths"] == {"hidden": 10}
    assert heard.notes == ["left whole: lift, rnn: rnn is a recurrent layer"]
    heard.notes.clear()
    model, example = network("residual")
    model.body[2][1] = nn.Identity()
    pruned(Prune("bn_scale", params=0.8), context_of(model, example, listener=heard))
    (note,) = heard.notes
    assert note.startswith("the criterion bn_scale says nothing of body.2.0:")


def test_a_step_that_removes_nothing_says_so() -> None:
    heard = Heard()
    smaller, decision = pruned(Prune(scope="uniform", ratio=0.001), context(listener=heard))
    assert decision["removed_channels"] == {}
    assert "nothing is pruned" in heard.notes[0]
    assert params(smaller.module) == params(tiny().model())


def test_a_criterion_that_says_nothing_of_any_group_is_refused() -> None:
    given = context_of(*network("gru"))
    with pytest.raises(ConfigError, match="'bn_scale', which says nothing of any.*l2, l1, taylor"):
        Prune("bn_scale", params=0.8).decide(Work(given.teacher), given)


def test_a_channel_shuffle_ties_channels_in_pairs() -> None:
    given = context_of(*network("shuffled"))
    smaller, decision = pruned(Prune(params=0.6), given)
    assert decision["dense_widths"]["body.0.0"] == 8  # pairs of its 16 channels
    assert smaller.module.body[0][0].out_channels == 2 * decision["widths"]["body.0.0"]
    assert params(smaller.module) <= 0.6 * params(given.teacher)


class Only(nn.Module):
    """A recurrent network with nothing beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = Recurrent()
        self.whole.hidden, self.whole.head = nn.Identity(), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.whole(x)


class Tied(nn.Module):
    """A shuffle written with sizes that fit this width alone."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x).view(len(x), 2, 4, 8, 8).transpose(1, 2).reshape(len(x), 8, 8, 8)
        return self.two(y).mean((2, 3))


@pytest.mark.parametrize(
    ("model", "shape", "reason"),
    [
        (Only(), (1, 4, 16), "whole.lift: whole.rnn is a recurrent layer"),
        (Tied(), (1, 3, 8, 8), "one: without some of them the network doesn't run"),
        (nn.Sequential(nn.Linear(4, 3)), (1, 4), "belong to its outputs"),
    ],
)
def test_a_network_with_nothing_to_prune_is_refused_with_the_reasons(
    model: nn.Module, shape: tuple[int, ...], reason: str
) -> None:
    given = context_of(model.eval(), torch.zeros(shape))
    with pytest.raises(ConfigError, match=f"channels that can go.*{reason}.*Leave the step out"):
        Prune(params=0.5).decide(Work(given.teacher), given)


def test_a_network_that_takes_one_sample_alone_is_refused_by_gradients() -> None:
    given = context()
    model = nn.Sequential(
        nn.Flatten(0), nn.Unflatten(0, (1, 64)), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3)
    ).eval()
    with pytest.raises(ConfigError, match="'taylor' runs the network.*such as l2"):
        Prune("taylor", params=0.5).decide(Work(model), given)
    assert pruned(Prune(params=0.5), given, model)[1]["widths"]["2"] < 6


def test_cores_are_held_and_timings_get_their_turn() -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def shared() -> Iterator[None]:
        events.append("held")
        yield
        events.append("given back")

    given = replace(context(), shared=shared, breathe=lambda: events.append("breath"))
    pruned(Prune("taylor", params=0.5), given)
    assert events == ["held", *["breath"] * 3, "given back", "held", "given back"]


@pytest.mark.parametrize("goal", ["params", "macs"])
def test_one_ranking_is_layer_adaptive_where_parameters_are_the_goal(goal: str) -> None:
    given = context()
    graph = pruning_graph(given.teacher, given.example)
    loss = given.task.objective.loss
    scores = channel_scores(given.teacher, graph, [], loss, "l2")
    ranked = adaptive(scores) if goal == "params" else scores
    ladder = ranked_ladder(allowed_widths(graph, 1, (), FLOOR), ranked)
    expected = reach(ladder, goal, 0.5, cost_of(goal, given.teacher, graph, ()), "")
    assert pruned(Prune(**{goal: 0.5}), given)[1]["widths"] == expected


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_a_ratio_that_steps_of_channels_do_not_meet_is_told(scope: str) -> None:
    heard = Heard()
    pruned(Prune(scope=scope, ratio=0.55, granule=16), context(listener=heard))
    (note,) = heard.notes
    assert note.startswith("asked to remove 55.0 % of the channels, 60.0 % go")
    heard.notes.clear()
    pruned(Prune(scope=scope, ratio=0.25), context(listener=heard))
    assert heard.notes == []


def test_a_pattern_that_pruning_breaks_is_told() -> None:
    heard = Heard()
    given = context(listener=heard)
    sparse = parse_step("sparsify:pattern=2:4,exclude=conv1+head")
    work = Work(given.teacher)
    work = sparse.apply(work, sparse.decide(work, given), given)
    heard.notes.clear()
    step = Prune(params=0.6)
    smaller = step.apply(work, step.decide(work, given), given)
    (note,) = heard.notes
    assert "a pattern N:M may not hold any more" in note
    rows = smaller.module.conv2.weight.movedim(1, -1)
    blocks = rows[..., : rows.shape[-1] // 4 * 4].unflatten(-1, (-1, 4))
    assert (blocks != 0).sum(-1).max() > 2


def test_shares_of_layers_that_steps_of_channels_do_not_meet_are_told() -> None:
    heard = Heard()
    step = Prune(scope="layers", layers="conv1=40%+conv2=50%", granule=8)
    pruned(step, context(listener=heard))
    assert heard.notes == [
        "conv1 keeps 16 of 32 channels, not 40.0 %: groups keep whole steps of their channels"
    ]

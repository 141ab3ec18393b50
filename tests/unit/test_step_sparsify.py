"""The step that sets single weights to zero."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import last_channels, prune
from harness.compression.sparsity.eligible import eligible
from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Decision, Silent, Work
from harness.compression.steps.sparsify import Sparsify
from harness.data.split import Split
from harness.errors import ConfigError, TaskError
from support.networks import NETWORKS, network
from support.tiny import TinyNet, tiny

LAYERS = ["conv1", "conv2", "head"]


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def context(**changes: Any) -> Context:
    task = tiny()
    return replace(Context(task, task.model()), **changes)


def dense() -> Work:
    return Work(tiny().model())


def done(step: Sparsify, work: Work, given: Context | None = None) -> tuple[Work, Decision]:
    given = given or context()
    decision = json.loads(json.dumps(step.decide(work, given)))
    return step.apply(work, decision, given), decision


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [weight.values.detach() for weight in eligible(module).weights]


def zeros(module: nn.Module) -> int:
    return sum(int((values == 0).sum()) for values in weights(module))


def total(module: nn.Module) -> int:
    return sum(values.numel() for values in weights(module))


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(a, b) for a, b in zip(*map(dict.values, states), strict=True))


# Options


def test_it_is_made_from_text() -> None:
    assert parse_step("sparsify:zeros=50%,criterion=taylor,scope=layer,exclude=conv1+head") == (
        Sparsify(0.5, criterion="taylor", scope="layer", exclude=("conv1", "head"))
    )
    assert parse_step("sparsify:pattern=02:4") == Sparsify(pattern="2:4")


@pytest.mark.parametrize("step", [Sparsify(zeros=0.5), Sparsify(pattern="2:4", exclude=("a",))])
def test_it_is_made_again_from_its_options(step: Sparsify) -> None:
    assert Sparsify(**json.loads(json.dumps(step.options()))) == step


def test_it_needs_either_a_share_or_a_pattern() -> None:
    with pytest.raises(ConfigError, match="either zeros or pattern. Received: neither"):
        parse_step("sparsify")
    with pytest.raises(ConfigError, match="either zeros or pattern. Received: both"):
        parse_step("sparsify:zeros=50%,pattern=2:4")


def test_a_pattern_takes_no_scope() -> None:
    assert parse_step("sparsify:pattern=2:4,scope=global") == Sparsify(pattern="2:4")
    with pytest.raises(ConfigError, match="Received: pattern 2:4 with scope 'layer'"):
        parse_step("sparsify:pattern=2:4,scope=layer")


@pytest.mark.parametrize("bad", ["4:2", "2", "x:y", "0:4"])
def test_what_is_no_pattern_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=f"pattern must be N:M, .* Received: '{bad}'"):
        parse_step(f"sparsify:pattern={bad}")


# What comes out


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "random"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_asked_is_zero_and_the_rest_is_as_it_was(criterion: str, scope: str) -> None:
    work = dense()
    found, decision = done(Sparsify(0.7, criterion=criterion, scope=scope), work)
    of = total(work.module)
    assert decision == {
        "layers": LAYERS,
        "left": {},
        "zeros": zeros(found.module),
        "of": of,
        "parameters": sum(parameter.numel() for parameter in work.module.parameters()),
    }
    if scope == "global":
        assert decision["zeros"] == round(0.7 * of)
    for before, after in zip(weights(work.module), weights(found.module), strict=True):
        assert torch.equal(after, torch.where(after == 0, 0.0, before))
        if scope == "layer":
            assert int((after == 0).sum()) == round(0.7 * before.numel())
    others = dict(found.module.named_parameters())
    for name, values in work.module.named_parameters():
        assert name in found.sparse or torch.equal(values, others[name])


def test_the_weights_of_the_names_in_sparse_hold_the_zeros() -> None:
    work = Work(tiny().model(), ("head.weight", "elsewhere"))
    found, _ = done(Sparsify(0.5, exclude=("conv1",)), work)
    assert found.sparse == ("head.weight", "elsewhere", "conv2.weight")
    assert found.module.get_parameter("conv1.weight").count_nonzero() == 32 * 9
    assert found.precision == work.precision


@pytest.mark.parametrize("step", [Sparsify(0.5, criterion="taylor"), Sparsify(pattern="2:4")])
def test_the_network_given_is_left_as_it_was(step: Sparsify) -> None:
    work = dense()
    work.module.requires_grad_(False)
    before = copy.deepcopy(work.module)
    state = torch.get_rng_state()
    found, _ = done(step, work)
    assert same(work.module, before)
    assert all(p.grad is None and not p.requires_grad for p in found.module.parameters())
    assert all(p.grad is None and not p.requires_grad for p in work.module.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not found.module.training
    assert all(p.dtype == torch.float32 for p in found.module.parameters())


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "random"])
def test_it_repeats_itself(criterion: str) -> None:
    step = Sparsify(0.5, criterion=criterion)
    assert same(done(step, dense())[0].module, done(step, dense())[0].module)


def test_chance_hangs_on_the_seed() -> None:
    step = Sparsify(0.5, criterion="random")
    one, other = (done(step, dense(), context(seed=seed))[0].module for seed in (0, 1))
    assert not same(one, other)


def test_magnitude_keeps_the_largest_weights() -> None:
    work = dense()
    found, _ = done(Sparsify(0.5), work)
    kept = torch.cat([values.flatten() for values in weights(found.module)])
    before = torch.cat([values.flatten() for values in weights(work.module)])
    assert kept[kept != 0].abs().min() >= before[kept == 0].abs().max()


def test_taylor_keeps_what_the_loss_depends_on() -> None:
    work = dense()
    with torch.no_grad():  # large, but nothing depends on them: their channel counts nothing
        work.module.get_parameter("conv1.weight")[5] = 10.0
        work.module.get_parameter("conv2.weight")[:, 5] = 0.0
    small, _ = done(Sparsify(0.2, criterion="taylor"), work)
    assert not small.module.get_parameter("conv1.weight")[5].any()
    large, _ = done(Sparsify(0.2), work)
    assert large.module.get_parameter("conv1.weight")[5].all()


def test_taylor_is_the_mean_over_batches_of_weight_times_gradient() -> None:
    work, given = dense(), context()
    model, split = copy.deepcopy(work.module), given.task.data.train
    # All 320 samples are seen, in batches of 128 in a random order: the last one is of 64.
    order = torch.randperm(320, generator=torch.Generator().manual_seed(0))
    own = [model.get_parameter(f"{name}.weight") for name in LAYERS]
    score = torch.zeros(total(model))
    for rows in order.split(128):
        loss = given.task.objective.loss(model(split.batch(rows)), split.targets_of(rows))
        parts = zip(own, torch.autograd.grad(loss, own), strict=True)
        score += torch.cat([(w * g).detach().abs().flatten() for w, g in parts])
    found, _ = done(Sparsify(0.5, criterion="taylor"), work)
    kept = torch.cat([values.flatten() for values in weights(found.module)]) != 0
    assert score[kept].min() >= score[~kept].max() * (1 - 1e-5)


def test_a_pattern_leaves_two_of_four_inputs() -> None:
    found, decision = done(Sparsify(pattern="2:4"), dense())
    assert decision["layers"] == ["conv2", "head"]
    assert decision["left"] == {"conv1": "it has one input channel per group"}
    assert decision["zeros"] * 2 == decision["of"]
    assert found.sparse == ("conv2.weight", "head.weight")
    conv = found.module.get_parameter("conv2.weight")
    assert (conv.unflatten(1, (-1, 4)).count_nonzero(2) == 2).all()
    head = found.module.get_parameter("head.weight")
    assert (head.unflatten(1, (-1, 4)).count_nonzero(2) == 2).all()
    assert found.module.get_parameter("conv1.weight").all()


def test_a_pattern_goes_by_any_criterion() -> None:
    texts = (f"sparsify:pattern=1:4,criterion={name}" for name in ("magnitude", "taylor", "random"))
    found = [done(step, dense())[0].module for step in map(parse_step, texts)]  # type: ignore[arg-type]
    assert len({tuple(weights(m)[2].flatten().tolist()) for m in found}) == 3
    assert {zeros(module) for module in found} == {(48 * 32 * 9 + 3 * 48) * 3 // 4}


# Networks that are sparse, pruned or odd


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "random"])
@pytest.mark.parametrize("asked", [{"zeros": 0.8}, {"pattern": "1:4"}])
def test_weights_that_are_zero_already_count(criterion: str, asked: dict[str, Any]) -> None:
    work, _ = done(Sparsify(0.5, criterion="random"), dense())
    found, decision = done(Sparsify(**asked, criterion=criterion), work)
    own = dict(found.module.named_parameters())
    of_layers = [own[f"{name}.weight"] for name in decision["layers"]]
    assert decision["zeros"] == sum(int((values == 0).sum()) for values in of_layers)
    if "zeros" in asked:
        assert decision["zeros"] == round(0.8 * decision["of"])
    assert all(
        (after[before == 0] == 0).all()
        for before, after in zip(weights(work.module), weights(found.module), strict=True)
    )


def test_a_network_with_more_zeros_than_asked_keeps_them() -> None:
    work, before = done(Sparsify(0.8), dense())
    found, decision = done(Sparsify(0.5), work)
    assert decision["zeros"] == before["zeros"]
    assert same(found.module, work.module)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_many_kinds_run_with_the_zeros_that_were_told(name: str) -> None:
    model, example = network(name)
    found, decision = done(Sparsify(0.5), Work(model))
    assert decision["zeros"] == zeros(found.module) == round(0.5 * total(model))
    with torch.no_grad():
        found.module(example)
    for step in (Sparsify(pattern="1:2"), Sparsify(0.9, scope="layer")):
        found, decision = done(step, Work(model))
        own = dict(found.module.named_parameters())
        assert decision["zeros"] == sum(int((own[n] == 0).sum()) for n in found.sparse)


def test_a_pruned_network_becomes_sparse_and_a_sparse_one_can_be_pruned() -> None:
    given = context()
    graph = pruning_graph(dense().module, given.example)
    history = last_channels(graph, {"conv1": 12, "conv2": 22})
    smaller = prune(dense().module, graph, given.example, history)
    _, decision = done(Sparsify(pattern="2:4"), Work(smaller))
    assert decision["layers"] == ["conv2"]
    assert "22 input channels" in decision["left"]["head"]
    sparse, _ = done(Sparsify(0.5), dense())
    smaller = prune(sparse.module, graph, given.example, history)
    assert zeros(smaller) > 0.3 * total(smaller)


def test_a_tied_weight_is_counted_and_masked_once_and_stays_tied() -> None:
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(3)))
    model[3].weight = model[1].weight
    found, decision = done(Sparsify(0.5, scope="layer"), Work(model.eval()))
    assert decision["layers"] == ["1", "2"]
    assert (decision["zeros"], decision["of"]) == (64 * 64, 2 * 64 * 64)
    assert found.sparse == ("1.weight", "2.weight")
    assert found.module[3].weight is found.module[1].weight  # type: ignore[index]
    assert found.module[1].weight is not model[1].weight  # type: ignore[index]


def test_a_parametrized_layer_stays_dense_and_is_told() -> None:
    model = tiny().model()
    parametrizations.weight_norm(model.head)
    heard = Heard()
    found, decision = done(Sparsify(0.5, criterion="taylor"), Work(model), context(listener=heard))
    assert decision["layers"] == ["conv1", "conv2"]
    assert same(found.module.head, model.head)
    assert any(note.startswith("'head' stays dense: its weight") for note in heard.notes)


def test_what_became_of_the_network_is_told() -> None:
    heard = Heard()
    _, decision = done(Sparsify(0.5), dense(), context(listener=heard))
    of, parameters = decision["of"], decision["parameters"]
    assert heard.notes == [
        f"{of // 2:,} of {of:,} weights of convolution and linear layers are zero (50.0 %), "
        f"that is {50 * of / parameters:.1f} % of all parameters"
    ]


def test_a_layer_without_a_weight_is_told() -> None:
    work, heard = dense(), Heard()
    with torch.no_grad():
        work.module.get_parameter("head.weight").mul_(1e-6)
    done(Sparsify(0.5), work, context(listener=heard))
    assert heard.notes[1:] == ["'head' has no weight left: its output is constant"]


# Rebuilding


@pytest.mark.parametrize("step", [Sparsify(0.5, exclude=("head",)), Sparsify(pattern="2:4")])
def test_a_rebuilt_network_takes_the_weights(step: Sparsify) -> None:
    found, decision = done(step, dense())
    again = step.rebuild(Work(TinyNet().eval()), decision, context())
    assert again.sparse == found.sparse
    again.module.load_state_dict(found.module.state_dict())
    assert same(again.module, found.module)
    assert not again.module.training


def test_rebuilding_leaves_the_network_as_it_was() -> None:
    work, step = dense(), Sparsify(0.5)
    again = step.rebuild(work, step.decide(work, context()), context())
    assert again.module is not work.module
    assert zeros(work.module) == 0


# What goes wrong


def test_options_that_do_not_fit_the_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="Received: 'conv3'. Did you mean 'conv"):
        Sparsify(0.5, exclude=("conv3",)).decide(dense(), context())
    with pytest.raises(ConfigError, match="are no multiple of 7"):
        Sparsify(pattern="2:7").decide(dense(), context())


class Fails(TinyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyError("no")


class Detached(TinyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).detach()


class Infinite(TinyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * float("inf")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Fails, "gradients can't be computed: KeyError: 'no'"),
        (Detached, "gradients can't be computed: RuntimeError"),
        (Infinite, "Expected finite gradients"),
    ],
)
def test_a_network_without_gradients_is_told_for_taylor_alone(
    kind: type[nn.Module], message: str
) -> None:
    work = Work(kind().eval())
    with pytest.raises(TaskError, match=message):
        done(Sparsify(0.5, criterion="taylor"), work)
    done(Sparsify(0.5), work)


def test_an_error_of_ours_passes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ConfigError("the file is gone")

    monkeypatch.setattr(Split, "batch", refuse)
    given = context()
    with pytest.raises(ConfigError, match="^the file is gone$"):
        Sparsify(0.5, criterion="taylor").apply(
            dense(), {"left": {}, "zeros": 1, "of": 2, "parameters": 3}, given
        )


def test_a_weight_that_nothing_uses_counts_for_nothing() -> None:
    model = tiny().model()
    model.spare = nn.Linear(16, 16)
    found, _ = done(Sparsify(0.1, criterion="taylor"), Work(model))
    assert not found.module.get_parameter("spare.weight").any()


def test_gradients_are_found_where_the_caller_wants_none() -> None:
    step = Sparsify(0.5, criterion="taylor")
    with torch.no_grad():
        found, _ = done(step, dense())
    assert same(found.module, done(step, dense())[0].module)


def test_gradients_give_way_to_a_timing() -> None:
    held: list[str] = []

    @contextmanager
    def shared() -> Iterator[None]:
        held.append("in")
        yield
        held.append("out")

    given = context(shared=shared, breathe=lambda: held.append("breathe"))
    done(Sparsify(0.5, criterion="taylor"), dense(), given)
    assert held == ["in", "breathe", "breathe", "breathe", "out"]


class Noisy(TinyNet):
    """Draws numbers in evaluation mode, and remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return super().forward(x * torch.rand(x.shape))


def test_a_network_that_draws_numbers_and_remembers_is_scored_the_same_again() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        work = Work(Noisy().eval())
    step, state = Sparsify(0.5, criterion="taylor"), torch.get_rng_state()
    one = done(step, work)[0]
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        other = done(step, work)[0]
        assert torch.initial_seed() == 2
    assert same(one.module, other.module)
    assert one.module.get_buffer("seen") == 0


def test_taylor_sees_samples_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    batch = Split.batch

    def noted(split: Split, rows: torch.Tensor, *args: Any) -> torch.Tensor:
        seen.append(rows)
        return batch(split, rows, *args)

    given, step = context(seed=7), Sparsify(0.5, criterion="taylor")
    decision = step.decide(dense(), given)
    monkeypatch.setattr(Split, "batch", noted)
    step.apply(dense(), decision, given)
    expected = torch.randperm(320, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.cat(seen), expected)

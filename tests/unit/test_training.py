from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.data.augment import Augmentation
from harness.data.split import Scale, Split
from harness.errors import ConfigError, TaskError
from harness.manner import PLAIN, set_memory_format
from harness.tasks.objective import make_objective
from harness.tasks.recipe import Recipe
from harness.training import (
    SoftTargets,
    fit,
    predict,
    predict_tensors,
    student_loss,
)
from support.tiny import RECIPE, TinyNet, tiny, tiny_data
from support.values import Regressor, TwoHeads, regression_data, seeded, two_output_data

TASK, DATA = tiny(), tiny_data()
OBJECTIVE = TASK.objective
RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
LABELS = np.array([0, 2, 1, 1])
ADAMW = Recipe(4, 4, 16, 0.01, 0.01, 0.01, "adamw")


def log_softmax(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def cross_entropy() -> float:
    return float(-log_softmax(STUDENT)[np.arange(4), LABELS].mean())


def divergence(t: float) -> float:
    teacher, student = log_softmax(TEACHER / t), log_softmax(STUDENT / t)
    return float((np.exp(teacher) * (teacher - student)).sum(1).mean())


def always(*outputs: torch.Tensor) -> Any:
    """Return a teacher of the same outputs on every view."""
    return lambda view: outputs


def loss(weight: float | None, t: float = 4.0) -> float:
    teacher = torch.from_numpy(TEACHER)
    soft = None if weight is None else SoftTargets(always(teacher), t, weight)
    labels = torch.from_numpy(LABELS)
    return float(student_loss(OBJECTIVE, torch.from_numpy(STUDENT), labels, soft, teacher))


def small(n: int = 96) -> Split:
    return DATA.train.take(torch.arange(n))


def trained(
    seed: int, soft: SoftTargets | None = None, recipe: Recipe = RECIPE
) -> dict[str, torch.Tensor]:
    made = fit(
        TASK.model(), small(), OBJECTIVE, recipe, epochs=2, lr=0.1, seed=seed, soft=soft
    )  # fmt: skip
    return made.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_at_weight_zero_only_the_targets_count() -> None:
    assert loss(0.0) == pytest.approx(cross_entropy())
    assert loss(None) == pytest.approx(cross_entropy())


@pytest.mark.parametrize("t", [1.0, 4.0, 16.0])
def test_at_weight_one_only_the_teacher_counts_times_the_temperature_squared(t: float) -> None:
    assert loss(1.0, t) == pytest.approx(t**2 * divergence(t))


def test_between_the_two_are_mixed_by_weight() -> None:
    expected = 0.3 * cross_entropy() + 0.7 * 16 * divergence(4.0)
    assert loss(0.7) == pytest.approx(expected)


def test_the_teachers_own_outputs_cost_nothing() -> None:
    logits = torch.from_numpy(TEACHER)
    soft = SoftTargets(always(logits), 3.0, 1.0)
    value = student_loss(OBJECTIVE, logits, torch.zeros(4, dtype=torch.int64), soft, logits)
    assert float(value) == pytest.approx(0.0, abs=1e-12)


def test_a_seed_fixes_training_and_another_changes_it() -> None:
    first = trained(1)
    torch.rand(5)
    assert same(trained(1), first)
    assert not same(trained(2), first)


def test_soft_targets_change_training_unless_their_weight_is_zero() -> None:
    logits = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
    labels_only = trained(1)
    assert same(trained(1, SoftTargets(always(logits), 4.0, 0.0)), labels_only)
    assert not same(trained(1, SoftTargets(always(logits), 4.0, 0.5)), labels_only)


def test_training_learns_the_task() -> None:
    made = fit(TASK.model(), DATA.train, OBJECTIVE, RECIPE, epochs=2, lr=0.1, seed=0)
    score = TASK.score(predict(made, DATA.test.chunks()), DATA.test)
    assert score.value > 0.6
    assert not made.training


def test_a_student_learns_from_the_teacher_without_labels() -> None:
    assert isinstance(DATA.train.targets, torch.Tensor)
    teacher = F.one_hot(DATA.train.targets, 3).float() * 8
    wrong = Split(DATA.train.inputs, (DATA.train.targets + 1) % 3)
    made = fit(
        TASK.model(), wrong, OBJECTIVE, RECIPE, epochs=2, lr=0.1, seed=0,
        soft=SoftTargets(always(teacher), 2.0, 1.0),
    )  # fmt: skip
    assert TASK.score(predict(made, DATA.test.chunks()), DATA.test).value > 0.6


def test_a_student_gets_the_rows_that_it_sees() -> None:
    """The teacher's outputs are in the split's order; a subset's in the subset's."""
    assert isinstance(DATA.train.targets, torch.Tensor)
    part = DATA.train.take(torch.arange(319, 0, -2))
    teacher = F.one_hot(part.targets_of(), 3).float() * 8  # type: ignore[arg-type]
    wrong = replace(part, targets=(DATA.train.targets + 1) % 3)
    made = fit(
        TASK.model(), wrong, OBJECTIVE, RECIPE, epochs=4, lr=0.1, seed=0,
        soft=SoftTargets(always(teacher), 2.0, 1.0),
    )  # fmt: skip
    assert TASK.score(predict(made, DATA.test.chunks()), DATA.test).value > 0.5


def steps(n: int, batch: int, epochs: int = 2) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    fit(
        TASK.model(), small(n), OBJECTIVE, replace(RECIPE, batch=batch), epochs=epochs, lr=0.1,
        seed=0, on_batch=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    return told


def test_every_step_is_told() -> None:
    assert steps(96, 40) == [(step, 6) for step in range(1, 7)]


@pytest.mark.parametrize(("n", "batch", "expected"), [(97, 32, 3), (98, 32, 4), (96, 32, 3)])
def test_a_last_sample_alone_joins_the_batch_before(n: int, batch: int, expected: int) -> None:
    assert len(steps(n, batch, epochs=1)) == expected


@pytest.mark.parametrize("count", range(1, 9))
def test_any_number_of_steps_can_be_taken_and_each_teaches(count: int) -> None:
    network = TASK.model()
    before = network.conv1.weight.detach().clone()  # type: ignore[union-attr, operator]
    recipe = replace(RECIPE, batch=8)
    fit(network, small(8 * count), OBJECTIVE, recipe, epochs=1, lr=0.1, seed=0)
    moved = (network.conv1.weight.detach() - before).abs().max()  # type: ignore[union-attr, operator]
    assert float(moved) > 1e-4


class Watched(nn.Module):
    """Remembers what it was fed while training."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        return self.head(x.flatten(1))


def images(n: int = 6) -> Split:
    """Return `n` images `[n, 1, 4, 4]`, each of grey levels of its own."""
    stored = torch.arange(n * 16, dtype=torch.uint8).reshape(n, 1, 4, 4)
    return Split(stored, torch.arange(n) % 3, scale=Scale(factor=1 / 255))


def shown(split: Split, epochs: int = 2) -> list[torch.Tensor]:
    network = Watched()
    fit(network, split, OBJECTIVE, replace(RECIPE, batch=8), epochs=epochs, lr=0.01, seed=3)
    return network.seen


def test_every_sample_is_shown_once_an_epoch_prepared() -> None:
    for batch in shown(images()):
        levels = batch.reshape(6, -1)[:, 0] * 255
        assert sorted(levels.round().int().tolist()) == [0, 16, 32, 48, 64, 80]


def test_epoch_e_shows_view_e_of_the_images() -> None:
    split = replace(images(), augmentation=Augmentation(flip=True, shift=True, seed=5))
    rng = torch.Generator().manual_seed(3)
    views = []
    for epoch, batch in enumerate(shown(split)):
        rows = torch.randperm(6, generator=rng)
        expected = split.batch(rows, epoch)
        assert torch.equal(batch, expected)
        views.append(expected[rows.argsort()])
    plain = split.batch(torch.arange(6))
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[0], plain)


def test_a_student_imitates_the_teacher_on_the_view_that_it_sees() -> None:
    asked: list[int] = []

    def outputs(view: int) -> tuple[torch.Tensor, ...]:
        asked.append(view)
        return (torch.zeros(96, 3),)

    fit(
        TASK.model(), small(), OBJECTIVE, RECIPE, epochs=3, lr=0.01, seed=0,
        soft=SoftTargets(outputs, 2.0, 0.5),
    )  # fmt: skip
    assert asked == [0, 1, 2]


def test_without_weight_the_teacher_is_never_asked() -> None:
    def outputs(view: int) -> tuple[torch.Tensor, ...]:
        raise AssertionError("nobody needs it")

    trained(1, SoftTargets(outputs, 2.0, 0.0))


def test_what_the_user_froze_is_trained_all_the_same() -> None:
    frozen = TASK.model()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    before = {name: p.clone() for name, p in frozen.named_parameters()}
    fit(frozen, small(), OBJECTIVE, RECIPE, epochs=1, lr=0.1, seed=0)
    assert all(not torch.equal(p, before[name]) for name, p in frozen.named_parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_optimizer_is_the_recipes(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    for name in ("SGD", "AdamW"):
        kind = getattr(torch.optim, name)

        def make(*args: Any, kind: Any = kind, **kwargs: Any) -> Any:
            made.append(kind(*args, **kwargs))
            return made[-1]

        monkeypatch.setattr(torch.optim, name, make)
    recipe = replace(RECIPE, optimizer=optimizer, weight_decay=0.125)
    trained(1, recipe=recipe)
    (one,) = made
    assert type(one).__name__.lower() == optimizer
    (group,) = one.param_groups
    assert group["weight_decay"] == 0.125
    assert group["initial_lr"] == 0.1
    if optimizer == "sgd":
        assert (group["nesterov"], group["momentum"] > 0.5) == (True, True)


def test_adamw_and_sgd_train_differently_and_both_learn() -> None:
    by = {}
    for optimizer, lr in (("sgd", 0.1), ("adamw", 0.01)):
        recipe = replace(RECIPE, optimizer=optimizer)
        made = fit(TASK.model(), DATA.train, OBJECTIVE, recipe, epochs=2, lr=lr, seed=0)
        by[optimizer] = TASK.score(predict(made, DATA.test.chunks()), DATA.test).value
        assert by[optimizer] > 0.55, by
    assert not same(trained(1), trained(1, recipe=replace(RECIPE, optimizer="adamw")))


# Other tasks


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_values_of_two_units_are_learned_together(loss: str) -> None:
    data = regression_data(columns=2)
    objective = make_objective(data, loss)
    network = seeded(lambda: Regressor(2))
    fit(network, data.train, objective, ADAMW, epochs=30, lr=0.02, seed=0)
    (found,) = predict(network, data.test.chunks())
    assert objective.score((found,), data.test).value > 0.8
    truth = data.test.targets.numpy()  # type: ignore[union-attr]
    left = ((found - truth) ** 2).mean(0) / truth.var(0)
    assert (left < 0.25).all(), left  # each column, not the larger alone


def both_loss(outputs: Any, targets: Any) -> torch.Tensor:
    (logits, values), (classes, truth) = outputs, targets
    return F.cross_entropy(logits, classes) + F.l1_loss(values, truth) / 5


def share(outputs: Any, targets: Any) -> torch.Tensor:
    return (outputs[0].argmax(1) == targets[0]).float()


def test_a_network_of_two_outputs_learns() -> None:
    data = two_output_data()
    objective = make_objective(data, both_loss, share)
    network = seeded(TwoHeads, seed=1)
    before = objective.score(predict(network, data.test.chunks()), data.test)
    fit(network, data.train, objective, ADAMW, epochs=15, lr=0.02, seed=0)
    after = objective.score(predict(network, data.test.chunks()), data.test)
    assert after.loss < before.loss
    assert after.value > max(0.6, before.value)


def test_a_student_of_two_outputs_imitates_both() -> None:
    data = two_output_data()
    objective = make_objective(data, both_loss, share)
    teacher = seeded(TwoHeads, seed=1)
    with torch.no_grad():
        teacher.values.bias.add_(50.0)  # type: ignore[union-attr, operator]
    soft = SoftTargets(always(*predict_tensors(teacher, data.train.chunks())), 1.0, 1.0)
    student = fit(
        seeded(TwoHeads), data.train, objective, ADAMW, epochs=30, lr=0.02, seed=0, soft=soft
    )  # fmt: skip
    for found, wanted in zip(
        predict(student, data.test.chunks()), predict(teacher, data.test.chunks()), strict=True
    ):
        assert np.abs(found - wanted).mean() < 0.35 * wanted.std() + 0.1


def test_a_single_output_in_a_list_is_trained_as_a_tensor() -> None:
    class Wrapped(Regressor):
        def forward(self, x: torch.Tensor) -> Any:
            return [super().forward(x)]

    data = regression_data()
    objective = make_objective(data)
    network = fit(seeded(Wrapped), data.train, objective, ADAMW, epochs=1, lr=0.01, seed=0)
    (found,) = predict(network, data.test.chunks())
    assert found.shape == (60, 1)


# Predictions


def test_predictions_do_not_depend_on_the_batch() -> None:
    network = TASK.model()
    (seven,), (whole,) = (predict(network, DATA.test.chunks(size)) for size in (7, 256))
    assert seven.dtype == np.float32
    np.testing.assert_allclose(seven, whole, rtol=1e-5, atol=1e-6)


def test_predictions_of_several_outputs_are_a_tuple_in_order() -> None:
    network, data = seeded(TwoHeads), two_output_data()
    with torch.no_grad():
        expected = network(data.test.inputs)
    found = predict(network, data.test.chunks(7))
    assert [part.shape for part in found] == [(60, 3), (60, 2)]
    for part, one in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, one.numpy(), rtol=1e-5, atol=1e-6)


def test_a_teachers_outputs_may_be_learned_from() -> None:
    (outputs,) = predict_tensors(TASK.model(), DATA.test.chunks())
    student = torch.zeros(90, 3, requires_grad=True)
    ((student - outputs) ** 2).sum().backward()  # an inference tensor would raise here
    assert student.grad is not None


def test_a_diverged_training_is_an_error_with_the_remedy() -> None:
    spoilt = Split(torch.full((32, 1, 8, 8), float("nan")), torch.zeros(32, dtype=torch.int64))
    with pytest.raises(TaskError, match=r"diverged: the loss is nan.*trial_lr"):
        fit(TASK.model(), spoilt, OBJECTIVE, RECIPE, epochs=1, lr=0.1, seed=0)


def test_a_users_loss_that_fails_ends_training_with_its_words() -> None:
    def broken(outputs: Any, targets: Any) -> torch.Tensor:
        raise ValueError("no boxes here")

    objective = make_objective(DATA, broken)
    with pytest.raises(TaskError, match="The loss failed: ValueError: no boxes here"):
        fit(TASK.model(), small(), objective, RECIPE, epochs=1, lr=0.1, seed=0)


def test_training_leaves_weights_in_plain_layout() -> None:
    network = TASK.model()
    set_memory_format(network, torch.channels_last)
    fit(network, small(), OBJECTIVE, RECIPE, epochs=1, lr=0.1, seed=0)
    assert all(p.is_contiguous() for p in network.parameters())


# Views


def test_views_are_shown_again_where_there_are_few() -> None:
    split = replace(images(), augmentation=Augmentation(flip=True, shift=True, seed=5))
    asked: list[int] = []

    def outputs(view: int) -> tuple[torch.Tensor, ...]:
        asked.append(view)
        return (torch.zeros(6, 3),)

    network = Watched()
    fit(
        network, split, OBJECTIVE, replace(RECIPE, batch=8), epochs=5, lr=0.01, seed=3, views=2,
        soft=SoftTargets(outputs, 2.0, 0.5), manner=PLAIN,
    )  # fmt: skip
    rng = torch.Generator().manual_seed(3)
    for epoch, batch in enumerate(network.seen):
        assert torch.equal(batch, split.batch(torch.randperm(6, generator=rng), epoch % 2))
    assert asked == [0, 1, 0, 1, 0]


# A teacher that runs on every batch


def test_a_live_teacher_teaches_what_its_kept_outputs_teach() -> None:
    teacher = seeded(TinyNet, seed=9).eval()
    split = small()
    kept = SoftTargets(always(*predict_tensors(teacher, split.chunks())), 3.0, 0.8)
    live = SoftTargets(teacher, 3.0, 0.8)
    one, other = trained(1, kept), trained(1, live)
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    assert not same(trained(1), other)
    assert same(teacher.state_dict(), seeded(TinyNet, seed=9).state_dict())


def test_a_live_teachers_columns_count_alike_whatever_their_size() -> None:
    data = regression_data(columns=2)
    objective = make_objective(data)
    teacher = seeded(lambda: Regressor(2), seed=2)
    with torch.no_grad():
        teacher.head.weight[1] *= 100  # type: ignore[union-attr, index, operator]
    made = fit(
        seeded(lambda: Regressor(2)), data.train, objective, ADAMW, epochs=30, lr=0.02, seed=0,
        soft=SoftTargets(teacher, 1.0, 1.0),
    )  # fmt: skip
    (found,), (wanted,) = (predict(x, data.test.chunks()) for x in (made, teacher))
    assert (((found - wanted) ** 2).mean(0) / wanted.var(0) < 0.3).all()


# Zeros that stay


def sparse_network() -> nn.Module:
    network = TASK.model()
    with torch.no_grad():
        for name in ("conv1", "conv2"):
            weight = network.get_submodule(name).weight
            weight.masked_fill_(weight.abs() < weight.abs().median(), 0)
    return network


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_of_named_parameters_stay_and_nothing_else_does(optimizer: str) -> None:
    recipe, before = replace(RECIPE, optimizer=optimizer), sparse_network()
    made = fit(
        sparse_network(), small(), OBJECTIVE, recipe, epochs=2, lr=0.1, seed=0,
        sparse=("conv1.weight",),
    )  # fmt: skip
    old, new = (dict(x.named_parameters()) for x in (before, made))
    assert torch.equal(old["conv1.weight"] == 0, new["conv1.weight"] == 0)
    assert (new["conv2.weight"] == 0).float().mean() < 0.05  # others have come back
    assert not torch.equal(old["conv1.weight"], new["conv1.weight"])


def test_zeros_stay_whatever_the_optimizer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noisy(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for parameter in self.param_groups[0]["params"]:
                parameter.data += 0.01

    monkeypatch.setattr(torch.optim, "SGD", Noisy)
    made = fit(
        sparse_network(), small(), OBJECTIVE, RECIPE, epochs=1, lr=0.1, seed=0,
        sparse=("conv1.weight",),
    )  # fmt: skip
    zero = sparse_network().conv1.weight == 0  # type: ignore[union-attr]
    assert (made.conv1.weight[zero] == 0).all()  # type: ignore[union-attr, index]


class Scaled(nn.Module):
    """A weight that stays zero, and whose gradient is as large as is asked."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size, self.gone = size, nn.Parameter(torch.zeros(1, 3))
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)) + self.gone * self.size


def test_gradients_of_zeros_that_stay_do_not_count_when_they_are_clipped() -> None:
    made = [
        fit(
            seeded(lambda: Scaled(size)), small(), OBJECTIVE, RECIPE, epochs=1, lr=0.1, seed=0,  # noqa: B023
            sparse=("gone",),
        ).state_dict()
        for size in (0.0, 1e4)
    ]  # fmt: skip
    assert same(*made)


def test_zeros_of_unknown_parameters_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"The zeros of conv9.weight are to stay.*no parameters"):
        fit(
            TASK.model(), small(), OBJECTIVE, RECIPE, epochs=1, lr=0.1, seed=0,
            sparse=("conv1.weight", "conv9.weight"),
        )  # fmt: skip

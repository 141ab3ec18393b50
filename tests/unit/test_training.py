from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import TaskError
from harness.tasks.base import Split
from harness.training import SoftTargets, distillation_loss, fit, predict
from support.tiny import Tiny

TASK = Tiny()
RNG = np.random.default_rng(0)
STUDENT = RNG.normal(size=(4, 3))
TEACHER = RNG.normal(size=(6, 3))
LABELS = np.array([0, 2, 1, 1])
ROWS = np.array([5, 0, 3, 2])


def log_softmax(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def cross_entropy() -> float:
    return float(-log_softmax(STUDENT)[np.arange(4), LABELS].mean())


def divergence(t: float) -> float:
    teacher, student = log_softmax(TEACHER[ROWS] / t), log_softmax(STUDENT / t)
    return float((np.exp(teacher) * (teacher - student)).sum(1).mean())


def loss(weight: float | None, t: float = 4.0) -> float:
    soft = None if weight is None else SoftTargets(torch.from_numpy(TEACHER), t, weight)
    value = distillation_loss(
        torch.from_numpy(STUDENT), torch.from_numpy(LABELS), soft, torch.from_numpy(ROWS)
    )
    return float(value)


def small() -> Split:
    whole = TASK.train()
    return Split(whole.inputs[:96], whole.labels[:96])


def trained(seed: int, soft: SoftTargets | None = None) -> dict[str, torch.Tensor]:
    network = fit(
        TASK.model(), small(), epochs=2, batch=32, lr=0.1, weight_decay=1e-4, seed=seed, soft=soft
    )
    return network.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_at_weight_zero_only_the_labels_count() -> None:
    assert loss(0.0) == pytest.approx(cross_entropy())
    assert loss(None) == pytest.approx(cross_entropy())


@pytest.mark.parametrize("t", [1.0, 4.0, 16.0])
def test_at_weight_one_only_the_teacher_counts_times_the_temperature_squared(t: float) -> None:
    assert loss(1.0, t) == pytest.approx(t**2 * divergence(t))


def test_between_the_two_are_mixed_by_weight() -> None:
    expected = 0.3 * cross_entropy() + 0.7 * 16 * divergence(4.0)
    assert loss(0.7) == pytest.approx(expected)


def test_the_teachers_own_logits_cost_nothing() -> None:
    logits = torch.from_numpy(TEACHER)
    value = distillation_loss(
        logits, torch.zeros(6, dtype=torch.int64), SoftTargets(logits, 3.0, 1.0), torch.arange(6)
    )
    assert float(value) == pytest.approx(0.0, abs=1e-12)


def test_a_seed_fixes_training_and_another_changes_it() -> None:
    first = trained(1)
    torch.rand(5)
    assert same(trained(1), first)
    assert not same(trained(2), first)


def test_soft_targets_change_training_unless_their_weight_is_zero() -> None:
    logits = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
    labels_only = trained(1)
    assert same(trained(1, SoftTargets(logits, 4.0, 0.0)), labels_only)
    assert not same(trained(1, SoftTargets(logits, 4.0, 0.5)), labels_only)


def test_training_learns_the_task() -> None:
    network = fit(TASK.model(), TASK.train(), epochs=2, batch=32, lr=0.1, weight_decay=1e-4, seed=0)
    score = TASK.score(lambda inputs: predict(network, inputs), TASK.test())
    assert score.accuracy > 0.6
    assert not network.training


def test_a_student_learns_from_the_teacher_without_labels() -> None:
    whole = TASK.train()
    teacher = nn.functional.one_hot(whole.labels, 3).float() * 8
    wrong = Split(whole.inputs, (whole.labels + 1) % 3)
    network = fit(
        TASK.model(), wrong, epochs=2, batch=32, lr=0.1, weight_decay=1e-4, seed=0,
        soft=SoftTargets(teacher, 2.0, 1.0),
    )  # fmt: skip
    score = TASK.score(lambda inputs: predict(network, inputs), TASK.test())
    assert score.accuracy > 0.6


def test_every_step_is_told() -> None:
    told: list[tuple[int, int]] = []
    fit(
        TASK.model(), small(), epochs=2, batch=40, lr=0.1, weight_decay=0.0, seed=0,
        on_batch=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(step, 6) for step in range(1, 7)]


def test_predictions_do_not_depend_on_the_batch() -> None:
    network, inputs = TASK.model(), TASK.test().inputs.numpy()
    np.testing.assert_allclose(
        predict(network, inputs, batch=7), predict(network, inputs), rtol=1e-5, atol=1e-6
    )


def test_a_diverged_training_is_an_error_and_no_network() -> None:
    spoilt = Split(torch.full((32, 1, 8, 8), float("nan")), torch.zeros(32, dtype=torch.int64))
    with pytest.raises(TaskError, match="diverged"):
        fit(TASK.model(), spoilt, epochs=1, batch=32, lr=0.1, weight_decay=0.0, seed=0)

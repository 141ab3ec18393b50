"""Losses and distances to a teacher, against numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness.data.split import Split
from harness.errors import ConfigError, TaskError
from harness.tasks.losses import RelativeError, UserLoss, named_loss, softened, squared
from support.tiny import tiny_data
from support.values import regression_data

if TYPE_CHECKING:
    from numpy.typing import NDArray

RNG = np.random.default_rng(0)
OUTPUTS, TARGETS = RNG.normal(size=(6, 2)), RNG.normal(size=(6, 2))
MEAN, SPREAD = (3.0, -0.5), (2.0, 0.01)
ERRORS = {
    "mse": lambda e: (e**2).mean(),
    "mae": lambda e: np.abs(e).mean(),
    "huber": lambda e: np.where(np.abs(e) <= 1, e**2 / 2, np.abs(e) - 0.5).mean(),
}


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_are_relative_to_each_columns_spread(kind: str) -> None:
    loss = RelativeError(kind, MEAN, SPREAD)(torch.from_numpy(OUTPUTS), torch.from_numpy(TARGETS))
    expected = ERRORS[kind]((OUTPUTS - TARGETS) / np.array(SPREAD))
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("kind", ERRORS)
def test_a_network_that_predicts_standardised_values_is_held_against_such(kind: str) -> None:
    loss = RelativeError(kind, MEAN, SPREAD, standardised=True)
    standard = (TARGETS - np.array(MEAN)) / np.array(SPREAD)
    found = float(loss(torch.from_numpy(OUTPUTS), torch.from_numpy(TARGETS)))
    assert found == pytest.approx(float(ERRORS[kind](OUTPUTS - standard)), rel=1e-5)


def test_outputs_and_targets_of_one_value_may_be_flat() -> None:
    one = RelativeError("mse", (7.0,), (2.0,))
    flat, column = torch.tensor([1.0, 3.0]), torch.tensor([[0.0], [0.0]])
    assert float(one(flat, column)) == float(one(column, flat)) == pytest.approx(1.25)
    # A column against a row would broadcast to a table of all pairs and be plausible.
    assert float(one(flat[:, None], flat)) == 0.0


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
def test_a_named_loss_takes_its_spread_from_the_training_split(kind: str) -> None:
    data = regression_data(columns=2)
    loss = named_loss(data, kind, standardised=False)
    assert isinstance(loss, RelativeError)
    assert isinstance(data.train.targets, torch.Tensor)
    assert loss.kind == kind
    assert loss.spread == pytest.approx(data.train.targets.double().numpy().std(0), rel=1e-9)
    assert loss.spread != pytest.approx(data.test.targets.double().numpy().std(0), rel=1e-9)  # type: ignore[union-attr]


def test_values_that_are_all_alike_are_refused() -> None:
    data = regression_data()
    constant = replace(data, train=Split(data.train.inputs, torch.full((240, 1), 7.0)))
    with pytest.raises(ConfigError, match="nothing to learn"):
        named_loss(constant, "mse", standardised=False)


def test_the_default_losses_go_by_the_kind_of_data() -> None:
    assert named_loss(tiny_data(), "cross_entropy", standardised=False) is F.cross_entropy
    regression = named_loss(regression_data(), "mse", standardised=False)
    assert isinstance(regression, RelativeError)
    assert regression.kind == "mse"


# Distances to a teacher


@pytest.mark.parametrize("t", [1.0, 4.0, 16.0])
def test_softened_is_the_divergence_times_the_temperature_squared(t: float) -> None:
    student, teacher = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
    p, q = log_softmax(teacher / t), log_softmax(student / t)
    expected = t**2 * (np.exp(p) * (p - q)).sum(1).mean()
    found = softened(torch.from_numpy(student), torch.from_numpy(teacher), t)
    assert float(found) == pytest.approx(float(expected))


def test_softened_by_hand() -> None:
    # Teacher (1/2, 1/2), student (3/4, 1/4): KL = ln(2/3)/2 + ln(2)/2 = ln(4/3)/2.
    student = torch.log(torch.tensor([[0.75, 0.25]]))
    found = softened(student, torch.zeros(1, 2), 1.0)
    assert float(found) == pytest.approx(np.log(4 / 3) / 2)


COLUMNS = torch.tensor([[2.0, 1e6]])


def test_a_teachers_own_outputs_cost_nothing() -> None:
    logits = torch.from_numpy(RNG.normal(size=(5, 3)))
    one = torch.ones(1, 3)
    assert float(softened(logits, logits, 3.0)) == pytest.approx(0.0, abs=1e-12)
    assert float(squared(logits, logits, 3.0, (one,))) == 0.0
    assert float(squared((logits, logits * 9), (logits, logits * 9), 3.0, (one, one))) == 0.0


def test_squared_is_relative_to_each_columns_spread_and_knows_no_temperature() -> None:
    student, teacher = torch.from_numpy(OUTPUTS), torch.from_numpy(TARGETS)
    expected = (((OUTPUTS - TARGETS) / COLUMNS.numpy()) ** 2).mean()
    assert float(squared(student, teacher, 1.0, (COLUMNS,))) == pytest.approx(float(expected))
    again = squared(student, teacher, 9.0, (COLUMNS,))
    assert float(again) == float(squared(student, teacher, 1.0, (COLUMNS,)))


def test_every_output_counts_alike_whatever_its_size() -> None:
    student, teacher = torch.from_numpy(OUTPUTS), torch.from_numpy(TARGETS)
    alone = float(squared(student, teacher, 1.0, (COLUMNS,)))
    both = (COLUMNS, COLUMNS * 1e4)
    found = squared((student, student * 1e4), [teacher, teacher * 1e4], 1.0, both)
    assert float(found) == pytest.approx(alone)


# A user's own


def test_a_users_loss_gets_outputs_and_targets_as_they_are() -> None:
    seen: list[Any] = []

    def loss(outputs: Any, targets: Any) -> torch.Tensor:
        seen.append((outputs, targets))
        return outputs[0].sum().reshape(1)

    outputs, targets = (torch.ones(2, 3), torch.zeros(2)), (torch.ones(2),)
    found = UserLoss(loss)(outputs, targets)
    assert found.shape == ()
    assert float(found) == 6.0
    assert seen[0][0] is outputs
    assert seen[0][1] is targets


def test_a_users_loss_can_be_learned_from() -> None:
    outputs = torch.ones(3, 1, requires_grad=True)
    UserLoss(lambda o, t: ((o - t) ** 2).mean())(outputs, torch.zeros(3, 1)).backward()
    assert outputs.grad is not None
    assert torch.allclose(outputs.grad, torch.full((3, 1), 2 / 3))


def test_a_users_loss_that_fails_is_named_with_its_own_words() -> None:
    def broken(outputs: Any, targets: Any) -> torch.Tensor:
        raise KeyError("boxes")

    with pytest.raises(TaskError, match="The loss failed: KeyError: 'boxes'"):
        UserLoss(broken)(torch.ones(1), torch.ones(1))
    with pytest.raises(TaskError, match="The imitation failed: KeyError"):
        UserLoss(broken, "imitation")(torch.ones(1), torch.ones(1))


@pytest.mark.parametrize(
    ("returned", "received"),
    [(torch.ones(2), r"\(2,\)"), (0.5, "float"), (None, "NoneType"), (np.float64(1), "float64")],
    ids=["per sample", "number", "nothing", "numpy"],
)
def test_a_users_loss_that_is_no_scalar_tensor_is_refused(returned: Any, received: str) -> None:
    with pytest.raises(TaskError, match=f"must return a scalar tensor. Received: {received}"):
        UserLoss(lambda o, t: returned)(torch.ones(1), torch.ones(1))

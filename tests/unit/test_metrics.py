"""Metrics against scikit-learn; higher is always better."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as known

from harness.errors import TaskError
from harness.tasks.metrics import METRICS, user_metric
from harness.tasks.score import resampled
from harness.units import SHARES, format_metric

RNG = np.random.default_rng(3)
TRUTH = RNG.integers(0, 4, 80)
LOGITS = RNG.normal(size=(80, 4)) + 2 * np.eye(4)[TRUTH]
FOUND = LOGITS.argmax(1)
VALUES = RNG.normal(size=(80, 2)) * [1.0, 100.0]
NEAR = VALUES + RNG.normal(size=(80, 2)) * [0.3, 50.0]
CLASSES = {
    "accuracy": known.accuracy_score(TRUTH, FOUND),
    "balanced_accuracy": known.balanced_accuracy_score(TRUTH, FOUND),
    "f1_macro": known.f1_score(TRUTH, FOUND, average="macro"),
}
ERRORS = {
    "r2": known.r2_score(VALUES, NEAR),
    "neg_mean_absolute_error": -known.mean_absolute_error(VALUES, NEAR),
    "neg_root_mean_squared_error": -known.root_mean_squared_error(VALUES, NEAR),
}


def test_the_first_of_each_kind_is_the_default() -> None:
    assert [next(iter(METRICS[kind])) for kind in ("classification", "regression")] == [
        "accuracy", "r2",
    ]  # fmt: skip


def test_a_metric_is_shown_as_a_share_if_it_is_one() -> None:
    for kind, of_kind in METRICS.items():
        for name, metric in of_kind.items():
            assert metric.name == name
            assert (name in SHARES) == (kind == "classification")


@pytest.mark.parametrize("name", CLASSES)
def test_metrics_of_classes_are_scikit_learns(name: str) -> None:
    metric = METRICS["classification"][name]
    value, low, high = metric.judge((torch.from_numpy(LOGITS),), torch.from_numpy(TRUTH))
    assert value == pytest.approx(CLASSES[name])
    assert low < value < high
    assert 0.05 < high - low < 0.3


def scikit_learns(name: str, truth: Any, found: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are found and aren't there
        if name == "balanced_accuracy":
            return known.balanced_accuracy_score(truth, found)
        return known.f1_score(truth, found, average="macro", zero_division=0.0)


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro"])
@pytest.mark.parametrize("seed", range(40))
def test_metrics_of_rare_and_absent_classes_are_scikit_learns(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, classes = rng.integers(1, 40), rng.integers(2, 9)
    shares = rng.dirichlet(np.full(classes, 0.3))
    truth = rng.choice(classes, n, p=shares)
    logits = rng.normal(size=(n, classes)) + rng.uniform(0, 2) * np.eye(classes)[truth]
    judged = METRICS["classification"][name].judge(
        (torch.from_numpy(logits),), torch.from_numpy(truth)
    )
    assert judged[0] == pytest.approx(scikit_learns(name, truth, logits.argmax(1)), abs=1e-12)


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro"])
def test_intervals_of_metrics_of_classes_are_those_of_scikit_learn(name: str) -> None:
    truth = np.array([0] * 30 + [1] * 6 + [2])  # the last one is in two of three resamples
    logits = RNG.normal(size=(37, 4)) + 2 * np.eye(4)[truth]
    found = logits.argmax(1)

    expected = resampled(
        lambda rows: scikit_learns(name, truth[rows], found[rows]), len(truth), name
    )
    judged = METRICS["classification"][name].judge(
        (torch.from_numpy(logits),), torch.from_numpy(truth)
    )
    assert judged == pytest.approx(expected, abs=1e-12)
    assert judged[1] < judged[0] < judged[2]


@pytest.mark.parametrize("name", ERRORS)
def test_metrics_of_values_are_scikit_learns(name: str) -> None:
    metric = METRICS["regression"][name]
    value, low, high = metric.judge(
        (torch.from_numpy(NEAR),), torch.from_numpy(VALUES.astype(np.float32))
    )
    assert value == pytest.approx(ERRORS[name], rel=1e-6)
    assert low < value < high


@pytest.mark.parametrize("name", ERRORS)
def test_better_predictions_score_higher(name: str) -> None:
    metric, truth = METRICS["regression"][name], torch.from_numpy(VALUES)
    near = metric.judge((torch.from_numpy(NEAR),), truth)
    far = metric.judge((torch.from_numpy(VALUES + 3 * (NEAR - VALUES)),), truth)
    exact = metric.judge((truth,), truth)
    assert exact[0] > near[0] > far[0]
    assert exact[0] == (1.0 if name == "r2" else 0.0)


@pytest.mark.parametrize("name", ERRORS)
def test_one_value_may_be_flat_on_either_side(name: str) -> None:
    metric = METRICS["regression"][name]
    column, truth = torch.from_numpy(NEAR[:, :1]), torch.from_numpy(VALUES[:, :1])
    expected = metric.judge((column,), truth)
    assert metric.judge((column[:, 0],), truth) == expected
    assert metric.judge((column,), truth[:, 0]) == expected


def test_rare_classes_count_in_balanced_accuracy_and_f1_alone() -> None:
    truth = torch.tensor([0] * 95 + [1] * 5)
    always = torch.tensor([[1.0, 0.0]] * 100).double()
    judged = {name: m.judge((always,), truth)[0] for name, m in METRICS["classification"].items()}
    assert judged["accuracy"] == 0.95
    assert judged["balanced_accuracy"] == 0.5
    assert judged["f1_macro"] == pytest.approx(0.5 * 2 * 0.95 / 1.95)


@pytest.mark.parametrize(
    "outputs",
    [
        (torch.zeros(80, 2), torch.zeros(80, 2)),
        (torch.zeros(80, 3),),
        (torch.zeros(80),),
        (torch.zeros(80, 1),),  # would broadcast
    ],
    ids=["two", "columns", "flat", "one column"],
)
def test_values_of_another_shape_are_refused(outputs: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(TaskError, match=r"Expected values \(80, 2\). Received: \(80"):
        METRICS["regression"]["r2"].judge(outputs, torch.from_numpy(VALUES))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "outputs",
    [(torch.zeros(80, 4), torch.zeros(80, 4)), (torch.zeros(80),), (torch.zeros(80, 4, 2),)],
    ids=["two", "flat", "deep"],
)
def test_outputs_that_are_no_logits_are_refused(
    name: str, outputs: tuple[torch.Tensor, ...]
) -> None:
    with pytest.raises(TaskError, match=r"Expected logits \[80, classes\]. Received: \(80"):
        METRICS["classification"][name].judge(outputs, torch.from_numpy(TRUTH))


def test_r2_of_targets_that_are_all_alike_is_refused_not_guessed() -> None:
    with pytest.raises(TaskError, match="'r2' must return one finite number"):
        METRICS["regression"]["r2"].judge((torch.from_numpy(NEAR),), torch.ones(80, 2))


# A user's own


def test_a_users_metric_gets_tensors_and_has_its_own_name() -> None:
    seen: list[Any] = []

    def closeness(outputs: Any, targets: Any) -> float:
        seen.append((outputs, targets))
        return -float((outputs - targets).abs().mean())

    metric = user_metric(closeness)
    truth = torch.from_numpy(VALUES.astype(np.float32))
    value, low, high = metric.judge((torch.from_numpy(NEAR),), truth)
    assert metric.name.startswith("closeness#")
    assert value == pytest.approx(ERRORS["neg_mean_absolute_error"], rel=1e-5)
    assert low < value < high
    assert seen[0][0].dtype == torch.float32  # as in training
    assert torch.equal(seen[0][1], truth)


def test_a_users_metric_of_several_outputs_and_targets_gets_tuples() -> None:
    def both(outputs: Any, targets: Any) -> Any:
        (logits, values), (classes, truth) = outputs, targets
        return (logits.argmax(1) == classes).float() - (values - truth).abs().mean(1)

    parts = (torch.from_numpy(LOGITS), torch.from_numpy(NEAR))
    truth = (torch.from_numpy(TRUTH), torch.from_numpy(VALUES))
    value, low, high = user_metric(both).judge(parts, truth)
    expected = CLASSES["accuracy"] + ERRORS["neg_mean_absolute_error"]
    assert value == pytest.approx(expected, rel=1e-5)
    assert low < value < high


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (float("nan"), "must return one finite number"),
        (torch.ones(3), r"shape \(3,\)"),
        ("good", "'own' failed"),
        (torch.ones(80, requires_grad=True), "'own' failed"),
    ],
    ids=["nan", "shape", "text", "grad"],
)
def test_a_users_metric_that_returns_rubbish_is_named(returned: Any, words: str) -> None:
    def own(outputs: Any, targets: Any) -> Any:
        return returned

    with pytest.raises(TaskError, match=words):
        user_metric(own).judge((torch.from_numpy(NEAR),), torch.from_numpy(VALUES))


@pytest.mark.parametrize("name", SHARES)
def test_a_users_metric_is_not_shown_in_per_cent_for_its_name(name: str) -> None:
    def own(outputs: Any, targets: Any) -> float:
        return 12.5

    own.__name__ = name
    metric = user_metric(own)
    assert metric.name.startswith(f"{name}#")
    value, _, _ = metric.judge((torch.from_numpy(NEAR),), torch.from_numpy(VALUES))
    assert format_metric(value, metric.name) == "12.5"


def test_a_metric_without_a_name_is_called_by_its_class() -> None:
    class Own:
        def __call__(self, outputs: Any, targets: Any) -> float:
            return 1.0

    assert user_metric(Own()).name.startswith("Own#")


def test_metrics_of_one_name_and_other_content_have_other_names() -> None:
    def within(tolerance: float) -> Any:
        return lambda outputs, targets: ((outputs - targets).abs() < tolerance).float()

    assert user_metric(within(1.0)).name != user_metric(within(2.0)).name
    assert user_metric(within(1.0)).name == user_metric(within(1.0)).name


def test_a_change_of_accuracy_is_paired() -> None:
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, 2, 500))
    before = torch.nn.functional.one_hot(truth, 2).double()
    flipped = rng.permutation(500)[:25]
    after = before.clone()
    after[flipped] = after[flipped].flip(1)
    value, low, high = METRICS["classification"]["accuracy"].change((before,), (after,), truth)
    assert value == pytest.approx(-0.05)
    assert low < value < high < 0
    assert METRICS["classification"]["accuracy"].change((after,), (before,), truth) == (
        pytest.approx(-value), pytest.approx(-high), pytest.approx(-low),
    )  # fmt: skip
    # Unpaired, with two errors of 1 and 0.6 points, the same difference would be known far worse.
    assert high - low < 0.045


def test_no_change_of_accuracy_is_not_certain_to_be_none() -> None:
    truth = torch.arange(100) % 2
    logits = torch.nn.functional.one_hot(truth, 2).double()
    value, low, high = METRICS["classification"]["accuracy"].change((logits,), (logits,), truth)
    assert value == 0
    assert low < 0 < high
    assert high == pytest.approx(-low)


@pytest.mark.parametrize("name", ["neg_mean_absolute_error", "r2"])
def test_a_change_of_values_is_resampled_on_the_same_rows(name: str) -> None:
    metric, truth = METRICS["regression"][name], torch.from_numpy(VALUES)
    near, far = torch.from_numpy(NEAR), torch.from_numpy(VALUES + 3 * (NEAR - VALUES))
    value, low, high = metric.change((near,), (far,), truth)
    assert value == pytest.approx(metric.judge((far,), truth)[0] - metric.judge((near,), truth)[0])
    assert low <= value <= high < 0

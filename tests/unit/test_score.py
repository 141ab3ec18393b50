"""Scores: intervals that hold what they promise, and nothing scored that is no prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from harness.data.split import Split
from harness.errors import TaskError
from harness.tasks import score as scoring
from harness.tasks.score import resampled, share_of_hits
from support.tiny import tiny

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
SPLIT = Split(torch.zeros(10, 1, 2, 2), LABELS)
EYE = np.eye(3)


def logits(hits: int) -> NDArray[np.float64]:
    right, wrong = EYE[LABELS.numpy()], EYE[(LABELS.numpy() + 1) % 3]
    return np.concatenate([right[:hits], wrong[hits:]])


def test_accuracy_has_the_wilson_interval() -> None:
    score = tiny().score((logits(7),), SPLIT)
    p, n, z = 0.7, 10, 1.959963985
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (score.value, score.n) == (0.7, 10)
    assert math.isclose(score.lo, middle - half, rel_tol=1e-6)
    assert math.isclose(score.hi, middle + half, rel_tol=1e-6)


@pytest.mark.parametrize("hits", [0, 10])
def test_all_or_nothing_still_has_an_interval(hits: int) -> None:
    value, low, high = share_of_hits(np.arange(10) < hits)
    assert value == hits / 10
    assert 0 <= low <= value <= high <= 1
    assert 0.2 < high - low < 0.4


def test_the_loss_is_the_mean_cross_entropy_also_of_large_logits() -> None:
    expected = math.log(2 + math.e) - 1
    assert math.isclose(tiny().score((logits(10),), SPLIT).loss, expected)
    assert tiny().score((1e4 * logits(10),), SPLIT).loss == 0.0


@pytest.mark.parametrize(
    "outputs",
    [
        (np.zeros((9, 3)),),
        (np.full((10, 3), np.nan),),
        (np.where(np.arange(30).reshape(10, 3) == 29, np.inf, 0.0),),
        (np.zeros((10, 3)), np.zeros((9, 3))),
    ],
    ids=["short", "nan", "one infinite", "second short"],
)
def test_what_is_no_finite_output_of_every_sample_is_never_scored(
    outputs: tuple[NDArray[Any], ...],
) -> None:
    with pytest.raises(TaskError, match="finite outputs of 10 samples"):
        tiny().score(outputs, SPLIT)


def test_the_share_of_finite_outputs_is_told() -> None:
    spoilt = logits(10)
    spoilt[0, 0] = np.nan
    with pytest.raises(TaskError, match=r"\(10, 3\), 96\.7% of it finite"):
        tiny().score((spoilt,), SPLIT)


@pytest.mark.parametrize(
    "outputs",
    [(np.zeros((10, 3, 1)),), (np.zeros((10, 3)), np.zeros((10, 3)))],
    ids=["deep", "two"],
)
def test_outputs_that_are_no_logits_are_never_scored(outputs: tuple[NDArray[Any], ...]) -> None:
    with pytest.raises((TaskError, RuntimeError, TypeError)):
        tiny().score(outputs, SPLIT)


# Resampling


def mean_of(values: NDArray[np.float64]) -> Any:
    return lambda rows: float(values[rows].mean())


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    value, low, high = resampled(mean_of(values), 400, "mean")
    half = 1.96 * values.std() / 20
    assert value == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((value - half, value + half), abs=0.15 * half)


def test_one_number_per_sample_is_their_mean() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 60)
    assert resampled(lambda rows: values[rows], 60, "each") == resampled(
        mean_of(values), 60, "mean"
    )


def test_the_interval_is_the_same_at_every_call() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert resampled(mean_of(values), 50, "m") == resampled(mean_of(values), 50, "m")


def test_the_interval_holds_the_truth_about_nineteen_times_in_twenty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "_RESAMPLES", 200)
    rng, hits, rounds = np.random.default_rng(7), 0, 300
    for _ in range(rounds):
        values = rng.normal(1.0, 1.0, 60)
        _, low, high = resampled(mean_of(values), 60, "mean")
        hits += low <= 1.0 <= high
    assert 0.90 <= hits / rounds <= 0.985


def test_the_value_is_always_within_its_interval() -> None:
    # The largest of a sample: no resample exceeds it, so the percentile interval lies below.
    values = np.arange(30.0)
    value, low, high = resampled(lambda rows: float(values[rows].max()), 30, "max")
    assert low <= value == high == 29.0


@pytest.mark.parametrize(
    ("found", "received"),
    [
        (float("nan"), r"shape \(\), 0 of them"),
        (np.zeros(9), r"shape \(9,\)"),
        (np.zeros((10, 2)), r"shape \(10, 2\)"),
        (np.array([0.0] * 9 + [np.inf]), r"shape \(10,\), 9 of them"),
    ],
    ids=["nan", "short", "table", "infinite"],
)
def test_a_metric_that_is_no_finite_number_is_refused(found: Any, received: str) -> None:
    with pytest.raises(TaskError, match=rf"'odd' must return one finite number.*{received}"):
        resampled(lambda rows: found, 10, "odd")


@pytest.mark.parametrize("found", ["much", None, {"r2": 0.5}], ids=["text", "none", "dict"])
def test_a_metric_that_is_no_number_at_all_is_refused(found: Any) -> None:
    with pytest.raises(TaskError, match="'odd'"):
        resampled(lambda rows: found, 10, "odd")


def test_a_metric_that_fails_is_named_with_its_own_words() -> None:
    def broken(rows: Any) -> float:
        raise ZeroDivisionError("by nought")

    with pytest.raises(TaskError, match="'odd' failed: ZeroDivisionError: by nought"):
        resampled(broken, 10, "odd")


@pytest.mark.parametrize("how", ["nan", "raises"])
def test_a_metric_that_is_undefined_on_resamples_has_no_interval(how: str) -> None:
    def spread(rows: NDArray[np.int64]) -> float:
        if len(set(rows.tolist())) == len(rows):
            return 1.0
        if how == "raises":
            raise ValueError("twice the same sample")
        return math.nan

    with pytest.raises(TaskError, match="'odd' can be computed on 0 of 500 resamples"):
        resampled(spread, 10, "odd")


@pytest.mark.parametrize("how", ["nan", "raises"])
def test_a_few_resamples_on_which_it_is_undefined_do_not_matter(how: str) -> None:
    truth = np.array([1.0] * 3 + [0.0] * 27)  # a resample in 24 has none of the rare class

    def of_rare(rows: NDArray[np.int64]) -> float:
        if not truth[rows].any():
            if how == "raises":
                raise ValueError("only one class")
            return math.nan
        return float(truth[rows].mean())

    value, low, high = resampled(of_rare, 30, "rare")
    assert value == pytest.approx(0.1)
    assert 0 < low < value < high < 0.3

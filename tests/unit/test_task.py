from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.errors import ConfigError, TaskError
from harness.tasks import task_class
from harness.tasks.base import Split
from harness.tasks.digits import Digits
from support.tiny import Tiny

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
SPLIT = Split(torch.zeros(10, 1, 2, 2), LABELS)


def logits(hits: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    right = np.eye(3)[LABELS.numpy()]
    wrong = np.eye(3)[(LABELS.numpy() + 1) % 3]
    return np.concatenate([right[:hits], wrong[hits:]])


def test_accuracy_has_the_wilson_interval() -> None:
    score = Tiny().score(lambda _: logits(7), SPLIT)
    p, n, z = 0.7, 10, 1.959963985
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (score.accuracy, score.n) == (0.7, 10)
    assert math.isclose(score.lo, middle - half, rel_tol=1e-6)
    assert math.isclose(score.hi, middle + half, rel_tol=1e-6)


def test_the_loss_is_the_mean_cross_entropy_also_of_large_logits() -> None:
    expected = math.log(2 + math.e) - 1
    assert math.isclose(Tiny().score(lambda _: logits(10), SPLIT).loss, expected)
    assert Tiny().score(lambda _: 1e4 * logits(10), SPLIT).loss == 0.0


@pytest.mark.parametrize(
    "outputs",
    [np.zeros((9, 3)), np.zeros(10), np.full((10, 3), np.nan), np.zeros((10, 3, 1))],
    ids=["short", "flat", "nan", "deep"],
)
def test_outputs_that_are_no_logits_are_never_scored(
    outputs: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> None:
    with pytest.raises(TaskError, match="finite logits"):
        Tiny().score(lambda _: outputs, SPLIT)


def test_an_example_is_made_of_real_samples_in_any_number() -> None:
    task = Tiny()
    inputs = task.validation().inputs
    assert torch.equal(task.example_input(3), inputs[:3])
    assert len(task.example_input(len(inputs) + 1)) == len(inputs) + 1


def test_tasks_are_found_by_name() -> None:
    assert task_class("digits") is Digits
    with pytest.raises(ConfigError, match="Did you mean 'digits'"):
        task_class("digit")

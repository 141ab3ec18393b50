"""What a user's own functions get wrong is found while the task is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from harness.errors import ConfigError
from harness.tasks.base import Task
from harness.tasks.spec import TaskSpec, build_task
from support.tiny import TinyNet, tiny_data
from support.values import TwoHeads, two_output_data


def made(**given: Any) -> Task:
    return build_task(TaskSpec(TinyNet(), tiny_data(), **given))


def both_loss(outputs: Any, targets: Any) -> torch.Tensor:
    return F.cross_entropy(outputs[0], targets[0]) + F.mse_loss(outputs[1], targets[1])


def broken(outputs: Any, targets: Any) -> Any:
    raise KeyError("boxes")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"loss": broken}, "The loss failed: KeyError: 'boxes'"),
        ({"metric": broken}, "The metric 'broken' failed: KeyError: 'boxes'"),
        ({"metric": lambda o, t: float("nan")}, "must return one finite number"),
        ({"imitation": broken}, "The imitation failed: KeyError: 'boxes'"),
        ({"imitation": lambda s, t: s}, "The imitation must return a scalar tensor"),
        ({"imitation": lambda s, t: t.mean()}, "The imitation does not depend on the network"),
    ],
)
def test_what_fails_is_refused_before_the_search(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        made(**given)
    assert "before anything was timed" in str(caught.value)


def test_a_metric_that_wants_more_samples_gets_the_whole_split() -> None:
    seen: list[int] = []
    data = two_output_data()
    data, n = replace(data, validation=data.train), len(data.train)

    def picky(outputs: Any, targets: Any) -> Any:
        seen.append(len(targets[1]))
        if len(targets[1]) < n:
            raise ValueError("too few")
        return float(len(targets[1]))

    task = build_task(TaskSpec(TwoHeads(), data, loss=both_loss, metric=picky))
    assert task.objective.metric.own
    assert (seen[0], max(seen)) == (64, n)


def test_an_imitation_gets_outputs_as_the_network_gives_them() -> None:
    seen: list[Any] = []

    def distance(student: Any, teacher: Any) -> torch.Tensor:
        seen.append((len(student), teacher[1].requires_grad))
        return both_loss((student[0], student[1]), (teacher[0].argmax(1), teacher[1]))

    given = {"loss": both_loss, "metric": lambda o, t: 1.0, "imitation": distance}
    build_task(TaskSpec(TwoHeads(), two_output_data(), **given))
    assert seen == [(2, False)]

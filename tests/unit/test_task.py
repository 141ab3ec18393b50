from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.errors import ConfigError
from harness.models.network import Network
from harness.tasks import TASKS, check_task_name, shipped_task
from harness.tasks.base import Task
from support.tiny import TinyNet, tiny


def test_an_example_is_made_of_real_samples_in_any_number() -> None:
    task = tiny()
    inputs = task.data.validation.inputs
    assert torch.equal(task.example_input(3), inputs[:3])
    assert len(task.example_input(len(inputs) + 1)) == len(inputs) + 1
    assert torch.equal(task.example_input(len(inputs) + 1)[-1], inputs[0])


def test_every_model_is_a_copy_of_the_same_network() -> None:
    task = tiny()
    first = task.model()
    with torch.no_grad():
        first.head.bias.add_(1.0)  # type: ignore[union-attr, operator]
    again, known = task.model().state_dict(), task.network.module.state_dict()
    assert all(torch.equal(again[name], known[name]) for name in known)
    assert not torch.equal(again["head.bias"], first.state_dict()["head.bias"])


def with_module(module: TinyNet) -> Task:
    return replace(tiny(), network=Network(module.eval(), "tinynet"))


def test_the_hash_of_a_network_sees_a_weight_a_buffer_and_the_structure() -> None:
    known = tiny().model_sha256()
    assert tiny().model_sha256() == known
    weight, buffer, structure = tiny().model(), tiny().model(), tiny().model()
    weight.head.weight.data.view(-1)[-1] += 1e-3  # type: ignore[union-attr, operator]
    buffer.bn1.running_mean[0] = 1.0  # type: ignore[union-attr, index, operator]
    structure.bn1.eps = 1e-3  # type: ignore[union-attr, assignment]
    hashes = {with_module(m).model_sha256() for m in (weight, buffer, structure)}  # type: ignore[arg-type]
    assert len(hashes | {known}) == 4


def test_shipped_tasks_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "tiny", "support.tiny:tiny")
    assert shipped_task("tiny").name == "tiny"
    check_task_name("digits")


@pytest.mark.parametrize("find", [shipped_task, check_task_name])
def test_an_unknown_task_is_named_with_the_nearest_and_the_other_ways(find: object) -> None:
    with pytest.raises(ConfigError, match=r"'digit'.*FILE\.toml.*--model.*Did you mean 'digits'"):
        find("digit")  # type: ignore[operator]

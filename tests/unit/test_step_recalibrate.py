"""The step `recalibrate`: batch norm's statistics, estimated anew."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.steps import parse_step
from harness.compression.steps.base import Work
from harness.compression.steps.recalibrate import Recalibrate
from harness.data.augment import Augmentation
from harness.errors import ConfigError, TaskError
from harness.training import fit, predict
from harness.training.recalibration import batch_norms, recalibrated
from support.networks import network
from support.steps import Heard, context
from support.tiny import TinyNet, tiny
from support.values import seeded

TASK = tiny()


def batches(count: int = 4, size: int = 32) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [1 + 3 * torch.randn(size, 3, 8, 8, generator=rng) for _ in range(count)]


def shifted(model: nn.Module) -> nn.Module:
    """Return a copy whose batch norms know nothing of the data."""
    made = copy.deepcopy(model)
    for norm in batch_norms(made).values():
        assert norm.running_mean is not None
        norm.running_mean += 5
    return made


def test_statistics_are_averages_over_batches() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3)).eval()
    (norm,) = batch_norms(recalibrated(model, batches())).values()
    means = torch.stack([x.mean((0, 2, 3)) for x in batches()]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in batches()]).mean(0)
    assert torch.allclose(norm.running_mean, means, atol=1e-5)  # dropout was off
    assert torch.allclose(norm.running_var, variances, rtol=1e-5)
    assert (norm.momentum, norm.training) == (0.1, False)


@pytest.mark.parametrize("name", ["residual", "depthwise", "dense", "unet", "shared", "frozen"])
def test_what_was_known_before_has_no_part_in_it(name: str) -> None:
    model, example = network(name)
    before = copy.deepcopy(model.state_dict())
    one, other = recalibrated(model, batches()), recalibrated(shifted(model), batches())
    assert torch.equal(one(example), other(example))
    for key, tensor in one.state_dict().items():
        moved = key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tensor, before[key]) != moved, key
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module.training for module in one.modules())


def test_other_norms_of_running_statistics_and_none_are_left() -> None:
    model = nn.Sequential(
        nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3, track_running_stats=False)
    )
    assert batch_norms(model) == {}


@pytest.mark.parametrize("given", [[], [torch.randn(1, 3, 8, 8)]], ids=["none", "single"])
def test_without_samples_to_compare_statistics_stay(given: list[torch.Tensor]) -> None:
    model = shifted(nn.Sequential(nn.BatchNorm2d(3)))
    assert torch.equal(recalibrated(model, given)[0].running_mean, torch.full((3,), 5.0))


def test_a_batch_of_a_single_sample_is_left_out() -> None:
    model, single = nn.Sequential(nn.BatchNorm2d(3)), torch.full((1, 3, 8, 8), 99.0)
    whole, rest = (recalibrated(model, x) for x in ([single, *batches()], batches()))
    assert torch.equal(whole[0].running_mean, rest[0].running_mean)


def test_a_spoilt_network_is_told() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    with pytest.raises(TaskError, match="Batch norm '0' has statistics that are not finite"):
        recalibrated(model, [torch.full((2, 3, 4, 4), torch.nan)])
    with pytest.raises(TaskError, match="The network doesn't run: ValueError"):
        recalibrated(model, [torch.zeros(2, 3)])


# The step


def dense() -> nn.Module:
    return fit(TASK.model(), TASK.data.train, TASK.objective, TASK.recipe, epochs=2, lr=0.1, seed=0)


def accuracy(model: nn.Module) -> float:
    split = TASK.data.test
    return TASK.score(predict(model, split.chunks()), split).value


def test_a_network_whose_statistics_were_lost_is_mended() -> None:
    teacher = dense()
    work, heard = Work(shifted(teacher), ("head.weight",)), Heard()
    given, step = context(TASK, teacher, heard), Recalibrate()
    decision = step.decide(work, given)
    assert decision == {"samples": 320}
    made = step.apply(work, decision, given)
    assert accuracy(made.module) > 0.6 > accuracy(work.module)
    assert (made.sparse, heard.held, heard.breaths) == (("head.weight",), 1, 3)
    assert step.rebuild(work, decision, given) is work


def test_samples_are_a_random_few_as_they_are_in_equal_batches() -> None:
    seen: list[torch.Tensor] = []

    class Watching(TinyNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return super().forward(x)

    train = replace(TASK.data.train, augmentation=Augmentation(shift=True))
    task = replace(TASK, data=replace(TASK.data, train=train))
    work, step = Work(seeded(Watching).eval()), Recalibrate(samples=130)
    given = context(task, work.module, seed=3)
    step.apply(work, step.decide(work, given), given)
    assert [len(x) for x in seen] == [65, 65]
    rows = torch.randperm(320, generator=torch.Generator().manual_seed(3))[:130]
    assert torch.equal(torch.cat(seen), TASK.data.train.inputs[rows])


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(x.flatten(1)))


def test_a_network_without_batch_norm_stays_and_that_is_told() -> None:
    work, heard, step = Work(Plain().eval()), Heard(), Recalibrate()
    given = context(TASK, work.module, heard)
    assert step.apply(work, step.decide(work, given), given) is work
    assert heard.notes == ["recalibrate: the network has no batch norm, so it stays as it is"]


def test_options() -> None:
    assert parse_step("recalibrate:samples=512") == Recalibrate(512)
    with pytest.raises(ConfigError, match="samples must be a whole number from 2"):
        parse_step("recalibrate:samples=0")

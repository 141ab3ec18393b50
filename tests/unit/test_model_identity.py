"""Another network, a loss that fails, weights that aren't there: noticed before any timing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import ConfigError
from harness.models.network import Network
from harness.tasks.base import Reduction
from harness.tasks.spec import TaskSpec, build_task
from harness.training import fit
from support.tiny import tiny, tiny_data
from support.values import two_output_data


class Net(nn.Module):
    def __init__(self, activation: Any, dropout: float = 0.0, softmax: bool = False) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)
        self.activation, self.drop, self.softmax = activation, dropout, softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.activation(self.conv(x)), self.drop, self.training)
        logits = self.head(x.mean((2, 3)))
        return logits.softmax(1) if self.softmax else logits


def net(*args: Any, **kwargs: Any) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(*args, **kwargs).eval()


def sha256(module: nn.Module) -> str:
    return replace(tiny(), network=Network(module, "net")).model_sha256()


def test_another_forward_of_the_same_layers_is_another_network() -> None:
    assert sha256(net(torch.relu)) == sha256(net(torch.relu))
    assert sha256(net(torch.relu)) != sha256(net(torch.tanh))


def test_other_weights_are_another_network() -> None:
    other = net(torch.relu)
    with torch.no_grad():
        other.head.bias += 1e-3
    assert sha256(net(torch.relu)) != sha256(other)


def test_dropout_depends_on_the_seed_alone() -> None:
    task = tiny()

    def trained(seed: int) -> torch.Tensor:
        torch.rand(3)  # whatever was drawn before
        model = net(torch.relu, dropout=0.5)
        fit(model, task.data.train, task.objective, task.recipe, epochs=1, lr=0.05, seed=seed)
        return model.conv.weight.detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_a_softmax_at_the_end_of_a_network_is_told() -> None:
    plain = build_task(TaskSpec(net(torch.relu), tiny_data()))
    told = build_task(TaskSpec(net(torch.relu, softmax=True), tiny_data()))
    assert not any("softmax" in note for note in plain.notes)
    assert any("leave it out" in note for note in told.notes)


def test_a_shipped_model_without_weights_is_not_trained() -> None:
    with pytest.raises(ConfigError, match="comes untrained"):
        build_task(TaskSpec("small-cnn", "digits", trained=True))


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.stem(x))
        return self.one(x), self.two(x)


def good_loss(outputs: Any, targets: Any) -> torch.Tensor:
    return F.cross_entropy(outputs[0], targets[0]) + F.mse_loss(outputs[1], targets[1].float())


def good_metric(outputs: Any, targets: Any) -> Any:
    return (outputs[0].argmax(1) == targets[0]).float()


@pytest.mark.parametrize(
    ("loss", "metric", "said"),
    [
        (lambda o, t: torch.tensor(1.0), good_metric, "has no gradient"),
        (lambda o, t: o[0], good_metric, "must return a scalar tensor"),
        (lambda o, t: good_loss(o, t) * float("nan"), good_metric, "The loss of"),
        (lambda o, t: o[7], good_metric, "IndexError"),
        (good_loss, lambda o, t: None, "must return one finite number"),
        (good_loss, lambda o: 1.0, "The metric"),
    ],
)
def test_functions_that_do_not_fit_are_refused_before_anything_is_timed(
    loss: Any, metric: Any, said: str
) -> None:
    build_task(TaskSpec(Heads(), two_output_data(), loss=good_loss, metric=good_metric))
    with pytest.raises(ConfigError, match="don't fit the network or the targets") as caught:
        build_task(TaskSpec(Heads(), two_output_data(), loss=loss, metric=metric))
    assert said in str(caught.value)


@pytest.mark.parametrize(("flags", "expected"), [((), None), (("--trained",), True)])
def test_without_the_flag_a_task_file_says_whether_the_network_is_trained(
    flags: tuple[str, ...], expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def search(model: Any, data: Any, **options: Any) -> Any:
        asked.update(options)
        raise ConfigError("enough")

    monkeypatch.setattr("harness.api.search.search", search)
    ended = CliRunner().invoke(app, ["search", "--task", "t.toml", "--budget", "50%", *flags])
    assert ended.exit_code == 2
    assert asked.get("trained") is expected


def test_the_whole_is_shown_as_often_as_without_a_reduction() -> None:
    """Else comparing with it would cost as many times more as it has more samples."""
    net_, data = net(torch.relu), tiny_data()
    whole = build_task(TaskSpec(net_, data))
    part = build_task(TaskSpec(net_, data, reduction=Reduction(0.1)))
    assert part.recipe.trial_epochs >= whole.recipe.trial_epochs
    assert part.epochs_on_all == whole.recipe.trial_epochs
    asked = {"recipe": {"trial_epochs": 3}, "reduction": Reduction(0.1)}
    assert build_task(TaskSpec(net_, data, **asked)).epochs_on_all == 3

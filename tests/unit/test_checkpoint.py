"""A training that was killed goes on to the weights that it would have come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.data.augment import Augmentation
from harness.data.split import Split
from harness.manner import Manner
from harness.tasks.objective import make_objective
from harness.tasks.recipe import Recipe
from harness.training import SoftTargets, checkpoint, fit
from support.tiny import RECIPE, TinyNet, tiny, tiny_data

TASK, DATA = tiny(), tiny_data()
STEPS = 3
"""An epoch's."""


class Killed(Exception):
    pass


class Dropping(TinyNet):
    """Draws from torch's generator while it is trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(x, 0.3, self.training))


def network(seed: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Dropping().eval()


def split() -> Split:
    images = DATA.train.take(torch.arange(32 * STEPS))
    return replace(images, augmentation=Augmentation(shift=True))


class Watched:
    """Ends a training after some steps, and counts them."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.seen = last, list[int]()

    def __call__(self, done: int, total: int) -> None:
        assert total == 4 * STEPS
        self.seen.append(done)
        if done == self.last:
            raise Killed


def train(
    path: Path | None, watched: Watched | None = None, model: nn.Module | None = None, **given: Any
) -> dict[str, torch.Tensor]:
    torch.rand(1)  # what else has drawn numbers has no part in it
    values = {"epochs": 4, "lr": 0.1, "seed": 5, "recipe": RECIPE, "split": split(), **given}
    made = fit(
        model or network(), values.pop("split"), values.pop("objective", TASK.objective),
        values.pop("recipe"), checkpoint=path, on_batch=watched or Watched(), **values,
    )  # fmt: skip
    assert not made.training
    return made.state_dict()


def killed(path: Path, last: int, **given: Any) -> None:
    with pytest.raises(Killed):
        train(path, Watched(last), **given)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


ADAMW = replace(RECIPE, optimizer="adamw")


@pytest.mark.parametrize("recipe", [RECIPE, ADAMW])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_killed_training_comes_to_the_same_weights(
    recipe: Recipe, channels_last: bool, tmp_path: Path
) -> None:
    given = {"recipe": recipe, "manner": Manner(channels_last, bfloat16=False)}
    whole = train(None, **given)
    killed(tmp_path / "state.pt", 2 * STEPS + 1, **given)
    rest = Watched()
    assert equal(train(tmp_path / "state.pt", rest, **given), whole)
    assert rest.seen == list(range(2 * STEPS + 1, 4 * STEPS + 1))


def test_it_may_be_killed_again_and_again(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        killed(tmp_path / "deeper" / "state.pt", epoch * STEPS + 1)
    assert equal(train(tmp_path / "deeper" / "state.pt"), train(None))


def test_a_long_epoch_is_kept_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_EVERY_S", 0.0)
    killed(tmp_path / "state.pt", STEPS + 2)
    rest = Watched()
    assert equal(train(tmp_path / "state.pt", rest), train(None))
    assert rest.seen[0] == STEPS + 2


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    whole = train(tmp_path / "state.pt")
    rest = Watched()
    assert equal(train(tmp_path / "state.pt", rest), whole)
    assert rest.seen == []


def soft(temperature: float = 2.0, weight: float = 0.5, identity: str = "one") -> SoftTargets:
    return SoftTargets(lambda view: (torch.zeros(32 * STEPS, 3),), temperature, weight, identity)


def other_samples() -> Split:
    return replace(split(), inputs=DATA.train.inputs.flip(0))


CHANGES: dict[str, Callable[[], dict[str, Any]]] = {
    "lr": lambda: {"lr": 0.2},
    "seed": lambda: {"seed": 6},
    "recipe": lambda: {"recipe": replace(RECIPE, weight_decay=0.01)},
    "views": lambda: {"views": 2},
    "soft": lambda: {"soft": soft()},
    "sparse": lambda: {"sparse": ("head.weight",)},
    "initial weights": lambda: {"model": network(4)},
    "samples": lambda: {"split": other_samples()},
    "augmentation": lambda: {"split": replace(split(), augmentation=Augmentation(flip=True))},
    "loss": lambda: {"objective": make_objective(DATA, smooth)},
}


def smooth(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def smooth_metric(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(1) == targets).float()


@pytest.mark.parametrize("what", CHANGES)
def test_the_state_of_another_training_is_not_taken(what: str, tmp_path: Path) -> None:
    killed(tmp_path / "state.pt", 3 * STEPS + 1)
    rest = Watched()
    found = train(tmp_path / "state.pt", rest, **CHANGES[what]())
    assert rest.seen[0] == 1
    assert equal(found, train(None, **CHANGES[what]()))


@pytest.mark.parametrize("change", [{"temperature": 3.0}, {"weight": 0.25}, {"identity": "two"}])
def test_the_state_with_another_teacher_is_not_taken(change: Any, tmp_path: Path) -> None:
    killed(tmp_path / "state.pt", 3 * STEPS + 1, soft=soft())
    rest = Watched()
    train(tmp_path / "state.pt", rest, soft=soft(**change))
    assert rest.seen[0] == 1


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "text"])
def test_a_damaged_state_is_overwritten(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    killed(path, 3 * STEPS + 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(
        {"bit": bytes(content), "cut": path.read_bytes()[:-9], "empty": b"", "text": b"x" * 99}[
            damage
        ]
    )
    rest = Watched()
    assert equal(train(path, rest), train(None))
    assert rest.seen[0] == 1
    assert equal(train(path, rest := Watched()), train(None))
    assert rest.seen == []


def test_where_nothing_can_be_written_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert equal(train(tmp_path / "file" / "state.pt"), train(None))


class Remembering(nn.Module):
    """A loss whose weight of a class depends on how often it was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.ones(3))

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            self.seen += targets.bincount(minlength=3)
        return F.cross_entropy(outputs, targets, self.seen.sum() / self.seen)


def test_what_a_users_loss_remembers_is_kept(tmp_path: Path) -> None:
    objective = make_objective(DATA, Remembering(), smooth_metric)
    killed(tmp_path / "state.pt", 2 * STEPS + 1, objective=objective)
    found = train(tmp_path / "state.pt", objective=objective)
    assert equal(found, train(None, objective=objective))

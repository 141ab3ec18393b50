"""The step `distil`: fine-tuning from labels, a teacher's outputs and its attention."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Work
from harness.compression.steps.distil import Distil
from harness.compression.steps.kept import training_rows
from harness.data.augment import Augmentation
from harness.errors import ConfigError, TaskError
from harness.models.small_cnn import SmallCnn
from harness.tasks.base import Reduction, Task
from harness.tasks.objective import make_objective
from harness.training import SoftTargets, fit, predict, predict_tensors
from support.steps import Heard, context
from support.tiny import TinyNet, tiny
from support.values import Regressor, regression_data, seeded

TASK = tiny()
RUNS: list[int] = []
"""Samples in each run of a `Counted`."""


class Counted(TinyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        RUNS.append(len(x))
        return super().forward(x)


@pytest.fixture(autouse=True)
def _no_runs() -> None:
    RUNS.clear()


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    data = TASK.data.train
    return fit(seeded(Counted, seed=7), data, TASK.objective, TASK.recipe, epochs=3, lr=0.1, seed=0)


def student() -> nn.Module:
    return seeded(lambda: SmallCnn(1, 3)).eval()


def augmented(task: Task = TASK) -> Task:
    train = replace(task.data.train, augmentation=Augmentation(shift=True))
    return replace(task, data=replace(task.data, train=train))


def run(step: Distil, given: Context, work: Work | None = None) -> nn.Module:
    work = work or Work(student())
    made = step.apply(work, step.decide(work, given), given).module
    assert not made.training
    return made


def equal(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def accuracy(model: nn.Module) -> float:
    split = TASK.data.test
    return TASK.score(predict(model, split.chunks()), split).value


def test_options_are_read_from_text() -> None:
    step = parse_step(
        "distil:epochs=3,lr=0.01,temperature=2,weight=0.5,teacher=live,views=4,"
        "features=attention,feature_weight=100,augment=flip+shift,seed=9"
    )
    assert step == Distil(3, 0.01, 2.0, 0.5, "live", 4, "attention", 100.0, "flip+shift", 9)
    assert Distil().options() == {
        "epochs": None, "lr": None, "temperature": 4.0, "weight": 0.7, "teacher": "cached",
        "views": None, "features": "none", "feature_weight": 500.0, "augment": None, "seed": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=0", "epochs must be a whole number from 1"),
        ("lr=0", "lr must be a number above 0"),
        ("weight=1.5", "weight must be a number from 0 to 1"),
        ("teacher=dead", "teacher must be one of cached, live"),
        ("features=all", "features must be one of none, attention"),
        ("augment=rotate", "augment must be none, or some of flip, shift, cutout joined by"),
    ],
)
def test_options_that_do_not_fit_are_told(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_step(f"distil:{text}")


def test_what_is_settled_is_the_recipes_unless_it_is_asked_for(teacher: nn.Module) -> None:
    given, work = context(TASK, teacher, seed=11), Work(student())
    found = Distil().decide(work, given)
    assert (found["epochs"], found["lr"], found["seed"]) == (1, 0.05, 11)
    assert (found["samples"], found["of"], found["layers"]) == (320, 320, [])
    assert {"bfloat16", "channels_last"} <= found.keys()
    asked = Distil(epochs=2, lr=0.5, seed=3, features="attention").decide(work, given)
    assert (asked["epochs"], asked["lr"], asked["seed"]) == (2, 0.5, 3)
    assert asked["layers"] == [["conv1", "conv1"], ["conv2", "conv2"]]


def test_a_student_of_another_kind_learns_and_nothing_given_is_changed(teacher: nn.Module) -> None:
    work, dense = Work(student()), copy.deepcopy(teacher)
    made = run(Distil(epochs=3), context(TASK, teacher), work)
    assert accuracy(made) > max(0.6, accuracy(work.module))
    assert equal(work.module, student())
    assert equal(teacher, dense)
    assert not teacher.training


def test_it_trains_as_the_training_loop_does_with_the_teachers_outputs(teacher: nn.Module) -> None:
    task, step = augmented(), Distil(epochs=2, temperature=2.0, weight=0.4, seed=5)
    split = task.data.train

    def outputs(view: int) -> tuple[torch.Tensor, ...]:
        return predict_tensors(teacher, split.chunks(view=view))

    wanted = fit(
        student(), split, task.objective, task.recipe, epochs=2, lr=0.05, seed=5,
        soft=SoftTargets(outputs, 2.0, 0.4),
    )  # fmt: skip
    assert equal(run(step, context(task, teacher)), wanted)


def test_without_weight_labels_alone_count_and_the_teacher_is_not_asked(teacher: nn.Module) -> None:
    heard = Heard()
    made = run(Distil(weight=0), context(TASK, teacher, heard))
    wanted = fit(student(), TASK.data.train, TASK.objective, TASK.recipe, epochs=1, lr=0.05, seed=0)
    assert equal(made, wanted)
    assert heard.phases == ["fine-tuning"]
    assert RUNS == []


def test_cores_are_held_and_every_step_is_told(teacher: nn.Module) -> None:
    heard = Heard()
    run(Distil(epochs=2), context(TASK, teacher, heard))
    assert heard.steps == [(step, 20) for step in range(1, 21)]
    assert heard.breaths >= 20 + 2  # the teacher's batches, too
    assert heard.held
    assert not heard.holding
    assert heard.phases == ["distilling"]


def test_seeds_settle_everything(teacher: nn.Module) -> None:
    step, given = Distil(), context(TASK, teacher, seed=4)
    first = run(step, given)
    torch.rand(3)
    assert equal(run(step, given), first)
    assert equal(run(Distil(seed=4), context(TASK, teacher, seed=8)), first)
    assert not equal(run(Distil(seed=5), given), first)


def test_structure_is_rebuilt_without_training(teacher: nn.Module) -> None:
    work, given = Work(student()), context(TASK, teacher)
    assert Distil().rebuild(work, {}, given) is work


def test_zeros_stay(teacher: nn.Module) -> None:
    model = student()
    with torch.no_grad():
        model.conv2.weight[:, ::2] = 0  # type: ignore[union-attr, index, operator]
    made = run(Distil(), context(TASK, teacher), Work(model, sparse=("conv2.weight",)))
    zeros = made.conv2.weight == 0  # type: ignore[union-attr]
    assert zeros[:, ::2].all()  # type: ignore[index]
    assert not zeros[:, 1::2].any()  # type: ignore[index]


# The teacher's outputs


ATTENTION = {"features": "attention"}


@pytest.mark.parametrize(
    ("options", "task", "epochs"),
    [
        ({}, TASK, 1),
        ({}, augmented(), 3),
        ({"views": 2}, augmented(), 2),
        ({"augment": "none"}, augmented(), 1),
        ({"teacher": "live"}, TASK, 3),
        (ATTENTION, TASK, 3),
        ({**ATTENTION, "weight": 0}, TASK, 3),
        ({**ATTENTION, "weight": 0, "feature_weight": 0}, TASK, 0),
    ],
)
def test_the_teacher_is_run_as_seldom_as_possible(
    options: Any, task: Task, epochs: int, teacher: nn.Module
) -> None:
    given, work, step = context(task, teacher), Work(student()), Distil(epochs=3, **options)
    decision = step.decide(work, given)
    RUNS.clear()
    step.apply(work, decision, given)
    found = 2 if epochs and "features" in options else 0  # to find the layers
    assert sum(RUNS) - found == epochs * len(task.data.train)


def test_a_live_teacher_teaches_the_same(teacher: nn.Module) -> None:
    given = context(augmented(), teacher)
    one, other = (run(Distil(teacher=kind), given).state_dict() for kind in ("cached", "live"))
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-4) for name in one)


def test_attention_makes_a_difference_and_a_student_still_learns(teacher: nn.Module) -> None:
    given = context(TASK, teacher)
    made = run(Distil(epochs=3, features="attention"), given)
    assert not equal(made, run(Distil(epochs=3), given))
    assert accuracy(made) > 0.6
    assert not any(module._forward_hooks for module in made.modules())


class Killed(Exception):
    pass


class Killing(Heard):
    """Ends a step after some batches."""

    def advance(self, done: int, total: int) -> None:
        super().advance(done, total)
        if done == 25:
            raise Killed


@pytest.mark.parametrize("views", [None, 3])
def test_a_killed_step_goes_on_and_the_teacher_is_not_asked_again(
    views: int | None, teacher: nn.Module, tmp_path: Path
) -> None:
    task, step = augmented(), Distil(epochs=4, views=views)
    whole = run(step, context(task, teacher))
    with pytest.raises(Killed):
        run(step, context(task, teacher, Killing(), folder=tmp_path / "step"))
    heard = Heard()
    given, work = context(task, teacher, heard, folder=tmp_path / "step"), Work(student())
    decision = step.decide(work, given)
    RUNS.clear()
    assert equal(step.apply(work, decision, given).module, whole)
    assert heard.steps[0] == (21, 40)
    # The third view was there; without `views` the fourth epoch's is a new one.
    assert sum(RUNS) == (320 if views is None else 0)
    names = sorted(path.name for path in (tmp_path / "step").glob("teacher-*"))
    assert [name.rpartition("-")[2] for name in names] == (
        ["3.safetensors"] if views is None else [f"{view}.safetensors" for view in range(3)]
    )


@pytest.mark.parametrize("damage", ["cut", "bit", "names"])
def test_damaged_outputs_are_computed_anew(damage: str, teacher: nn.Module, tmp_path: Path) -> None:
    given = context(TASK, teacher, folder=tmp_path)
    whole = run(Distil(), given)
    (tmp_path / "checkpoint.pt").unlink()
    (path,) = tmp_path.glob("teacher-*")
    content = bytearray(path.read_bytes())
    content[-2] ^= 64  # of the last number's exponent
    other = save({"other": torch.zeros(320, 3)})
    path.write_bytes({"cut": content[:20], "bit": bytes(content), "names": other}[damage])
    assert equal(run(Distil(), given), whole)


def test_another_teachers_outputs_are_not_taken(teacher: nn.Module, tmp_path: Path) -> None:
    other = seeded(TinyNet, seed=1).eval()
    run(Distil(), context(TASK, other, folder=tmp_path))
    found = run(Distil(), context(TASK, teacher, folder=tmp_path))
    assert equal(found, run(Distil(), context(TASK, teacher)))
    assert not equal(found, run(Distil(), context(TASK, other)))


class Failing(TinyNet):
    """Fails on all batches but small ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise KeyError("large")
        return super().forward(x)


@pytest.mark.parametrize("reduction", [Reduction(), Reduction(0.5, "herding")])
def test_a_teacher_that_fails_on_some_samples_is_told(reduction: Reduction) -> None:
    failing, task = seeded(Failing).eval(), replace(TASK, reduction=reduction)
    with pytest.raises(TaskError, match="teacher can't be run on all training samples: KeyError"):
        run(Distil(), context(task, failing))


def test_a_teacher_that_is_not_finite_is_told_apart_from_a_large_learning_rate() -> None:
    spoilt = seeded(TinyNet).eval()
    spoilt.head.weight.data[0] = torch.nan  # type: ignore[union-attr, operator]
    with pytest.raises(TaskError, match="320 of 320 training samples for which they are not"):
        run(Distil(), context(TASK, spoilt))


# Which samples


@pytest.mark.parametrize("method", ["random", "herding", "k-center"])
def test_the_tasks_part_of_the_samples_is_trained_on(
    method: str, teacher: nn.Module, tmp_path: Path
) -> None:
    task = replace(TASK, reduction=Reduction(0.25, method))
    given, work = context(task, teacher, folder=tmp_path), Work(student())
    decision = Distil(weight=0).decide(work, given)
    assert (decision["samples"], decision["of"]) == (80, 320)
    RUNS.clear()
    heard = Heard()
    again = context(task, teacher, heard, folder=tmp_path)
    Distil(weight=0).apply(work, decision, again)
    assert heard.steps[-1] == (3, 3)
    assert RUNS == []  # which samples they are was kept


def test_all_steps_train_on_the_same_part(teacher: nn.Module) -> None:
    given = context(replace(TASK, reduction=Reduction(0.25, "random")), teacher)
    found, other_step, other_pipeline = (
        training_rows(one).rows
        for one in (given, replace(given, seed=9), replace(given, part_seed=9))
    )
    assert found is not None
    assert torch.equal(found, other_step)
    assert not torch.equal(found, other_pipeline)


def test_augmentation_is_for_images() -> None:
    data = regression_data()
    task = replace(TASK, data=data, objective=make_objective(data))
    model = seeded(Regressor).eval()
    with pytest.raises(
        ConfigError, match=r"augment needs images. Received: samples of shape \[5\]"
    ):
        Distil(augment="flip").decide(Work(model), context(task, model))


def test_augmentation_asked_for_takes_the_place_of_the_tasks(teacher: nn.Module) -> None:
    flipped = run(Distil(augment="flip"), context(augmented(), teacher))
    assert equal(flipped, run(Distil(augment="flip"), context(TASK, teacher)))
    assert not equal(flipped, run(Distil(), context(TASK, teacher)))


# Other outputs


@pytest.mark.parametrize("kind", ["cached", "live"])
def test_values_are_imitated_by_the_objectives_distance(kind: str) -> None:
    data = regression_data(columns=2)
    recipe = replace(TASK.recipe, optimizer="adamw", batch=16)
    task = replace(TASK, data=data, objective=make_objective(data), recipe=recipe)
    dense = seeded(lambda: Regressor(2), seed=3).eval()
    work = Work(seeded(lambda: Regressor(2)).eval())
    step = Distil(epochs=20, lr=0.02, weight=1.0, teacher=kind)
    made = run(step, context(task, dense), work)
    (found,), (wanted,) = (predict(x, data.test.chunks()) for x in (made, dense))
    assert (((found - wanted) ** 2).mean(0) / wanted.var(0) < 0.3).all()


def test_a_network_of_other_outputs_than_the_teachers_is_told(teacher: nn.Module) -> None:
    work: Any = Work(SmallCnn(1, 4).eval())
    with pytest.raises(
        ConfigError, match=r"what the teacher returns, \[N, 3\]. Received: \[N, 4\]"
    ):
        Distil().decide(work, context(TASK, teacher))


def test_a_teacher_without_maps_is_told_before_training() -> None:
    data = regression_data()
    task = replace(TASK, data=data, objective=make_objective(data))
    model = seeded(Regressor).eval()
    with pytest.raises(ConfigError, match="the teacher has none"):
        Distil(features="attention").decide(Work(model), context(task, model))

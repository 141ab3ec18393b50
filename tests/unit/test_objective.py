"""From names and functions to a loss, a metric and a distance to the teacher."""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness.data.split import Data, Split
from harness.errors import ConfigError, TaskError
from harness.importing import load_object
from harness.tasks.identity import identity_of
from harness.tasks.losses import RelativeError, UserLoss, softened, squared
from harness.tasks.objective import as_tuple, make_objective, one_or_all
from harness.training import fit, predict
from support.tiny import tiny, tiny_data
from support.values import regression_data, two_output_data

CLASSES, VALUES, OTHER = tiny_data(), regression_data(2), two_output_data()
SOURCE = """\
import torch
WEIGHT = 3.0
class Losses:
    @staticmethod
    def weighted(outputs, targets):
        return WEIGHT * torch.nn.functional.cross_entropy(outputs, targets)
def share(outputs, targets):
    return (outputs.argmax(1) == targets).float()
"""


def own_loss(outputs: Any, targets: Any) -> torch.Tensor:
    (logits, values), (classes, truth) = outputs, targets
    return F.cross_entropy(logits, classes) + F.mse_loss(values.float(), truth)


def own_metric(outputs: Any, targets: Any) -> Any:
    return (outputs[0].argmax(1) == targets[0]).float()


def test_classes_are_trained_on_cross_entropy_and_judged_by_accuracy() -> None:
    made = make_objective(CLASSES)
    assert made.loss is F.cross_entropy
    assert (made.metric.name, made.imitation) == ("accuracy", softened)
    assert made.classifies
    assert made.uses_temperature


def test_values_are_trained_on_squared_error_and_judged_by_r2() -> None:
    made = make_objective(VALUES)
    assert isinstance(made.loss, RelativeError)
    assert (made.loss.kind, made.metric.name, made.imitation) == ("mse", "r2", squared)
    assert not made.classifies
    assert not made.uses_temperature


def test_other_targets_take_functions_and_imitate_all_outputs() -> None:
    made = make_objective(OTHER, own_loss, own_metric)
    assert isinstance(made.loss, UserLoss)
    assert (made.metric.name.partition("#")[0], made.imitation) == ("own_metric", squared)
    assert not made.classifies
    assert not made.uses_temperature


@pytest.mark.parametrize(("loss", "metric"), [(None, None), (own_loss, None), (None, own_metric)])
def test_other_targets_need_both_loss_and_metric(loss: Any, metric: Any) -> None:
    with pytest.raises(ConfigError, match="a loss and a metric are needed.*--loss.*--metric"):
        make_objective(OTHER, loss, metric)


@pytest.mark.parametrize(
    ("data", "loss", "metric"),
    [
        (CLASSES, "cross_entropy", "balanced_accuracy"),
        (CLASSES, None, "f1_macro"),
        (VALUES, "huber", "neg_mean_absolute_error"),
        (VALUES, "mae", "neg_root_mean_squared_error"),
    ],
)
def test_losses_and_metrics_are_found_by_name(data: Any, loss: Any, metric: str) -> None:
    made = make_objective(data, loss, metric)
    assert made.metric.name == metric
    if isinstance(made.loss, RelativeError):
        assert made.loss.kind == loss


@pytest.mark.parametrize(
    ("data", "options", "named"),
    [
        (CLASSES, {"loss": "mse"}, r"`--loss` must be one of cross_entropy.*'mse'"),
        (CLASSES, {"metric": "r2"}, r"`--metric` must be one of accuracy, balanced.*'r2'"),
        (VALUES, {"loss": "cross_entropy"}, r"`--loss` must be one of mse, mae, huber"),
        (VALUES, {"metric": "acuracy"}, r"`--metric` must be one of r2, neg_mean.*'acuracy'"),
        (OTHER, {"loss": "mse", "metric": own_metric}, r"\(none for these targets\).*'mse'"),
        (VALUES, {"loss": "nowhere.py:loss"}, "nowhere.py.*can't be read"),
        (VALUES, {"metric": "math:pi"}, "`--metric` must name a function.*'math:pi', a float"),
        (VALUES, {"loss": "math:sine"}, "math has no 'sine'.*Did you mean 'sin'"),
        (VALUES, {"loss": ":"}, "'pkg.module:name'"),
    ],
)
def test_a_wrong_name_is_refused_with_what_there_is(
    data: Any, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        make_objective(data, **options)


def test_functions_are_found_by_file_and_name(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SOURCE)
    place = str(tmp_path / "own.py")
    made = make_objective(CLASSES, f"{place}:Losses.weighted", f"{place}:share")
    outputs, targets = torch.eye(3), torch.tensor([0, 1, 1])
    expected = 3.0 * float(F.cross_entropy(outputs, targets))
    assert float(made.loss(outputs, targets)) == pytest.approx(expected)
    assert made.metric.judge((outputs.double(),), targets)[0] == pytest.approx(2 / 3)


def test_a_file_that_fails_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import math\n\nx = math.nope\n")
    with pytest.raises(ConfigError, match=r"own\.py:3: AttributeError"):
        make_objective(CLASSES, f"{tmp_path / 'own.py'}:loss")


def test_an_own_imitation_replaces_the_default_and_its_temperature() -> None:
    def distance(student: Any, teacher: Any) -> torch.Tensor:
        return (student - teacher).abs().mean()

    made = make_objective(CLASSES, imitation=distance)
    assert not made.uses_temperature
    assert made.classifies
    assert float(made.imitation(torch.ones(2, 3), torch.zeros(2, 3), 9.0, ())) == 1.0


def test_an_own_imitation_that_fails_is_named() -> None:
    made = make_objective(CLASSES, imitation=lambda student, teacher: student[7])
    with pytest.raises(TaskError, match="The imitation failed: IndexError"):
        made.imitation(torch.ones(2, 3), torch.zeros(2, 3), 1.0, ())


def test_functions_that_compute_something_else_are_told_apart() -> None:
    def bound(scale: float) -> Any:
        return lambda outputs, targets: scale * (outputs - targets).square().mean()

    class Own(torch.nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale

    losses = [
        bound(1.0), bound(2.0), Own(1.0), Own(2.0),
        functools.partial(torch.nn.functional.huber_loss, delta=1.0),
        functools.partial(torch.nn.functional.huber_loss, delta=2.0),
        torch.nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss(label_smoothing=0.3),
        torch.nn.CrossEntropyLoss(weight=torch.ones(3)),
    ]  # fmt: skip
    assert len({identity_of(one) for one in losses}) == len(losses)
    assert identity_of(bound(1.0)) == identity_of(bound(1.0))
    assert identity_of(Own(1.0)) == identity_of(Own(1.0))


class Counting(torch.nn.Module):
    """A loss that weighs later calls more."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, outputs: Any, targets: Any) -> torch.Tensor:
        self.calls += 1
        return self.calls * torch.nn.functional.cross_entropy(outputs, targets)


def test_a_loss_that_remembers_starts_anew_in_every_training() -> None:
    task, loss = tiny(), Counting()
    objective = make_objective(task.data, loss)
    found = []
    for _ in range(2):
        network = task.model()
        fit(network, task.data.train, objective, task.recipe, epochs=1, lr=0.05, seed=1)
        outputs = predict(network, task.data.validation.chunks())
        found.append((network.conv1.weight, objective.score(outputs, task.data.validation).loss))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert loss.calls == 0


def test_a_loss_with_parameters_of_its_own_is_refused() -> None:
    class Weighing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.balance = torch.nn.Parameter(torch.zeros(2))

    with pytest.raises(ConfigError, match=r"`--loss` has parameters to train \(balance\)"):
        make_objective(CLASSES, Weighing())
    with pytest.raises(ConfigError, match="`imitation` has parameters"):
        make_objective(CLASSES, imitation=Weighing())
    make_objective(CLASSES, Weighing().requires_grad_(False))


def test_a_loss_that_cannot_be_copied_is_told() -> None:
    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __call__(self, outputs: Any, targets: Any) -> torch.Tensor:
            return outputs.sum()

    with pytest.raises(ConfigError, match="copying it"):
        make_objective(CLASSES, Locked())


@pytest.mark.parametrize("name", ["training", "validation", "test"])
def test_r2_needs_targets_that_differ_in_every_split(name: str) -> None:
    def part(constant: bool) -> Split:
        targets = torch.arange(12.0).view(6, 2)
        targets[:, 1] = 3.0 if constant else targets[:, 1]
        return Split(torch.zeros(6, 4), targets)

    splits = {one: part(one == name) for one in ("training", "validation", "test")}
    data = Data("d", splits["training"], splits["validation"], splits["test"], "regression", 2, "")
    with pytest.raises(ConfigError, match=f"Target 2 of 2 is the same for all 6 {name} samples"):
        make_objective(data)
    make_objective(data, metric="neg_mean_absolute_error")


def test_an_edited_file_is_another_function(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    found = []
    for helper in ("1.0", "2.0"):
        source = f"def size():\n    return {helper}\ndef loss(o, t):\n    return size() * o.sum()\n"
        path.write_text(source)
        found.append(identity_of(load_object(f"{path}:loss", "--loss")))
    assert found[0] != found[1]


def test_outputs_that_only_the_user_knows_are_neither_softened_nor_argmaxed() -> None:
    made = make_objective(CLASSES, loss=own_loss, metric=own_metric, logits=False)
    assert not made.classifies
    assert not made.uses_temperature
    assert not made.bfloat16
    one = torch.tensor([[1.0], [3.0]])
    assert float(made.imitation(one, one + 1, 4.0, (torch.ones(1, 1),))) == 1.0


def test_what_is_searched_for_is_told_apart() -> None:
    made = [
        make_objective(CLASSES), make_objective(CLASSES, metric="f1_macro"),
        make_objective(CLASSES, loss=own_loss), make_objective(VALUES),
        make_objective(VALUES, "huber"), make_objective(VALUES, imitation=own_loss),
    ]  # fmt: skip
    assert len({one.description for one in made}) == len(made)
    assert make_objective(VALUES, "huber").description == made[4].description
    # A default counts as its name.
    accuracy = make_objective(CLASSES, "cross_entropy", "accuracy")
    assert accuracy.description == made[0].description
    assert make_objective(VALUES, "mse", "r2").description == made[3].description


def test_a_score_has_the_loss_of_the_objective() -> None:
    objective = make_objective(VALUES, "mae")
    truth = VALUES.test.targets
    assert isinstance(truth, torch.Tensor)
    spread = objective.loss.spread  # type: ignore[attr-defined]
    score = objective.score((truth.numpy() + np.array(spread),), VALUES.test)
    assert score.loss == pytest.approx(1.0, rel=1e-4)
    assert score.n == 60
    assert score.lo <= score.value <= score.hi < 1


def test_a_score_of_several_outputs() -> None:
    objective = make_objective(OTHER, own_loss, own_metric)
    classes, values = OTHER.test.targets
    logits = F.one_hot(classes, 3).numpy() * 50.0
    score = objective.score((logits, values.numpy()), OTHER.test)
    assert (score.value, score.hi) == (1.0, 1.0)
    assert score.loss == pytest.approx(0.0, abs=1e-9)


def test_a_users_loss_scores_what_it_trains_on_float32() -> None:
    weighted = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    assert isinstance(CLASSES.test.targets, torch.Tensor)
    logits = F.one_hot(CLASSES.test.targets, 3).numpy() * 2.0
    score = make_objective(CLASSES, weighted).score((logits,), CLASSES.test)
    assert score.loss == pytest.approx(np.log(np.exp(2) + 2) - 2, rel=1e-5)


def test_a_loss_that_fails_on_outputs_is_named_when_they_are_scored() -> None:
    def broken(outputs: Any, targets: Any) -> torch.Tensor:
        raise RuntimeError("no such column")

    with pytest.raises(TaskError, match="The loss failed: RuntimeError: no such column"):
        make_objective(VALUES, broken).score((np.zeros((60, 2)),), VALUES.test)


def test_scoring_leaves_no_graph_and_reads_only_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[bool] = []

    def loss(outputs: Any, targets: Any) -> torch.Tensor:
        flags.append(torch.is_grad_enabled())
        assert len(targets) == 4
        return outputs.mean()

    rows = torch.tensor([3, 5, 9, 1])
    part = replace(VALUES.test, rows=rows)
    make_objective(VALUES, loss).score((VALUES.test.targets[rows].numpy(),), part)  # type: ignore[index]
    assert flags == [False]


def test_outputs_are_one_tensor_or_a_tuple() -> None:
    one, two = torch.ones(1), torch.ones(2)
    assert as_tuple(one) == (one,)
    assert as_tuple([one, two]) == (one, two)  # type: ignore[arg-type]  # a list, as some return
    assert one_or_all((one,)) is one
    assert one_or_all((one, two)) == (one, two)

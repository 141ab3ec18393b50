"""What files compute on top: predictions in the targets' own unit, whatever that is."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from harness.export import Parity, check_parity, export_onnx
from harness.models.finals import InUnits, finished, unfinished
from harness.models.onnx_tensors import Softmax
from harness.tasks.losses import RelativeError
from harness.tasks.spec import TaskSpec, build_task
from harness.training import fit, predict
from support.values import FEATURES, Regressor, seeded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.split import Split
    from harness.tasks.base import Task
    from harness.tasks.objective import Arrays

UNITS = {
    "large": ((1e6, 1e6), (0.0, 0.0)),
    "small": ((1e-6, 1e-6), (0.0, 0.0)),
    "mixed": ((1e6, 1e-6), (0.0, 0.0)),
    "large mean": ((1.0, 1.0), (0.0, 1e4)),
}
"""Unit of each column, and what is added to it, in that unit."""
PLAIN = ((1.0, 1.0), (0.0, 0.0))
WEIGHTS = np.array([[2.0, -1.0, 0.0, 1.0, 0.5], [0.0, 1.0, 3.0, 0.0, -1.0]])
NOISE = 0.3


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of training and exporting: the file's outputs in units of the targets."""

    task: Task
    outputs: Arrays
    parity: Parity
    r2: float
    mae: float


def pair(unit: tuple[float, ...], mean: tuple[float, ...]) -> tuple[NDArray[np.float32], ...]:
    """Return features `[400, 5]` and noisy linear values of them `[400, 2]`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, FEATURES))
    y = x @ WEIGHTS.T + NOISE * rng.normal(size=(400, 2)) + mean
    return x.astype(np.float32), (y * unit).astype(np.float32)


def exported(task: Task, network: nn.Module, split: Split) -> tuple[Arrays, Parity]:
    """Return what a network's file gives for a split, and how far from what the network does."""
    whole, samples = finished(network, task.network.finals), next(split.chunks(len(split)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        export_onnx(whole, samples, path)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs = tuple(session.run(None, {"input": samples.numpy()}))
    return outputs, check_parity(predict(whole, split.chunks()), outputs, classifies=False)


@functools.cache
def learned(unit: tuple[float, ...], mean: tuple[float, ...]) -> Learned:
    network = seeded(lambda: Regressor(outputs=2))
    tasks = [
        build_task(TaskSpec(network, pair(unit, mean), metric=metric))
        for metric in ("r2", "neg_mean_absolute_error")
    ]
    task, split = tasks[0], tasks[0].data.test
    trained = fit(
        task.model(), task.data.train, task.objective, task.recipe, epochs=15, lr=5e-3, seed=0
    )
    outputs, parity = exported(task, trained, split)
    r2, mae = (one.score(outputs, split) for one in tasks)
    assert r2.loss == pytest.approx(mae.loss)
    assert r2.loss == pytest.approx(1 - r2.value, rel=0.5)  # both in deviations of the targets
    return Learned(task, outputs, parity, r2.value, -mae.value)


@pytest.mark.parametrize("name", UNITS)
def test_a_network_learns_as_well_whatever_the_targets_unit(name: str) -> None:
    plain, found = learned(*PLAIN), learned(*UNITS[name])
    assert plain.r2 > 0.9
    assert found.r2 == pytest.approx(plain.r2, abs=0.01)


@pytest.mark.parametrize("name", UNITS)
def test_a_file_predicts_in_the_targets_unit(name: str) -> None:
    (unit, mean), plain, found = UNITS[name], learned(*PLAIN), learned(*UNITS[name])
    assert found.parity.passed
    back = found.outputs[0] / np.array(unit) - np.array(mean)
    assert back == pytest.approx(plain.outputs[0], abs=0.2)
    errors = np.abs(back - pair(*PLAIN)[1][found.task.data.test.rows]).mean(0)
    assert (errors < 2 * NOISE).all()
    assert found.mae == pytest.approx((errors * unit).mean(), rel=0.01)


def test_a_file_without_what_comes_on_top_is_in_another_unit() -> None:
    found = learned(*UNITS["large"])
    bare = unfinished(found.outputs, found.task.network.finals)
    assert found.task.score(found.outputs, found.task.data.test).value > 0.9
    assert found.task.score(bare, found.task.data.test).value < 0.1


@pytest.mark.parametrize("unit", [1e6, 1.0, 1e-6])
def test_a_trained_network_keeps_its_unit(unit: float) -> None:
    network = nn.Sequential(nn.Linear(FEATURES, 2, bias=False), nn.Identity()).eval()
    network[0].weight.data = torch.tensor(WEIGHTS * unit, dtype=torch.float32)
    task = build_task(TaskSpec(network, pair((unit, unit), (0.0, 0.0)), trained=True))
    assert task.network.pretrained
    assert not task.network.finals
    assert isinstance(task.objective.loss, RelativeError)
    assert not task.objective.loss.standardised
    outputs, parity = exported(task, task.model(), task.data.test)
    assert parity.passed
    inputs = next(task.data.test.chunks(len(task.data.test))).numpy()
    assert outputs[0] == pytest.approx(inputs @ WEIGHTS.T * unit, rel=1e-4, abs=1e-5 * unit)
    score = task.score(outputs, task.data.test)
    assert score.value > 0.95
    assert score.loss == pytest.approx(1 - score.value, rel=0.5)


class Same(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x, x


def there_and_back(x: torch.Tensor, final: InUnits | Softmax) -> Arrays:
    """Return the outputs of a network with something on top of the second one, taken off again."""
    whole = finished(Same(), {1: final})
    outputs = tuple(part.numpy() for part in whole(x))
    assert not np.allclose(outputs[1], x.numpy())
    return unfinished(outputs, {1: final})


@pytest.mark.parametrize("shape", [(50, 1), (50,), (50, 3)], ids=str)
@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_units_are_taken_off_exactly(shape: tuple[int, ...], unit: float) -> None:
    columns = shape[1] if len(shape) > 1 else 1
    final = InUnits((2.0 * unit,) * columns, tuple(unit * (i + 1) for i in range(columns)))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    first, second = there_and_back(x, final)
    assert np.array_equal(first, x.numpy())
    assert second.shape == shape
    assert second == pytest.approx(x.numpy(), abs=1e-5)


@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log softmax"])
def test_logits_come_back_but_for_a_constant_per_row(log: bool) -> None:
    x = 5 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    first, second = there_and_back(x, Softmax(1, log))
    assert np.array_equal(first, x.numpy())
    constant = second - x.numpy()
    assert constant == pytest.approx(np.repeat(constant[:, :1], 4, axis=1), abs=1e-4)
    assert np.ptp(constant[:, 0]) > 1  # each row has its own

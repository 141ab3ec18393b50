"""Attention transfer between networks that may be of quite different kinds."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import last_channels, prune
from harness.errors import ConfigError, TaskError
from harness.export import onnx_bytes
from harness.manner import Manner
from harness.models.resnet import ResNet
from harness.models.small_cnn import SmallCnn
from harness.training import SoftTargets, fit
from harness.training.features import Features, Pair, Place, attention, attention_pairs
from support.networks import network
from support.tiny import RECIPE, TinyNet, tiny, tiny_data
from support.values import seeded

TASK, DATA = tiny(), tiny_data()
EXAMPLE = TASK.example_input(2)


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# What is compared


def test_attention_is_the_sum_of_squares_over_channels_of_norm_one() -> None:
    maps = images(3, 5, 4, 2)
    found = attention(maps).numpy()
    wanted = (maps.numpy() ** 2).sum(1).reshape(3, 8)
    np.testing.assert_allclose(
        found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-5
    )


def test_the_last_convolution_of_each_size_is_compared() -> None:
    pairs = attention_pairs(TinyNet(), SmallCnn(1, 3), EXAMPLE)
    assert pairs == (
        Pair(Place("conv1", 0), Place("conv1", 0), (8, 8)),
        Pair(Place("conv2", 0), Place("conv2", 0), (4, 4)),
    )


def names(teacher: nn.Module, student: nn.Module, example: torch.Tensor) -> list[tuple[str, str]]:
    pairs = attention_pairs(teacher.eval(), student.eval(), example)
    return [(pair.teacher.layer, pair.student.layer) for pair in pairs]


def test_a_residual_network_teaches_a_plain_one_stage_by_stage() -> None:
    found = names(seeded(lambda: ResNet(3, 3, 10)), SmallCnn(3, 10), images(2, 3, 32, 32))
    assert [student for _, student in found] == ["conv1", "conv2", "conv3"]
    assert [teacher.split(".")[0] for teacher, _ in found] == ["layer1", "layer2", "layer3"]
    assert all(teacher.endswith("2.conv2") for teacher, _ in found)


def test_a_pruned_copy_is_matched_with_its_origin() -> None:
    whole, example = network("residual")
    graph = pruning_graph(whole, example)
    widths = {group.name: max(1, group.width // 2) for group in graph.groups}
    smaller = prune(whole, graph, example, last_channels(graph, widths))
    (found,) = names(whole, smaller, images(2, 3, 8, 8))
    assert found == ("body.2.0", "body.2.0")


def test_a_layer_that_runs_twice_is_read_where_it_runs_last() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x)).flatten(1)

    (first, second) = attention_pairs(Twice(), Twice(), images(2, 3, 8, 8))
    assert (first.size, first.teacher) == ((4, 4), Place("conv", 0))
    assert (second.size, second.student) == ((2, 2), Place("conv", 1))


@pytest.mark.parametrize("name", ["gated", "unet", "transformer", "shared", "larger", "detector"])
def test_other_networks_are_compared_with_themselves(name: str) -> None:
    model, example = network(name)
    pairs = attention_pairs(model, copy.deepcopy(model), torch.cat([example, example]))
    assert pairs
    assert all(pair.teacher == pair.student and pair.size > (1, 1) for pair in pairs)


@pytest.mark.parametrize("name", ["perceptron", "sequence", "volume", "gru"])
def test_networks_without_maps_are_told(name: str) -> None:
    model, example = network(name)
    with pytest.raises(ConfigError, match=r"the teacher has none.*Distil without features"):
        attention_pairs(model, model, torch.cat([example, example]))


def test_networks_without_maps_of_one_size_are_told() -> None:
    small, large = nn.Conv2d(1, 2, 3, 4), nn.Conv2d(1, 2, 3)
    with pytest.raises(ConfigError, match="the teacher's 6x6, the network's 2x2"):
        attention_pairs(large, small, EXAMPLE)


def test_a_network_that_fails_is_told() -> None:
    with pytest.raises(TaskError, match="The network doesn't run: RuntimeError"):
        attention_pairs(nn.Conv2d(7, 2, 3), nn.Conv2d(1, 2, 3), EXAMPLE)


# In training


def features(weight: float = 1e4, teacher: nn.Module | None = None) -> Features:
    teacher = teacher or seeded(TinyNet, seed=7).eval()
    return Features(teacher, attention_pairs(teacher, TASK.model(), EXAMPLE), weight)


def train(given: Features | None, model: nn.Module | None = None, **options: Any) -> nn.Module:
    split = DATA.train.take(torch.arange(96))
    return fit(
        model or TASK.model(), split, TASK.objective, RECIPE,
        **{"epochs": 2, "lr": 0.05, "seed": 0, "features": given, **options},
    )  # fmt: skip


def distance(student: nn.Module, given: Features) -> float:
    with torch.no_grad(), given.watch(student.eval()) as watch:
        inputs = DATA.test.batch(torch.arange(64))
        watch.teach(inputs)
        student(inputs)
        return float(watch.loss() / given.weight)


def test_the_loss_is_the_weighted_sum_of_mean_squared_differences() -> None:
    given, student, inputs = features(3.0), TASK.model(), DATA.test.batch(torch.arange(8))
    with torch.no_grad():
        maps = []
        for model in (given.teacher, student):
            first = model.conv1(inputs)  # type: ignore[operator]
            second = model.conv2(model.bn1(first).relu())  # type: ignore[operator]
            maps.append((attention(first), attention(second)))
        wanted = sum(float((a - b).square().mean()) for a, b in zip(*maps, strict=True))
        with given.watch(student) as watch:
            watch.teach(inputs)
            student(inputs)
            assert float(watch.loss()) == pytest.approx(3 * wanted, rel=1e-4)


def test_a_student_comes_to_look_where_its_teacher_looks() -> None:
    given = features()
    assert distance(train(given), given) < 0.7 * distance(train(None), given)


def test_without_weight_nothing_changes() -> None:
    states = [train(given).state_dict() for given in (None, features(0.0))]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("manner", [Manner(True, True), Manner(True, False)])
def test_it_trains_in_every_manner(manner: Manner) -> None:
    given = features()
    made = train(given, manner=manner)
    assert distance(made, given) < distance(TASK.model(), given)


def test_the_teacher_runs_once_a_batch_for_outputs_and_features_alike() -> None:
    runs: list[bool] = []

    class Counted(TinyNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            runs.append(torch.is_inference_mode_enabled())
            return super().forward(x)

    given = features(teacher=seeded(Counted, seed=7).eval())
    runs.clear()
    train(given, soft=SoftTargets(given.teacher, 4.0, 0.5))
    assert runs == [True] * 6


def test_both_networks_are_left_without_hooks_and_the_export_is_the_same() -> None:
    given, student = features(), train(features())
    plain = TASK.model()
    plain.load_state_dict(student.state_dict())
    for model in (given.teacher, student):
        assert not any(module._forward_hooks for module in model.modules())
    assert onnx_bytes(student, EXAMPLE) == onnx_bytes(plain.eval(), EXAMPLE)
    before = seeded(TinyNet, seed=7).state_dict()
    assert all(torch.equal(t, before[n]) for n, t in given.teacher.state_dict().items())


def test_hooks_are_gone_after_a_failure() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    student = TASK.model()
    with pytest.raises(KeyboardInterrupt):
        train(features(), student, on_batch=stop)
    assert not any(module._forward_hooks for module in student.modules())


def test_maps_of_old_batches_are_not_kept() -> None:
    given, student = features(), TASK.model()
    with given.watch(student) as watch:
        gone = []
        for _ in range(2):
            inputs = DATA.test.batch(torch.arange(8))
            watch.teach(inputs)
            student(inputs)
            gone += [weakref.ref(part) for part in watch._own.found.values()]
        gc.collect()
        assert [one() is None for one in gone] == [True, True, False, False]


class Fickle(TinyNet):
    """Leaves a layer out while it is trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        x = nn.functional.conv2d(x, self.conv1.weight, padding=1)
        return self.head(self.bn2(self.conv2(x)).mean((2, 3)))


def test_a_network_that_runs_other_layers_in_training_is_told() -> None:
    with pytest.raises(TaskError, match=r"'conv1'.*no maps of one size.*Distil without features"):
        train(features(), seeded(Fickle))


def test_a_training_with_features_can_be_resumed(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    path, given = tmp_path / "state.pt", features()
    whole = train(given).state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(given, checkpoint=path, on_batch=stop)
    steps: list[int] = []
    other = replace(given, identity="another teacher")
    resumed = train(given, checkpoint=path, on_batch=lambda done, total: steps.append(done))
    assert steps == [4, 5, 6]
    assert all(torch.equal(t, whole[n]) for n, t in resumed.state_dict().items())
    steps.clear()
    train(other, checkpoint=path, on_batch=lambda done, total: steps.append(done))
    assert steps[0] == 1

"""The step `student`: another network in the dense one's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.compression.quantisation.precision import FP32
from harness.compression.steps import parse_step, student
from harness.compression.steps.base import Context, Work
from harness.compression.steps.student import Student
from harness.errors import ConfigError
from harness.export import export_onnx
from harness.models.network import Network
from harness.models.small_cnn import SmallCnn
from harness.models.spec import load_network
from harness.tasks.base import Task
from support.steps import Heard, context
from support.tiny import TinyNet, tiny
from support.values import seeded

TASK = tiny()
FACTORY = """
import torch
from torch import nn

def build(in_channels, num_classes):
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, num_classes),
    )

def wrong(in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
"""


def given(task: Task = TASK, **options: Any) -> Context:
    return context(task, TASK.model(), **options)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return module.state_dict()


def equal(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def made(step: Student, asked: Context | None = None) -> nn.Module:
    asked, work = asked or given(), Work(TASK.model())
    return step.apply(work, step.decide(work, asked), asked).module


def test_a_shipped_network_is_built_for_the_data() -> None:
    work = Work(TASK.model(), sparse=("conv1.weight",))
    step = parse_step("student:model=small-cnn")
    decision = step.decide(work, given(seed=6))
    assert decision == {"model": "small-cnn", "seed": 6, "weights": None}
    found = step.apply(work, decision, given(seed=6))
    assert isinstance(found.module, SmallCnn)
    assert not found.module.training
    assert (found.sparse, found.precision) == ((), FP32)
    assert equal(work.module, TASK.model())


def test_initial_weights_follow_the_seed_and_nothing_else() -> None:
    first = made(Student("small-cnn"), given(seed=2))
    torch.rand(4)
    assert equal(made(Student("small-cnn", seed=2), given(seed=9)), first)
    assert not equal(made(Student("small-cnn"), given(seed=3)), first)
    before = torch.get_rng_state()
    made(Student("small-cnn"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_users_factory_is_named_with_a_colon_and_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    step, work = parse_step("student:model=nets.py:build,seed=4"), Work(TASK.model())
    decision = step.decide(work, given())
    assert decision["seed"] == 4
    first = step.apply(work, decision, given()).module
    monkeypatch.chdir(Path(__file__).parent)
    again = step.rebuild(work, decision, given()).module
    assert equal(first, again)
    assert first(TASK.example_input(2)).shape == (2, 3)


def test_weights_come_from_a_file_and_are_not_needed_to_rebuild(tmp_path: Path) -> None:
    trained = seeded(lambda: SmallCnn(1, 3), seed=8)
    path = tmp_path / "weights.pt"
    torch.save({f"module.{name}": tensor for name, tensor in state(trained).items()}, path)
    step, work, heard = Student("small-cnn", weights=str(path)), Work(TASK.model()), Heard()
    decision = step.decide(work, given())
    asked = context(TASK, TASK.model(), heard)
    assert equal(step.apply(work, decision, asked).module, trained)
    assert heard.notes == [
        "student: every name in the weights began with 'module.', which was taken off"
    ]
    path.unlink()
    assert state(step.rebuild(work, decision, given()).module).keys() == state(trained).keys()


def test_an_onnx_file_is_taken_with_its_weights(tmp_path: Path) -> None:
    source = seeded(TinyNet, seed=5).eval()
    path = tmp_path / "tiny.onnx"
    export_onnx(source, TASK.example_input(1), path)
    found = made(Student(f"onnx:{path}"))
    samples = TASK.example_input(8)
    assert torch.allclose(found(samples), source(samples), atol=1e-5)


FIXTURES, SHAPE = Path(__file__).parent.parent / "fixtures", (1, 8, 8)


def images(nhwc: bool) -> Task:
    """Return a task of images of the Keras file's shape, for a network of that order."""
    file = load_network(
        f"onnx:{FIXTURES / 'keras_cnn.onnx'}", inputs=SHAPE, outputs=10, weights=None
    )
    assert file.nhwc
    rng = torch.Generator().manual_seed(0)
    data = TASK.data
    splits = {
        name: replace(
            getattr(data, name), inputs=torch.randn(20, *SHAPE, generator=rng),
            targets=torch.arange(20) % 10, nhwc=nhwc,
        )
        for name in ("train", "validation", "test")
    }  # fmt: skip
    data = replace(data, outputs=10, **splits)
    other = Network(seeded(lambda: SmallCnn(SHAPE[0], 10)).eval(), "small")
    return replace(TASK, data=data, network=file if nhwc else other)


@pytest.mark.parametrize("nhwc", [True, False])
def test_a_network_of_the_other_order_of_dimensions_is_told(nhwc: bool) -> None:
    task = images(nhwc)
    file = f"onnx:{FIXTURES / 'keras_cnn.onnx'}"
    step, work = Student("small-cnn" if nhwc else file), Work(task.network.module)
    asked = context(task, task.network.module)
    orders = [r"\[N, H, W, C\]", r"\[N, C, H, W\]"]
    first, second = orders if nhwc else orders[::-1]
    with pytest.raises(ConfigError, match=f"takes images {first}, and this one {second}"):
        step.decide(work, asked)
    same = Student(file if nhwc else "small-cnn")
    found = same.apply(work, same.decide(work, asked), asked).module
    assert found(task.example_input(2)).shape == (2, 10)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("small-cn", "Step 'student', model=small-cn: .*Did you mean 'small-cnn'"),
        ("nets.py:wrong", r"what the teacher returns, \[N, 3\]. Received: \[N, 7\]"),
        ("nets.py:none", "nets.py has no 'none'"),
        ("onnx:absent.onnx", "absent.onnx"),
        ("vgg16", "Step 'student', model=vgg16"),
    ],
)
def test_what_can_not_be_taken_is_told(
    model: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=expected):
        Student(model).decide(Work(TASK.model()), given())


@pytest.mark.parametrize(
    "step",
    [
        parse_step("student:model=timm:resnet18,pretrained=yes"),
        Student("timm:resnet18", pretrained="yes"),
        Student("timm:resnet18,pretrained"),
    ],
)
def test_published_weights_are_asked_for_and_told_in_one_way(
    step: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(spec: str, **options: Any) -> Network:
        asked.append(spec)
        return Network(TASK.model(), "resnet18")

    monkeypatch.setattr(student, "load_network", load)
    assert step.text() == "student:model=timm:resnet18,pretrained=yes"
    assert parse_step(step.text()) == step
    decision = step.decide(Work(TASK.model()), given())
    assert decision["model"] == "timm:resnet18,pretrained"
    step.rebuild(Work(TASK.model()), decision, given())
    assert asked == ["timm:resnet18,pretrained"] * 2


def test_published_weights_and_a_file_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match=r"pretrained=yes and weights=w\.pt.*Leave one"):
        parse_step("student:model=timm:resnet18,pretrained=yes,weights=w.pt")
    with pytest.raises(ConfigError, match="no published weights of the shipped 'small-cnn'"):
        Student("small-cnn", pretrained="yes").decide(Work(TASK.model()), given())


def test_it_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="Step 'student' needs model"):
        parse_step("student")

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from harness.errors import ExportError
from harness.export import (
    INPUT,
    OPSET,
    OUTPUT,
    check_parity,
    count_macs,
    export_onnx,
    layer_macs,
)
from harness.onnxfile import InputSpec, opset_of, read_onnx
from harness.target import Target
from harness.training import predict, set_memory_format
from harness_backends.onnxruntime import OnnxRuntimeBackend
from support.tiny import Tiny

TASK = Tiny()


def test_the_file_computes_what_the_network_computes(tmp_path: Path) -> None:
    network, inputs = TASK.model().eval(), TASK.test().inputs.numpy()[:8]
    model = export_onnx(network, TASK.example_input(2), tmp_path / "m.onnx")
    with OnnxRuntimeBackend(Target("cpu", "onnxruntime", batch=2)).open() as worker:
        outputs = worker.load(model, {INPUT: inputs[:2]}).infer({INPUT: inputs})[0]
    parity = check_parity(predict(network, inputs), outputs)
    assert parity.passed
    assert parity.n == 8


def test_the_file_is_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = export_onnx(TASK.model(), TASK.example_input(3), path)
    proto = onnx.load(str(path), load_external_data=False)
    onnx.checker.check_model(proto)
    assert model.opset == opset_of(proto) == OPSET == 17
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.size_bytes == path.stat().st_size
    assert model.n_params == sum(p.numel() for p in TASK.model().parameters())
    assert [v.name for v in proto.graph.output] == [OUTPUT]
    _, inputs = read_onnx(path, Target("cpu", "onnxruntime"))
    assert inputs == [InputSpec(INPUT, "float32", (3, 1, 8, 8))]
    assert not any(t.external_data for t in proto.graph.initializer)
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    one = export_onnx(TASK.model(), TASK.example_input(1), tmp_path / "a.onnx")
    two = export_onnx(TASK.model(), TASK.example_input(1), tmp_path / "b.onnx")
    assert one.sha256 == two.sha256


def test_the_layout_that_training_left_is_not_exported(tmp_path: Path) -> None:
    plain = export_onnx(TASK.model(), TASK.example_input(1), tmp_path / "a.onnx")
    network = TASK.model()
    set_memory_format(network, torch.channels_last)
    example = TASK.example_input(1).contiguous(memory_format=torch.channels_last)
    assert export_onnx(network, example, tmp_path / "b.onnx").sha256 == plain.sha256


def test_a_network_that_does_not_run_is_an_export_error(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no way")

    with pytest.raises(ExportError, match="no way"):
        export_onnx(Broken(), TASK.example_input(1), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ExportError):
        export_onnx(nn.Linear(3, 2), TASK.example_input(1), path)
    assert path.read_bytes() == b"old"


def test_arithmetic_is_counted_by_hand() -> None:
    macs = layer_macs(TASK.model().eval(), TASK.example_input(1))
    assert macs == {"conv1": 8 * 8 * 32 * 9, "conv2": 4 * 4 * 48 * 32 * 9, "head": 48 * 3}
    assert count_macs(TASK.model().eval(), TASK.example_input(1)) == sum(macs.values())


def test_grouped_convolutions_cost_their_groups_share() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    assert count_macs(layer, torch.zeros(1, 8, 5, 5)) == 5 * 5 * 8 * 9


def logits(*rows: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(rows)


def test_parity_is_relative_to_the_largest_output() -> None:
    expected = logits((100.0, 0.0), (0.0, 50.0))
    near = check_parity(expected, expected + 0.009)
    far = check_parity(expected, expected + 0.011)
    assert near.passed
    assert near.max_error == pytest.approx(0.9e-4)
    assert not far.passed


def test_another_class_counts_unless_it_was_a_tie() -> None:
    tie = check_parity(logits((1.0, 1.00001)), logits((1.00001, 1.0)))
    clear = check_parity(logits((1.0, 1.001)), logits((1.001, 1.0)))
    assert tie.passed
    assert clear.argmax_differs == 1
    assert not clear.passed


@pytest.mark.parametrize(
    "got", [logits((1.0, 2.0, 3.0)), logits((1.0, float("nan"))), logits((1.0, float("inf")))]
)
def test_outputs_of_another_shape_or_not_finite_never_pass(
    got: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> None:
    parity = check_parity(logits((1.0, 2.0)), got)
    assert not parity.passed
    assert parity.argmax_differs == 1

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

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
    Parity,
    check_parity,
    count_macs,
    export_onnx,
    layer_macs,
)
from harness.manner import set_memory_format
from harness.measurement.hostlock import HostLock
from harness.onnxfile import InputSpec, opset_of, read_onnx
from harness.target import Target
from harness.training import predict
from harness_backends.onnxruntime import OnnxRuntimeBackend
from harness_search.inference import file_outputs
from support.tiny import tiny
from support.values import TwoHeads, seeded, two_output_data

TASK = tiny()
CPU = Target("cpu", "onnxruntime")


def test_the_file_computes_what_the_network_computes(tmp_path: Path) -> None:
    network, split = TASK.model(), TASK.data.test.take(torch.arange(8))
    model = export_onnx(network, TASK.example_input(2), tmp_path / "m.onnx")
    inputs = split.inputs[:8].numpy()
    with OnnxRuntimeBackend(replace(CPU, batch=2)).open() as worker:
        outputs = worker.load(model, {INPUT: inputs[:2]}).infer({INPUT: inputs})
    parity = check_parity(predict(network, split.chunks()), tuple(outputs), classifies=True)
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
    _, inputs = read_onnx(path, CPU)
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


@pytest.fixture
def log_on_stderr() -> Iterator[None]:
    """Let C++ write the exporter's log where nothing is buffered, so that it can be seen."""
    torch._C._jit_set_onnx_log_output_stream("stderr")
    yield
    torch._C._jit_set_onnx_log_output_stream("stdout")
    torch._C._jit_set_onnx_log_enabled(False)


@pytest.mark.usefixtures("log_on_stderr")
def test_an_operation_without_a_counterpart_is_named_and_no_more_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch._C._jit_set_onnx_log_enabled(True)  # as any export of the user's own leaves it
    shuffled = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ChannelShuffle(2))
    with pytest.raises(ExportError, match=r"'aten::channel_shuffle'.*not supported$"):
        export_onnx(shuffled, TASK.example_input(1), tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


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


def test_a_transposed_convolution_costs_its_inputs_elements() -> None:
    layer = nn.ConvTranspose2d(6, 4, 2, stride=2)
    assert count_macs(layer, torch.zeros(1, 6, 5, 5)) == 5 * 5 * 6 * 4 * 2 * 2


def test_a_layer_used_twice_costs_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.fc(x))

    assert layer_macs(Twice().eval(), torch.zeros(1, 4)) == {"fc": 2 * 16}


def names_of(path: Path) -> tuple[list[str], list[str]]:
    graph = onnx.load(str(path)).graph
    return [one.name for one in graph.input], [one.name for one in graph.output]


def test_several_outputs_are_numbered(tmp_path: Path) -> None:
    example = two_output_data().validation.inputs[:1]
    model = export_onnx(seeded(TwoHeads), example, tmp_path / "m.onnx")
    assert names_of(tmp_path / "m.onnx") == (["input"], ["output_0", "output_1"])
    assert model.macs == 5 * 32 + 32 * 24 + 24 * (3 + 2)


def test_a_networks_own_names_are_kept(tmp_path: Path) -> None:
    example = two_output_data().validation.inputs[:1]
    export_onnx(seeded(TwoHeads), example, tmp_path / "m.onnx", "features", ("class", "box"))
    assert names_of(tmp_path / "m.onnx") == (["features"], ["class", "box"])


def test_a_file_of_two_outputs_computes_both_in_any_number_of_samples(tmp_path: Path) -> None:
    network, split = seeded(TwoHeads), two_output_data().test
    target = replace(CPU, batch=7)  # 60 samples: the last batch is filled up
    model = export_onnx(network, split.batch(torch.arange(7)), tmp_path / "m.onnx", "features")
    got = file_outputs(OnnxRuntimeBackend(target), HostLock(), model, split, "features")
    expected = predict(network, split.chunks())
    assert [part.shape for part in got] == [(60, 3), (60, 2)]
    assert check_parity(expected, got, classifies=False).passed
    spoilt = (got[0], np.roll(got[1], 1, axis=0))
    assert not check_parity(expected, spoilt, classifies=False).passed


def logits(*rows: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(rows)


def compared(expected: Any, got: Any, classifies: bool = True) -> Parity:
    return check_parity((expected,), (got,), classifies)


def test_parity_is_relative_to_the_largest_output() -> None:
    expected = logits((100.0, 0.0), (0.0, 50.0))
    near = compared(expected, expected + 0.009)
    far = compared(expected, expected + 0.011)
    assert near.passed
    assert near.max_error == pytest.approx(0.9e-4)
    assert not far.passed


def test_another_class_counts_unless_it_was_a_tie() -> None:
    tie = compared(logits((1.0, 1.00001)), logits((1.00001, 1.0)))
    clear = compared(logits((1.0, 1.001)), logits((1.001, 1.0)))
    assert tie.passed
    assert clear.argmax_differs == 1
    assert not clear.passed


@pytest.mark.parametrize(
    "got", [logits((1.0, 2.0, 3.0)), logits((1.0, float("nan"))), logits((1.0, float("inf")))]
)
def test_outputs_of_another_shape_or_not_finite_never_pass(
    got: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> None:
    for classifies in (True, False):
        parity = compared(logits((1.0, 2.0)), got, classifies)
        assert not parity.passed
        assert (parity.max_error, parity.argmax_differs) == (None, 1)


SMALL, LARGE = logits((1e-3, 2e-3)), logits((1e3, 2e3))


def test_each_output_is_held_against_its_own_size() -> None:
    assert not check_parity((SMALL, LARGE), (SMALL + 1e-6, LARGE), classifies=False).passed
    assert check_parity((SMALL, LARGE), (SMALL, LARGE + 0.1), classifies=False).passed
    worst = check_parity((SMALL, LARGE), (SMALL + 1e-6, LARGE + 0.02), classifies=False)
    assert worst.max_error == pytest.approx(5e-4)


@pytest.mark.parametrize(
    "got",
    [(SMALL,), (SMALL, LARGE, LARGE), (SMALL, LARGE[:, :1]), (SMALL, LARGE * np.nan)],
    ids=["one", "three", "narrow", "nan"],
)
def test_outputs_of_another_number_or_shape_never_pass(got: Any) -> None:
    parity = check_parity((SMALL, LARGE), got, classifies=False)
    assert (parity.max_error, parity.passed) == (None, False)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-dynamic"])
def test_a_network_that_is_not_finite_has_no_parity_in_any_precision(precision: str) -> None:
    parity = check_parity((SMALL * np.nan,), (SMALL,), True, precision)
    assert (parity.max_error, parity.agreement, parity.passed) == (None, None, False)


def test_values_have_no_class_that_could_differ() -> None:
    one = logits((1.0,), (2.0,))
    assert compared(one, one, classifies=False).passed
    near = compared(logits((1.0, 1.001)), logits((1.0010005, 1.00105)), classifies=False)
    assert near.argmax_differs == 0


def test_outputs_of_any_number_of_dimensions_are_compared() -> None:
    boxes = np.arange(24.0).reshape(2, 3, 4)
    assert compared(boxes, boxes, classifies=False).max_error == 0.0
    assert not compared(boxes, boxes + 0.01, classifies=False).passed


def test_an_output_that_is_all_zero_is_compared_absolutely() -> None:
    zero = np.zeros((2, 3))
    assert compared(zero, zero).passed
    assert not compared(zero, zero + 1e-3).passed


def shifted(by: float, precision: str, classifies: bool = True) -> Parity:
    """Compare 400 pairs of logits, the second of them larger, with the first one raised."""
    expected = np.tile([0.0, 1.0], (400, 1))
    return check_parity((expected,), (expected + np.array([by, 0.0]),), classifies, precision)


def test_agreement_is_the_share_of_samples_of_the_same_class() -> None:
    expected = logits((0.0, 1.0), (0.0, 1.0), (1.0, 0.0), (1.0, 0.0))
    parity = compared(expected, expected[:, ::-1])
    assert parity.agreement == 0.0
    assert compared(expected, np.roll(expected, 1, axis=0)).agreement == 0.5
    assert compared(expected, expected, classifies=False).agreement is None
    assert compared(expected, expected * np.nan).agreement is None


def test_half_precision_has_a_tolerance_of_its_own() -> None:
    assert shifted(0.009, "fp16").passed
    assert not shifted(0.009, "fp32").passed
    assert not shifted(0.011, "fp16").passed
    assert not shifted(0.011, "fp16", classifies=False).passed


@pytest.mark.parametrize(("ties", "passed"), [(2, True), (3, False)])
def test_half_precision_may_change_the_class_of_one_sample_in_200(ties: int, passed: bool) -> None:
    expected = np.tile([0.0, 1.0], (400, 1))
    expected[:ties] = (0.999, 1.0)
    got = expected + np.array([0.002, 0.0])
    parity = check_parity((expected,), (got,), True, "fp16")
    assert parity.argmax_differs == 0  # a lead within the tolerance
    assert parity.passed is passed


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_an_integer_file_is_compared_but_passes(precision: str) -> None:
    parity = shifted(2.0, precision)
    assert (parity.max_error, parity.argmax_differs, parity.agreement) == (2.0, 400, 0.0)
    assert (parity.precision, parity.passed) == (precision, True)
    assert not shifted(np.nan, precision).passed


def test_a_record_says_the_precision_and_the_agreement() -> None:
    assert asdict(compared(logits((1.0, 2.0)), logits((1.0, 2.0)))) == {
        "max_error": 0.0, "argmax_differs": 0, "n": 1, "agreement": 1.0, "precision": "fp32",
    }  # fmt: skip

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from harness.compression.quantisation import convert
from harness.compression.quantisation.child import Feed
from harness.compression.quantisation.convert import converted, takes_full_range
from harness.compression.quantisation.precision import FP32, Precision
from harness.errors import ConfigError, ExportError
from harness.export import onnx_bytes
from harness.onnxfile import opset_of
from support.networks import network

INT8, DYNAMIC, FP16 = Precision("int8", 100), Precision("int8-dynamic"), Precision("fp16")
BATCH = 3


@dataclass(frozen=True)
class File:
    """A network's export, and samples that the calibration doesn't fill a batch with."""

    data: bytes
    samples: Any


@cache
def exported(name: str) -> File:
    module, one = network(name)
    rng = torch.Generator().manual_seed(0)
    samples = torch.randn(100, *one.shape[1:], generator=rng)
    return File(onnx_bytes(module, samples[:BATCH]), samples.numpy())


@cache
def result(name: str, precision: Precision, full_range: bool = True) -> bytes:
    file = exported(name)
    return converted(file.data, precision, file.samples, "input", full_range)


def operators(data: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_model_from_string(data).graph.node)


def interface(data: bytes) -> list[tuple[str, int, list[int]]]:
    graph = onnx.load_model_from_string(data).graph
    values = [*graph.input, *graph.output]
    return [
        (v.name, v.type.tensor_type.elem_type, [d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in values
    ]


def outputs(data: bytes, samples: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: samples[:BATCH]})


def error(name: str, data: bytes) -> float:
    """Return the largest difference, relative to the largest output, of the worst output."""
    file = exported(name)
    pairs = zip(outputs(file.data, file.samples), outputs(data, file.samples), strict=True)
    return max(float(np.abs(e - g).max() / np.abs(e).max()) for e, g in pairs)


def rounded(data: bytes, operator: str) -> list[bool]:
    """Return for every node of a kind whether all it reads was rounded to integers."""
    graph = onnx.load_model_from_string(data).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    return [
        all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])
        for node in graph.node
        if node.op_type == operator
    ]


def weights(data: bytes) -> list[Any]:
    """Return the int8 weights of more than one dimension."""
    tensors = onnx.load_model_from_string(data).graph.initializer
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in tensors]
    return [array for array in arrays if array.dtype == np.int8 and array.ndim > 1]


def test_every_convolution_sum_and_linear_layer_computes_in_integers() -> None:
    data = result("residual", INT8)
    for operator, count in (("Conv", 4), ("Add", 1), ("Gemm", 1)):
        assert rounded(data, operator) == [True] * count, operator
    assert error("residual", data) < 0.05
    assert len(weights(data)) == 5
    assert min(array.min() for array in weights(data)) == -127
    assert len(data) < len(exported("residual").data)


def test_weights_have_a_scale_per_output_channel() -> None:
    graph = onnx.load_model_from_string(result("residual", INT8)).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    scales = {
        node.input[0]: arrays[node.input[1]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays
    }
    found = {arrays[name].shape[0] == scale.size for name, scale in scales.items()}
    assert found == {True}
    zeros = [arrays[n.input[2]] for n in graph.node if n.input[0] in scales and len(n.input) > 2]
    assert not any(zero.any() for zero in zeros)


@pytest.mark.parametrize("precision", [INT8, DYNAMIC, FP16], ids=lambda one: one.name)
def test_names_types_and_shapes_stay(precision: Precision) -> None:
    data = result("residual", precision)
    assert interface(data) == interface(exported("residual").data)
    assert opset_of(onnx.load_model_from_string(data)) == 17
    onnx.checker.check_model(onnx.load_model_from_string(data))


@pytest.mark.parametrize("precision", [INT8, DYNAMIC], ids=lambda one: one.name)
def test_a_reduced_range_takes_seven_bits(precision: Precision) -> None:
    data = result("residual", precision, full_range=False)
    assert max(np.abs(array.astype(int)).max() for array in weights(data)) <= 64
    assert error("residual", data) < 0.05


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_all_calibrations_work_in_chunks_and_give_the_same_bytes_again(method: str) -> None:
    precision = Precision("int8", 100, method)
    once = result("sequence", precision)
    file = exported("sequence")
    assert once == converted(file.data, precision, file.samples, "input", True)
    assert error("sequence", once) < 0.1


def test_calibration_is_fed_chunk_by_chunk_and_every_batch_once() -> None:
    feed = Feed("x", [np.full(3, i) for i in range(5)], per_chunk=2)
    seen = []
    for chunk in range(len(feed)):
        feed.set_range(chunk, chunk + 1)
        seen.append([int(batch["x"][0]) for batch in iter(feed.get_next, None)])
    assert seen == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("precision", [DYNAMIC, FP16], ids=lambda one: one.name)
def test_the_same_file_gives_the_same_bytes(precision: Precision) -> None:
    file = exported("sequence")
    again = converted(file.data, precision, file.samples, "input", True)
    assert result("sequence", precision) == again


def test_all_samples_count_and_no_more_than_asked() -> None:
    file = exported("sequence")
    loud = np.concatenate([file.samples[:-1], 100 * file.samples[-1:]])
    assert converted(file.data, INT8, loud, "input", True) != result("sequence", INT8)
    more = np.concatenate([file.samples, 100 * file.samples])
    assert converted(file.data, INT8, more, "input", True) == result("sequence", INT8)


def test_outputs_are_not_cut_to_what_calibration_saw() -> None:
    file = exported("residual")
    small = converted(file.data, INT8, 0.5 * file.samples[:60], "input", True)
    graph = onnx.load_model_from_string(small).graph
    maker = next(node for node in graph.node if "output" in node.output)
    assert maker.op_type == "Gemm"
    assert "QuantizeLinear" in operators(small)


class InUnits(nn.Module):
    """Regresses on values in some unit."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) * torch.tensor([0.01, 1.0]) + torch.tensor([1000.0, -5.0])


def test_what_comes_after_the_last_layer_stays_in_float32() -> None:
    samples = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    data = onnx_bytes(InUnits().eval(), samples[:BATCH])
    got = converted(data, INT8, samples.numpy(), "input", True)
    assert rounded(got, "Gemm") == [True, True]
    assert rounded(got, "Mul") + rounded(got, "Add") == [False, False]
    expected, found = outputs(data, samples.numpy())[0], outputs(got, samples.numpy())[0]
    assert np.abs(expected - found).max(0)[0] < 0.001


def test_attention_and_layer_norms_keep_what_needs_float32() -> None:
    data = result("transformer", INT8)
    assert rounded(data, "MatMul") == [True, True]
    assert rounded(data, "Gemm") == [True] * 7
    assert rounded(data, "LayerNormalization") == [False] * 3
    graph = onnx.load_model_from_string(data).graph
    readers = {name: node.op_type for node in graph.node for name in node.input}
    gelu = next(node for node in graph.node if node.op_type == "Erf")
    assert readers[gelu.output[0]] == "Add"
    assert error("transformer", data) < 0.1


@pytest.mark.parametrize("name", ["depthwise", "encoder", "detector", "bare"])
def test_networks_of_all_kinds_compute_in_integers(name: str) -> None:
    data = result(name, INT8)
    layers = rounded(data, "Conv") + rounded(data, "Gemm") + rounded(data, "MatMul")
    assert layers
    assert all(layers)
    assert error(name, data) < 0.1
    assert interface(data) == interface(exported(name).data)


@pytest.mark.parametrize(
    ("name", "operator"),
    [("depthwise", "ConvInteger"), ("lstm", "DynamicQuantizeLSTM"), ("bare", "MatMulInteger")],
)
def test_dynamic_quantisation_takes(name: str, operator: str) -> None:
    data = result(name, DYNAMIC)
    assert operators(data)[operator]
    assert error(name, data) < 0.1


class Tokens(nn.Module):
    """Takes integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(x).mean(1))


@pytest.mark.parametrize("precision", [INT8, DYNAMIC, FP16], ids=lambda one: one.name)
def test_integers_go_in_as_integers(precision: Precision) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Tokens().eval()
    tokens = torch.arange(60).view(10, 6) % 20
    data = onnx_bytes(module, tokens[:BATCH], "tokens")
    got = converted(data, precision, tokens.numpy(), "tokens", True)
    assert interface(got) == interface(data)
    expected, found = outputs(data, tokens.numpy())[0], outputs(got, tokens.numpy())[0]
    assert np.abs(expected - found).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["residual", "transformer", "lstm", "detector"])
def test_half_precision_holds_weights_and_gives_float32(name: str) -> None:
    data = result(name, FP16)
    tensors = onnx.load_model_from_string(data).graph.initializer
    kinds = {tensor.data_type for tensor in tensors if tensor.data_type != onnx.TensorProto.INT64}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert interface(data) == interface(exported(name).data)
    assert 0 < error(name, data) < 0.01


class Large(nn.Module):
    """Has large numbers on its way, and small ones at its end."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.lift, self.head, self.scale = nn.Linear(10, 8), nn.Linear(8, 3), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lift(x).abs() * self.scale / abs(self.scale))


@pytest.mark.parametrize("scale", [1e6, -1e9, 1e3])
def test_numbers_that_half_precision_does_not_have_are_told(scale: float) -> None:
    samples = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    data = onnx_bytes(Large(scale).eval(), samples[:BATCH])
    if scale < 1e6:  # masks are large and negative, and may well overflow
        assert converted(data, FP16, samples.numpy(), "input", True)
        return
    with pytest.raises(ExportError, match=r"fp16: .* ends at 65,504, and '.*' \(Mul\) reaches \d"):
        converted(data, FP16, samples.numpy(), "input", True)


def test_float32_is_the_file_itself() -> None:
    file = exported("sequence")
    assert converted(file.data, FP32, file.samples, "input", True) is file.data


@pytest.mark.parametrize("precision", [INT8, DYNAMIC], ids=lambda one: one.name)
def test_a_file_without_layers_is_an_export_error(precision: Precision) -> None:
    samples = torch.randn(4, 3)
    data = onnx_bytes(nn.Sequential(nn.ReLU(), nn.Softmax(1)).eval(), samples[:1])
    with pytest.raises(ExportError, match=rf"can't be converted to {precision.name}: .*no "):
        converted(data, precision, samples.numpy(), "input", True)


def test_what_does_not_fit_the_file_is_an_export_error() -> None:
    file = exported("sequence")
    with pytest.raises(ExportError, match="expected one input 'x', received input"):
        converted(file.data, FP16, file.samples, "x", True)
    with pytest.raises(ExportError, match=r"samples of float32 \[3, 4, 16\], received float64"):
        converted(file.data, FP16, file.samples.astype(np.float64), "input", True)
    with pytest.raises(ExportError, match="can't be converted to fp16: DecodeError"):
        converted(b"no file", FP16, file.samples, "input", True)
    with pytest.raises(ConfigError, match="at least one training sample"):
        converted(file.data, INT8, file.samples[:0], "input", True)


def test_the_child_is_quiet_and_sees_no_file_of_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "onnx.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    file = exported("sequence")
    converted(file.data, FP16, file.samples, "input", True)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [tmp_path / "onnx.py"]


def test_a_child_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(convert.subprocess, "run", lambda *args, **options: killed)
    file = exported("sequence")
    with pytest.raises(ExportError, match="signal 9"):
        converted(file.data, FP16, file.samples, "input", True)


def test_a_child_that_can_not_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: Any, **options: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(convert.subprocess, "run", run)
    file = exported("sequence")
    with pytest.raises(ExportError, match="can't be started: .*Cannot allocate memory"):
        converted(file.data, FP16, file.samples, "input", True)


def test_the_childs_own_temporary_files_go_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(argv: list[str], env: dict[str, str], **options: Any) -> Any:
        code = "import os, tempfile; tempfile.mkdtemp(); os.kill(os.getpid(), 9)"
        return real([argv[0], "-c", code], env=env, **options)

    real = subprocess.run
    monkeypatch.setattr(convert.subprocess, "run", run)
    monkeypatch.setattr(convert.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = exported("sequence")
    with pytest.raises(ExportError, match="signal 9"):
        converted(file.data, FP16, file.samples, "input", True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_temporary_files_that_can_not_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert.tempfile, "tempdir", str(tmp_path / "gone"))
    file = exported("sequence")
    with pytest.raises(ExportError, match=r"room for about [\d.]+ MB.*gone.*TMPDIR"):
        converted(file.data, FP16, file.samples, "input", True)


def test_this_process_keeps_the_runtime_out() -> None:
    code = (
        "import sys, harness.compression.quantisation.convert as c\n"
        "assert 'onnxruntime' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(convert.__file__).parents[3])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize(
    ("flags", "safe"),
    [
        (["avx2", "avx512f"], False), (["avx2", "avx_vnni"], True), (["avx512_vnni"], True),
        (["amx_int8"], True), (["asimd", "asimddp"], True), (["neon"], True), ([], False),
    ],
)  # fmt: skip
def test_full_range_is_for_cpus_that_add_in_32_bits(flags: list[str], safe: bool) -> None:
    assert takes_full_range(flags) is safe

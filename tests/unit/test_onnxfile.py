from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from harness.errors import ConfigError
from harness.onnxfile import InputSpec, read_onnx
from harness.target import Target

TARGET = Target("cpu", "onnxruntime")


def graph_file(
    path: Path, shape: Any = (1, 4), kind: int = TensorProto.FLOAT, external: str | None = None
) -> Path:
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [1], [2.0])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "g",
        [helper.make_tensor_value_info("x", kind, shape),
         helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", kind, shape)], [factor],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    if external:
        tensor = proto.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=external)
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_users_file_is_read_with_its_inputs(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "m.onnx")
    model, inputs = read_onnx(path, TARGET)
    assert inputs == [InputSpec("x", "float32", (1, 4))]
    assert model.opset == 17
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (model.macs, model.n_params) == (None, None)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected an ONNX"):
        read_onnx(tmp_path / "m.onnx", TARGET)
    with pytest.raises(ConfigError, match="Expected an ONNX"):
        read_onnx(tmp_path, TARGET)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_said(tmp_path: Path, share: float) -> None:
    path = graph_file(tmp_path / "m.onnx")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ConfigError, match="truncated"):
        read_onnx(path, TARGET)


def test_a_file_of_another_kind_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("import torch\n" * 50)
    with pytest.raises(ConfigError, match="not a whole ONNX file"):
        read_onnx(path, TARGET)


@pytest.mark.parametrize("shape", [(1, "length"), (1, None), (1, 0), None])
def test_a_dynamic_shape_is_refused_by_input(tmp_path: Path, shape: Any) -> None:
    with pytest.raises(ConfigError, match=r"'x'.*dynamic shape.*--set shapes\.x="):
        read_onnx(graph_file(tmp_path / "m.onnx", shape), TARGET)


@pytest.mark.parametrize("first", ["batch", None, 0])
def test_an_open_batch_is_the_targets(tmp_path: Path, first: Any) -> None:
    path = graph_file(tmp_path / "m.onnx", (first, 4))
    _, inputs = read_onnx(path, TARGET.with_settings(["batch=3"]))
    assert inputs == [InputSpec("x", "float32", (3, 4))]


def test_a_fixed_batch_is_not_another(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "m.onnx", (2, 4))
    for batch in (1, 2):
        assert read_onnx(path, replace(TARGET, batch=batch))[1][0].shape == (2, 4)
    with pytest.raises(ConfigError, match=r"'x'.*batch 3"):
        read_onnx(path, replace(TARGET, batch=3))


def test_a_given_shape_fills_what_is_open_and_must_fit(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "m.onnx", ("n", 4))
    given = replace(TARGET, shapes={"x": (5, 4)})
    assert read_onnx(path, given)[1] == [InputSpec("x", "float32", (5, 4))]
    for wrong in ((5, 3), (4,), (1, 5, 4)):
        with pytest.raises(ConfigError, match=r"'x'.*does not fit"):
            read_onnx(path, replace(TARGET, shapes={"x": wrong}))
    with pytest.raises(ConfigError, match=r"'x'.*batch 2"):
        read_onnx(path, replace(given, batch=2))


def test_an_input_of_strings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'x'.*not a tensor of numbers"):
        read_onnx(graph_file(tmp_path / "m.onnx", kind=TensorProto.STRING), TARGET)


def test_external_data_is_refused_and_what_is_missing_is_named(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "m.onnx", external="weights.bin")
    with pytest.raises(ConfigError, match=r"weights\.bin is missing"):
        read_onnx(path, TARGET)
    (tmp_path / "weights.bin").write_bytes(bytes(4))
    with pytest.raises(ConfigError, match=r"weights inside"):
        read_onnx(path, TARGET)

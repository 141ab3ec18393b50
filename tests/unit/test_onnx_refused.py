from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from harness.errors import ConfigError
from harness.export import export_onnx
from harness.models.onnx_file import load_onnx

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = TensorProto.FLOAT
X = helper.make_tensor_value_info("x", FLOAT, ["batch", 4])
Y = helper.make_tensor_value_info("y", FLOAT, ["batch", 3])
W = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: tuple[onnx.ValueInfoProto, ...] = (X,),
    outputs: tuple[onnx.ValueInfoProto, ...] = (Y,),
    weights: tuple[onnx.TensorProto, ...] = (W,),
    domains: tuple[str, ...] = (),
) -> Path:
    graph = helper.make_graph(nodes, "g", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, *parts: str, shape: tuple[int, ...] = (4,)) -> None:
    with pytest.raises(ConfigError) as caught:
        load_onnx(path, shape)
    for part in (path.name, *parts):
        assert part in str(caught.value)


def matmul(source: str = "x", target: str = "y") -> onnx.NodeProto:
    return helper.make_node("MatMul", [source, "w"], [target], name="product")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_what_the_others_vary_is_accepted(path: Path) -> None:
    network = load_onnx(save(path, [matmul()]), (4,))
    assert (network.input_name, network.output_names) == ("x", ("y",))


def test_a_missing_file(path: Path) -> None:
    refused(path, "no such file")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x08\x12"])
def test_something_else_than_onnx(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path, "not a whole ONNX file", "export it again")


def test_a_truncated_file(path: Path) -> None:
    content = save(path, [matmul()]).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "not a whole ONNX file")


def test_a_weight_that_is_cut_off(path: Path) -> None:
    cut = onnx.TensorProto()
    cut.CopyFrom(W)
    cut.raw_data = cut.raw_data[:-8]
    refused(save(path, [matmul()], weights=(cut,)), "not a whole ONNX file", "export it again")


def test_a_weight_of_an_unknown_type(path: Path) -> None:
    odd = onnx.TensorProto()
    odd.CopyFrom(W)
    odd.data_type = 77
    refused(save(path, [matmul()], weights=(odd,)), "not a whole ONNX file")


def test_weights_in_another_file(path: Path) -> None:
    save(path, [matmul()])
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    refused(path, "another file", "external_data=False")


def test_several_inputs(path: Path) -> None:
    other = helper.make_tensor_value_info("other", FLOAT, ["batch", 4])
    nodes = [helper.make_node("Add", ["x", "other"], ["sum"]), matmul("sum")]
    refused(save(path, nodes, inputs=(X, other)), "one input", "'x', 'other'")


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_an_input_of_another_type(path: Path, kind: int) -> None:
    x = helper.make_tensor_value_info("x", kind, ["batch", 4])
    nodes = [helper.make_node("Cast", ["x"], ["c"], to=FLOAT), matmul("c")]
    refused(
        save(path, nodes, inputs=(x,)), TensorProto.DataType.Name(kind).lower(), "float32 input"
    )


def test_samples_of_another_shape(path: Path) -> None:
    refused(save(path, [matmul()]), "['?', 4]", "[5]", shape=(5,))


def test_images_of_another_shape(path: Path) -> None:
    x = helper.make_tensor_value_info("x", FLOAT, ["batch", 8, 8, 3])
    w = numpy_helper.from_array(np.ones((3, 3), np.float32), "w")
    save(path, [matmul()], inputs=(x,), weights=(w,))
    refused(path, "[1, 8, 8]", "[8, 8, 1]", "['?', 8, 8, 3]", shape=(1, 8, 8))


def test_a_quantised_graph(path: Path) -> None:
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "s")
    zero = numpy_helper.from_array(np.array(0, np.uint8), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise_x"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        matmul("d"),
    ]
    save(path, nodes, weights=(W, scale, zero))
    refused(path, "QuantizeLinear ('quantise_x'", "quantised graph", "float32 model")


def test_quantised_weights(path: Path) -> None:
    stored = numpy_helper.from_array(np.ones((4, 3), np.int8), "stored")
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "s")
    nodes = [helper.make_node("DequantizeLinear", ["stored", "s"], ["w"]), matmul()]
    refused(save(path, nodes, weights=(stored, scale)), "DequantizeLinear", "quantised graph")


def test_control_flow(path: Path) -> None:
    branch = helper.make_graph(
        [matmul("x", "b")], "b", [], [helper.make_empty_tensor_value_info("b")]
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch),
    ]
    refused(save(path, nodes), "If ('choice'", "control flow")


def test_dictionaries_of_scikit_learn(path: Path) -> None:
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
    y = helper.make_value_info("z", helper.make_sequence_type_proto(kind))
    nodes = [
        matmul(),
        helper.make_node("ZipMap", ["y"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    refused(save(path, nodes, outputs=(y,), domains=("ai.onnx.ml",)), "sequence", "'zipmap': False")


def test_a_tree_ensemble(path: Path) -> None:
    nodes = [
        helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], name="forest", domain="ai.onnx.ml")
    ]
    save(path, nodes, domains=("ai.onnx.ml",))
    refused(path, "TreeEnsembleRegressor ('forest'", "tree ensemble")


def test_an_operation_that_torch_was_not_taught(path: Path) -> None:
    nodes = [matmul("x", "p"), helper.make_node("CumSum", ["p", "p"], ["y"], name="running")]
    refused(save(path, nodes), "CumSum ('running'", "FILE.py:function")


def test_an_operation_of_one_runtime(path: Path) -> None:
    nodes = [helper.make_node("FusedGemm", ["x", "w"], ["y"], name="fast", domain="com.microsoft")]
    refused(save(path, nodes, domains=("com.microsoft",)), "FusedGemm", "'com.microsoft'")


def test_a_recurrent_network(path: Path) -> None:
    nodes = [helper.make_node("LSTM", ["x", "w", "w"], ["y"], name="memory", hidden_size=3)]
    refused(save(path, nodes), "LSTM ('memory'", "recurrent")


def test_classes_without_scores(path: Path) -> None:
    y = helper.make_tensor_value_info("y", TensorProto.INT64, ["batch"])
    nodes = [matmul("x", "p"), helper.make_node("ArgMax", ["p"], ["y"], axis=1, keepdims=0)]
    refused(save(path, nodes, outputs=(y,)), "int64", "scores")


def test_outputs_that_are_constant(path: Path) -> None:
    nodes = [helper.make_node("Identity", ["w"], ["y"])]
    refused(save(path, nodes), "don't depend on its input")


def test_computing_with_the_batch_size(path: Path) -> None:
    nodes = [
        matmul("x", "p"),
        helper.make_node("Shape", ["p"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=FLOAT),
        helper.make_node("ReduceProd", ["f"], ["n"], keepdims=0),
        helper.make_node("Div", ["p", "n"], ["y"], name="mean"),
    ]
    refused(save(path, nodes), "Div ('mean'", "computes with the batch size")


def test_samples_that_see_each_other(path: Path) -> None:
    x = helper.make_tensor_value_info("x", FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", FLOAT, [1, 3])
    nodes = [
        matmul("x", "p"),
        helper.make_node("ReduceMean", ["p"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Add", ["p", "m"], ["y"]),
    ]
    refused(save(path, nodes, inputs=(x,), outputs=(y,)), "batch of 4 differ", "batch dynamic")


class Baked(nn.Module):
    """The batch in its shapes, as some exporters leave it."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.conv, self.hidden, self.head = nn.Conv2d(1, 8, 3), nn.Linear(72, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x)).reshape(self.batch, 72)
        return self.head(torch.relu(self.hidden(x)).view(self.batch, -1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [1, 8])
def test_a_batch_in_the_file_s_shapes_is_undone(batch: int, path: Path) -> None:
    model = Baked(batch).eval()
    torch.onnx.export(model, (torch.zeros(batch, 1, 5, 5),), str(path), dynamo=False)
    network = load_onnx(path, (1, 5, 5))
    samples = torch.randn(8, 1, 5, 5)
    expected = torch.cat([model(part) for part in samples.split(batch)])
    torch.testing.assert_close(network.module(samples), expected)
    torch.testing.assert_close(network.module(samples[:3]), expected[:3])


@pytest.mark.parametrize("batch", [1, "batch"])
def test_what_fails_at_another_batch_is_told_with_a_remedy(batch: int | str, path: Path) -> None:
    x = helper.make_tensor_value_info("x", FLOAT, [batch, 4])
    sizes = numpy_helper.from_array(np.array([5, 7]), "sizes")
    nodes = [matmul("x", "p"), helper.make_node("Reshape", ["p", "sizes"], ["y"], name="baked")]
    save(path, nodes, inputs=(x,), weights=(W, sizes))
    with pytest.raises(ConfigError, match="Reshape \\('baked'.*can't be converted") as caught:
        load_onnx(path, (4,))
    assert ("again with the batch dynamic" in str(caught.value)) == (batch == 1)


@pytest.mark.filterwarnings("ignore")
def test_numbers_as_names_are_not_kept(path: Path) -> None:
    torch.onnx.export(Baked(1).eval(), (torch.zeros(1, 1, 5, 5),), str(path), dynamo=False)
    model = onnx.load(path)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "36"
    onnx.save(model, path)
    network = load_onnx(path, (1, 5, 5))
    assert network.output_names == ("output_36",)
    assert any("36" in note for note in network.notes)
    smaller = path.with_name("smaller.onnx")
    export_onnx(
        network.module, torch.zeros(1, 1, 5, 5), smaller, network.input_name, network.output_names
    )
    graph = onnx.load(smaller).graph
    assert [graph.input[0].name, graph.output[0].name] == [network.input_name, "output_36"]

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from harness.compression.rewriting.onnx_graph import simplified
from harness.errors import ConfigError
from harness.export import onnx_bytes
from support.networks import network
from support.onnx_files import node, save_graph

W = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
SAMPLES = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)


def made(tmp_path: Path, nodes: list[onnx.NodeProto], **options: Any) -> bytes:
    weights = options.pop("weights", {"w": W})
    path = save_graph(tmp_path / "one.onnx", nodes, (4,), weights, **options)
    model = onnx.load_model(path)
    for value in model.graph.output:  # the checker wants their shapes
        for _ in range(2):
            value.type.tensor_type.shape.dim.add()
    return model.SerializeToString()


def run(data: bytes) -> list[np.ndarray]:
    return ReferenceEvaluator(onnx.load_model_from_string(data)).run(None, {"x": SAMPLES})


def simpler(data: bytes) -> tuple[onnx.GraphProto, dict[str, int]]:
    """Simplify, check that the same is computed under the same names, and that it is settled."""
    new, counts = simplified(data)
    for one, other in zip(run(data), run(new), strict=True):
        np.testing.assert_array_equal(one, other)
    before, after = (onnx.load_model_from_string(x).graph for x in (data, new))
    for kind in ("input", "output"):
        names = [[v.name for v in getattr(graph, kind)] for graph in (before, after)]
        assert names[0] == names[1]
    assert simplified(new) == (new, dict.fromkeys(counts, 0))
    return after, {name: count for name, count in counts.items() if count}


def ops(graph: onnx.GraphProto) -> list[str]:
    return [one.op_type for one in graph.node]


def test_dead_nodes_and_initializers_go(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "y"), node("MatMul", "x dead", "a"), node("Relu", "a", "b"),
    ]  # fmt: skip
    graph, counts = simpler(made(tmp_path, nodes, weights={"w": W, "dead": W + 1}))
    assert ops(graph) == ["MatMul"]
    assert counts == {"dead nodes": 2, "dead initializers": 1}


def test_duplicates_become_one(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"), node("MatMul", "x v", "b"), node("Softmax", "a", "c", axis=1),
        node("Softmax", "b", "d", axis=1), node("Softmax", "b", "e", axis=0),
        node("Sum", "c d e", "y"),
    ]  # fmt: skip
    graph, counts = simpler(made(tmp_path, nodes, weights={"w": W, "v": W.copy()}))
    assert ops(graph) == ["MatMul", "Softmax", "Softmax", "Sum"]
    assert counts == {"duplicate initializers": 1, "duplicate nodes": 2}


def test_idle_nodes_go(tmp_path: Path) -> None:
    nodes = [
        node("Identity", "x", "a"), node("Dropout", "a", "b"), node("MatMul", "b w", "c"),
        node("Cast", "c", "d", to=TensorProto.FLOAT), node("Cast", "d", "e", to=TensorProto.DOUBLE),
        node("Cast", "e", "f", to=TensorProto.FLOAT), node("Identity", "f", "y"),
    ]  # fmt: skip
    graph, counts = simpler(made(tmp_path, nodes))
    assert ops(graph) == ["MatMul", "Cast", "Cast"]
    assert counts == {"idle nodes": 4}


def test_two_outputs_that_are_one_value_keep_both_names(tmp_path: Path) -> None:
    nodes = [node("Identity", "x", "y"), node("Relu", "x", "z"), node("Identity", "z", "v")]
    graph, counts = simpler(made(tmp_path, nodes, outputs=("y", "z", "v")))
    assert ops(graph) == ["Identity", "Relu", "Identity"]
    assert counts == {"dead initializers": 1}


def test_duplicates_that_are_outputs_keep_both_names(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "y"), node("Relu", "x", "z")]
    graph, _ = simpler(made(tmp_path, nodes, outputs=("y", "z")))
    assert ops(graph) == ["Relu", "Relu"]


@pytest.mark.parametrize(("sizes", "left"), [([2, -1], 1), ([0, -1], 2)])
def test_reshapes_in_a_row(tmp_path: Path, sizes: list[int], left: int) -> None:
    weights = {"first": np.int64([4, 3]), "second": np.int64(sizes)}
    nodes = [node("Reshape", "x first", "a"), node("Reshape", "a second", "y")]
    graph, counts = simpler(made(tmp_path, nodes, weights=weights))
    assert len(ops(graph)) == left
    assert counts == ({"merged reshapes": 1, "dead nodes": 1, "dead initializers": 1}
                      if left == 1 else {})  # fmt: skip


def test_random_nodes_are_never_one(tmp_path: Path) -> None:
    nodes = [
        node("RandomNormalLike", "x", "a"), node("RandomNormalLike", "x", "b"),
        node("Sub", "a b", "y"),
    ]  # fmt: skip
    data = made(tmp_path, nodes, weights={})
    new, counts = simplified(data)
    assert len(onnx.load_model_from_string(new).graph.node) == 3
    assert not any(counts.values())


def test_a_dropout_that_trains_or_whose_mask_is_used_stays(tmp_path: Path) -> None:
    weights = {"ratio": np.float32(0.5), "yes": np.bool_(True), "no": np.bool_(False)}
    nodes = [
        node("Dropout", "x ratio yes", "a"), node("Dropout", "x ratio no", "b"),
        node("Dropout", "b", "c mask"), node("Where", "mask a c", "y"),
    ]  # fmt: skip
    new, counts = simplified(made(tmp_path, nodes, weights=weights))
    assert ops(onnx.load_model_from_string(new).graph) == ["Dropout", "Dropout", "Where"]
    assert {k: n for k, n in counts.items() if n} == {"idle nodes": 1, "dead initializers": 1}


def test_what_a_subgraph_refers_to_stays(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        inner = [node("Identity", "a", f"{name}_in"), node("Mul", f"{name}_in s", f"{name}_out")]
        return helper.make_graph(inner, name, [], [made])

    choice = node("If", "yes", "b", then_branch=branch("then"), else_branch=branch("other"))
    nodes = [
        node("Relu", "x", "r"), node("Relu", "x", "q"), node("Identity", "r", "a"),
        node("Identity", "a", "c"), choice, node("Sum", "b c q s", "y"),
    ]  # fmt: skip
    weights = {"yes": np.bool_(True), "s": np.float32(2), "t": np.float32(2)}
    graph, counts = simpler(made(tmp_path, nodes, weights=weights))
    assert ops(graph) == ["Relu", "If", "Sum"]
    assert [one.name for one in graph.initializer] == ["yes", "s"]
    assert counts == {"idle nodes": 2, "duplicate nodes": 1, "dead initializers": 1}


def test_operators_of_other_domains_are_never_one() -> None:
    nodes = [node("Own", "x", "a", domain="my"), node("Own", "x", "b", domain="my"),
             node("Add", "a b", "y")]  # fmt: skip
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3, 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    new, counts = simplified(data)
    assert len(onnx.load_model_from_string(new).graph.node) == 3
    assert not any(counts.values())


def test_an_initializer_that_a_caller_may_replace_stays() -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3, 4]) for n in "xwvy"]
    weights = [numpy_helper.from_array(np.ones((3, 4), np.float32), name) for name in "wv"]
    nodes = [node("Sum", "x w v", "y")]
    graph = helper.make_graph(nodes, "graph", values[:3], values[3:], weights)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    graph, counts = simpler(data.SerializeToString())
    assert list(graph.node[0].input) == ["x", "w", "v"]
    assert counts == {}


def test_constants_that_are_equal_become_one(tmp_path: Path) -> None:
    def constant(name: str, value: float) -> onnx.NodeProto:
        tensor = numpy_helper.from_array(np.float32([value]), f"of {name}")
        return node("Constant", "", name, value=tensor)

    nodes = [constant("a", 2), constant("b", 2), constant("c", 3), node("Sum", "x a b c", "y")]
    graph, counts = simpler(made(tmp_path, nodes, weights={}))
    assert list(graph.node[-1].input) == ["x", "a", "a", "c"]
    assert counts == {"duplicate nodes": 1}


@pytest.mark.parametrize("name", ["residual", "transformer", "unet", "gru", "dense"])
def test_exported_networks_compute_the_same(name: str) -> None:
    model, example = network(name)
    data = onnx_bytes(model, example)
    new, _ = simplified(data)
    given = {"input": example.numpy()}
    runs = [
        ReferenceEvaluator(onnx.load_model_from_string(x)).run(None, given) for x in (data, new)
    ]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert simplified(data)[0] == new
    with torch.no_grad():
        assert len(new) <= len(data)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08"])
def test_a_file_that_is_none(data: bytes) -> None:
    with pytest.raises(ConfigError, match="valid ONNX file"):
        simplified(data)

"""An ONNX file as it lies on the disk: is it whole, and of a kind that can be searched?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, inliner, numpy_helper
from onnx.external_data_helper import uses_external_data

from harness.errors import ConfigError
from harness.models.onnx_errors import unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_DROPPED = (TensorProto.INT64, TensorProto.INT32, TensorProto.STRING, TensorProto.BOOL)


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A file that can be converted, as far as its outside shows.

    Attributes:
        path: Where it lies.
        proto: Its content, functions inlined.
        input_name: Its only input's.
        sizes: The input's, the batch included; None where open.
        outputs: Names of those in float32.
        dropped: Names of others, such as a classifier's labels.
        nodes: Those that `outputs` need, in order.
        weights: By name.
    """

    path: Path
    proto: onnx.ModelProto
    input_name: str
    sizes: tuple[int | None, ...]
    outputs: tuple[str, ...]
    dropped: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]
    weights: Mapping[str, NDArray[Any]]


def read_model(path: Path) -> OnnxFile:
    """Read an ONNX file.

    Raises:
        ConfigError: If it can't be read, keeps its weights elsewhere, takes something else than one
            float32 tensor, or returns none.
    """
    proto = _parsed(path)
    graph = proto.graph
    stored = {tensor.name for tensor in graph.initializer}
    name, sizes = _only_input(path, [v for v in graph.input if v.name not in stored])
    outputs, dropped = _float_outputs(path, graph)
    nodes = _needed(graph, outputs)
    if not any(name in node.input for node in nodes):
        raise ConfigError(f"{path}: its outputs don't depend on its input {name!r}.")
    return OnnxFile(path, proto, name, sizes, outputs, dropped, nodes, _weights(path, graph))


def _parsed(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}. Expected an ONNX model.")
    try:
        proto = onnx.load_model(path, load_external_data=False)
        if not proto.graph.node:
            raise ValueError("the graph has no nodes")
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror}.") from exc
    except Exception as exc:  # protobuf's errors have no common base
        raise _not_whole(path, exc) from exc
    if any(uses_external_data(tensor) for tensor in proto.graph.initializer):
        raise ConfigError(
            f"{path} keeps its weights in another file. Export it as one file, weights inside: "
            "`onnx.save(onnx.load(path), path)`, or `external_data=False` in `torch.onnx.export`."
        )
    return proto


def _weights(path: Path, graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    try:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except Exception as exc:  # of sizes that don't agree, or of types that onnx doesn't know
        raise _not_whole(path, exc) from exc


def _not_whole(path: Path, exc: Exception) -> ConfigError:
    reason = f"{type(exc).__name__}: {exc}".splitlines()[0]
    return ConfigError(
        f"{path} is not a whole ONNX file ({reason}). It may be truncated: export it again."
    )


def _only_input(
    path: Path, inputs: list[onnx.ValueInfoProto]
) -> tuple[str, tuple[int | None, ...]]:
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise ConfigError(
            f"{path}: expected one input. Received: {names}. Export one of one input."
        )
    (value,) = inputs
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        raise ConfigError(
            f"{path}: expected an input of float32. Received: {value.name!r} of "
            f"{_type_name(value)}. Export the model with a float32 input (half precision and "
            "quantisation come after pruning; whole numbers such as tokens can't be searched)."
        )
    sizes = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in tensor.shape.dim
    )
    return value.name, sizes


def _float_outputs(path: Path, graph: onnx.GraphProto) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for value in graph.output:
        if not value.type.HasField("tensor_type"):
            raise ConfigError(
                f"{path}: expected tensors as outputs. Received: {value.name!r}, a "
                f"{value.type.WhichOneof('value')}. From scikit-learn, export with "
                "`to_onnx(..., options={'zipmap': False})`."
            )
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.output}
    floats = tuple(n for n, k in kinds.items() if k in (TensorProto.FLOAT, TensorProto.UNDEFINED))
    others = [v for v in graph.output if v.name not in floats]
    foreign = [v for v in others if v.type.tensor_type.elem_type not in _DROPPED]
    if foreign or not floats:
        wrong = (foreign or others)[0]
        trees = next((n for n in graph.node if n.op_type.startswith("TreeEnsemble")), None)
        if trees is not None:
            raise unsupported(path, trees)
        raise ConfigError(
            f"{path}: expected an output of float32. Received: {wrong.name!r} of "
            f"{_type_name(wrong)}. Export the scores or values themselves, in float32."
        )
    return floats, tuple(value.name for value in others)


def _type_name(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return str(kind)
    return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()


def _needed(graph: onnx.GraphProto, outputs: tuple[str, ...]) -> tuple[onnx.NodeProto, ...]:
    wanted, kept = set(outputs), []
    for node in reversed(graph.node):  # a file's nodes are in an order in which they can run
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return tuple(reversed(kept))

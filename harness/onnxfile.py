"""A user's ONNX file: is it whole, and what does it take?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from harness.candidate import OnnxModel
from harness.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.target import Target


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return next((entry.version for entry in proto.opset_import if not entry.domain), 0)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: As in the file.
        dtype: numpy's name of its type.
        shape: Fixed sizes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def fed(self) -> str:
        """What the input is fed where only speed is asked: zeros are valid as any index."""
        return "random" if np.dtype(self.dtype).kind == "f" else "zeros"


def read_onnx(path: Path, target: Target) -> tuple[OnnxModel, list[InputSpec]]:
    """Check a user's ONNX file and return it with its inputs.

    Args:
        path: The file.
        target: Its `shapes` fix what the file leaves open, and its batch an open first size;
            shapes of inputs that the file lacks are not looked at.

    Raises:
        ConfigError: If it is missing, no ONNX file, truncated, lacks its external data, takes
            strings, or leaves sizes open that the target doesn't fix.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}. Expected an ONNX model.")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror}.") from exc
    try:
        proto = onnx.load_model_from_string(data)
        if not proto.graph.node:
            raise ValueError("the graph has no nodes")
    except Exception as exc:  # protobuf's errors have no common base
        raise ConfigError(
            f"{path} is not a whole ONNX file ({exc}). It may be truncated: export it again."
        ) from exc
    tensors = _tensors(proto.graph)
    external = sorted({e.value for t in tensors for e in t.external_data if e.key == "location"})
    if external:
        missing = [name for name in external if not (path.parent / name).is_file()]
        state = f"and {', '.join(missing)} is missing" if missing else "which is not supported yet"
        raise ConfigError(
            f"{path} keeps its weights in external data ({', '.join(external)}), {state}. "
            "Export it as one file, weights inside."
        )
    initializers = {tensor.name for tensor in proto.graph.initializer}
    values = [value for value in proto.graph.input if value.name not in initializers]
    inputs = [_input_spec(path, value, target) for value in values]
    model = OnnxModel(path, hashlib.sha256(data).hexdigest(), len(data), opset_of(proto))
    return model, inputs


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Return every stored tensor of a graph and of the graphs inside its nodes."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute.t] if attribute.HasField("t") else []
            found += attribute.tensors
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                found += _tensors(inner)
    return found


def _input_spec(path: Path, value: onnx.ValueInfoProto, target: Target) -> InputSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
        raise ConfigError(
            f"{path}: input {value.name!r} is not a tensor of numbers. Only those can be timed."
        )
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except (KeyError, ValueError) as exc:
        raise ConfigError(f"{path}: input {value.name!r} has an unknown type.") from exc
    return InputSpec(value.name, str(np.dtype(dtype)), _fixed_shape(path, value, target))


def _fixed_shape(path: Path, value: onnx.ValueInfoProto, target: Target) -> tuple[int, ...]:
    """Return an input's shape: the file's, open sizes filled by the target."""
    tensor, given = value.type.tensor_type, target.shapes.get(value.name)
    sizes = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    shown = [d.dim_param or d.dim_value or "?" for d in tensor.shape.dim]
    if given is not None:
        fits = len(given) == len(sizes) and all(
            s in (g, 0) for g, s in zip(given, sizes, strict=True)
        )
        if tensor.HasField("shape") and not fits:
            raise ConfigError(
                f"{path}: input {value.name!r} has the shape {shown}, which {list(given)} does not "
                "fit. Give a shape that does."
            )
        sizes = list(given)
    if sizes and sizes[0] < 1:
        sizes[0] = target.batch
    elif sizes and target.batch not in (1, sizes[0]):
        raise ConfigError(
            f"{path}: input {value.name!r} has the shape {given or shown}, so it can't be run with "
            f"batch {target.batch}. Give one of them, or export the model with that batch."
        )
    if (given is None and not tensor.HasField("shape")) or any(size < 1 for size in sizes):
        example = "x".join(str(size) if size > 0 else "N" for size in sizes) or "1x3x224x224"
        raise ConfigError(
            f"{path}: input {value.name!r} has the dynamic shape {shown}. A latency holds for one "
            f"shape: give it with `--set shapes.{value.name}={example}`, or export the model with "
            "a fixed one."
        )
    return tuple(sizes)

"""The process that converts a file: ONNX Runtime's tools, its log silenced.

Started with a folder that holds `model.onnx`, `samples.npy` and `job.json`; leaves `result.onnx`
there. What goes wrong is the last line on stderr, and the exit status is 1.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from harness.compression.quantisation.half import halved
from harness.compression.quantisation.nodes import (
    INTEGER_OPERATORS,
    free_outputs,
    integer_nodes,
    name_nodes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

_CHUNK = 64
"""Samples whose activations are held at a time while histograms are made, and by which the range of
half precision is checked."""


class Feed:
    """Samples in a file's batch, as the calibration asks for them: chunk by chunk.

    Args:
        name: Of the input.
        batches: Each `[batch, ...]`.
        per_chunk: Batches in a chunk.
    """

    def __init__(self, name: str, batches: list[NDArray[Any]], per_chunk: int) -> None:
        self._name, self._batches, self._per_chunk = name, batches, per_chunk
        self._left: Iterator[NDArray[Any]] = iter(batches)

    def __len__(self) -> int:
        return -(-len(self._batches) // self._per_chunk)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Feed these chunks next."""
        size = self._per_chunk
        self._left = iter(self._batches[start_index * size : end_index * size])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return what to feed; None at the end."""
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}


def main(folder: Path) -> None:
    """Convert the file in a folder.

    Raises:
        ValueError: If its input is not what the job says, or no node can be converted.
        Exception: Whatever onnx and ONNX Runtime raise.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    logging.disable(logging.CRITICAL)
    job = json.loads((folder / "job.json").read_text())
    proto = onnx.load(folder / "model.onnx")
    batches = _batches(proto, job["input_name"], np.load(folder / "samples.npy"))
    if job["precision"] == "fp16":
        count = max(1, _CHUNK // len(batches[0]))
        result = halved(proto, job["input_name"], batches[:count])
    elif job["precision"] == "int8":
        result = _static(folder, job, batches)
    else:
        result = _dynamic(folder, job)
    _tidy(proto, result)
    onnx.checker.check_model(result)
    _try(result, {job["input_name"]: batches[0]})
    (folder / "result.onnx").write_bytes(result.SerializeToString(deterministic=True))


def _batches(proto: onnx.ModelProto, name: str, samples: NDArray[Any]) -> list[NDArray[Any]]:
    """Return samples in the file's batch, the last one filled up."""
    inputs = {value.name: value.type.tensor_type for value in proto.graph.input}
    if set(inputs) != {name}:
        raise ValueError(f"expected one input {name!r}, received {', '.join(inputs) or 'none'}")
    taken = inputs[name]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(taken.elem_type)
    shape = [size.dim_value for size in taken.shape.dim]
    if samples.dtype != dtype or list(samples.shape[1:]) != shape[1:] or not shape[0]:
        raise ValueError(
            f"expected samples of {dtype} {shape}, received {samples.dtype} {list(samples.shape)}"
        )
    count = -(-len(samples) // shape[0])
    filled = samples[np.arange(count * shape[0]) % len(samples)]
    return list(filled.reshape(count, *shape))


def _prepared(folder: Path) -> Path:
    """Return the file with all shapes, constants folded and batch norms in their layers."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = folder / "prepared.onnx"
    # All sizes are fixed, so shapes follow without symbols: those tools stop at what is computed.
    quant_pre_process(folder / "model.onnx", path, skip_symbolic_shape=True)
    proto = onnx.load(path)
    name_nodes(proto)
    onnx.save(proto, path)
    return path


def _static(folder: Path, job: Mapping[str, Any], batches: list[NDArray[Any]]) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    path, result = _prepared(folder), folder / "quantised.onnx"
    nodes = integer_nodes(onnx.load(path))
    if not nodes:
        raise ValueError("it has no convolution, linear layer or product of matrices")
    methods = {
        "minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }  # fmt: skip
    feed = Feed(job["input_name"], batches, max(1, _CHUNK // len(batches[0])))
    quantize_static(
        path, result, feed, quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=sorted(INTEGER_OPERATORS), nodes_to_quantize=nodes,
        calibrate_method=methods[job["method"]],
        # Unsigned activations: x86 has no kernels for signed ones, and ONNX Runtime turns them
        # into unsigned ones in some places only. ARM has kernels for both.
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        # With weights of 7 bits the sum of two products fits 16 bits: see `takes_full_range`.
        reduce_range=not job["full_range"],
        extra_options={"WeightSymmetric": True, "CalibStridedMinMax": 1},
    )  # fmt: skip
    quantised = onnx.load(result)
    free_outputs(quantised, nodes)
    return quantised


def _dynamic(folder: Path, job: Mapping[str, Any]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path, result = _prepared(folder), folder / "quantised.onnx"
    quantize_dynamic(
        path, result, per_channel=True, reduce_range=not job["full_range"],
        weight_type=QuantType.QInt8, extra_options={"WeightSymmetric": True},
    )  # fmt: skip
    quantised = onnx.load(result)
    integers = {"ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM", "DequantizeLinear"}
    if not any(node.op_type in integers for node in quantised.graph.node):
        raise ValueError("it has no layer whose weights could be quantised")
    return quantised


def _tidy(original: onnx.ModelProto, result: onnx.ModelProto) -> None:
    """Leave the operator sets that are used, and check that names and types are the original's."""
    used = {node.domain for node in result.graph.node}
    kept = [entry for entry in result.opset_import if entry.domain in used]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    for kind in ("input", "output"):
        before, after = (
            [(value.name, value.type.tensor_type.elem_type) for value in getattr(one.graph, kind)]
            for one in (original, result)
        )
        if before != after:
            raise ValueError(f"its {kind}s would change from {before} to {after}")


def _try(proto: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Run the result once; what no kernel computes is told here rather than on the device."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    session.run(None, dict(inputs))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Exception as exc:  # neither onnx's nor ONNX Runtime's errors have a common base
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        text = " ".join(str(exc).split()) or f"at {Path(frame.filename).name}:{frame.lineno}"
        sys.exit(f"{type(exc).__name__}: {text}")

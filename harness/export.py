"""torch -> ONNX, and the gate that the file computes what the network computes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from harness.atomic import write_atomic
from harness.candidate import OnnxModel
from harness.compression.quantisation.precision import FP32
from harness.errors import ExportError
from harness.onnxfile import opset_of
from harness.tasks.objective import as_tuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from harness.tasks.objective import Arrays

OPSET = 17
"""TensorRT 8.6 takes no newer one, and the TorchScript exporter writes exactly what is asked."""
INPUT, OUTPUT = "input", "output"
"""Names in an exported file, where the network brings none; several outputs are numbered."""
FP32_TOLERANCE = 1e-4
"""Largest difference between torch and the file, relative to the largest output."""
FP16_TOLERANCE, FP16_AGREEMENT = 1e-2, 0.995
"""The same for a file in half precision, whose numbers have 11 bits, and the least share of samples
whose class is the network's."""


def export_onnx(
    model: nn.Module,
    example: torch.Tensor,
    path: Path,
    input_name: str = INPUT,
    output_names: Sequence[str] = (),
) -> OnnxModel:
    """Write `model` to `path` as ONNX, weights inside; atomically.

    Args:
        model: The network; it is put into evaluation mode.
        example: One batch, as the target runs it; its shape is fixed in the file.
        path: Where the file goes.
        input_name: Of the input.
        output_names: Of the outputs; empty for `output`, or `output_0`, `output_1`, ...

    Raises:
        ExportError: If the exporter fails, or writes another opset than asked.
    """
    data = onnx_bytes(model, example, input_name, output_names)
    write_atomic(path, data)
    return OnnxModel(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        opset=OPSET,
        n_params=sum(parameter.numel() for parameter in model.parameters()),
        macs=count_macs(model, example[:1]),
    )


def onnx_bytes(
    model: nn.Module,
    example: torch.Tensor,
    input_name: str = INPUT,
    output_names: Sequence[str] = (),
) -> bytes:
    """Return what `export_onnx` writes; the same bytes for the same network.

    Raises:
        ExportError: As `export_onnx`.
    """
    # Contiguous strides: a channels-last trained network must not export transposes.
    model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    buffer = io.BytesIO()
    with _quiet():
        try:
            names = list(output_names) or _output_names(model, example)
            torch.onnx.export(
                model,
                (example.contiguous(),),
                buffer,  # type: ignore[arg-type]  # torch documents a file object
                input_names=[input_name], output_names=names, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
        except Exception as exc:  # the exporter raises what it likes
            raise ExportError(f"torch could not export the network to ONNX: {exc}") from exc
    data = buffer.getvalue()
    opset = opset_of(onnx.load_model_from_string(data))
    if opset != OPSET:
        raise ExportError(f"Asked the exporter for opset {OPSET}, received {opset}.")
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let the exporter say nothing: it announces its own deprecation, and logs what it failed on.

    It switches the log on for every export, also where it was off, and C++ writes it to stdout.
    """
    switch = torch._C._jit_set_onnx_log_enabled
    switch(False)  # an export before this one left it on
    torch._C._jit_set_onnx_log_enabled = lambda enabled: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_set_onnx_log_enabled = switch


def _output_names(model: nn.Module, example: torch.Tensor) -> list[str]:
    with torch.inference_mode():
        count = len(as_tuple(model(example)))
    return [OUTPUT] if count == 1 else [f"{OUTPUT}_{i}" for i in range(count)]


def layer_macs(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Return multiply-accumulates per convolution and linear layer, by module name.

    Args:
        model: The network, in evaluation mode.
        example: One sample, `[1, ...]`.
    """
    macs: dict[str, int] = {}
    hooks = []

    def watch(name: str, layer: nn.Module) -> None:
        def count(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            weight = layer.weight
            assert isinstance(weight, torch.Tensor)
            # Each output element takes one product per weight of its output channel; where the
            # convolution is transposed, each input element one per weight of its input channel.
            elements = inputs[0] if getattr(layer, "transposed", False) else output
            macs[name] = macs.get(name, 0) + elements.numel() * weight[0].numel()

        hooks.append(layer.register_forward_hook(count))

    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    for name, layer in model.named_modules():
        if isinstance(layer, kinds):
            watch(name, layer)
    try:
        with torch.inference_mode():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return macs


def count_macs(model: nn.Module, example: torch.Tensor) -> int:
    """Return multiply-accumulates of all convolution and linear layers for one sample."""
    return sum(layer_macs(model, example).values())


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a file's outputs are from the network's.

    Attributes:
        max_error: Largest absolute difference over the largest absolute value of that output, the
            worst of several outputs; None where they can't be compared: another shape, or not
            finite.
        argmax_differs: Samples whose class differs although its lead exceeds the precision's
            tolerance; 0 where the outputs are no logits.
        n: Samples compared.
        agreement: Share of samples whose class is the network's, 0 to 1; None where the outputs
            are no logits, or can't be compared.
        precision: What the file computes in, a name of `Precision`.
    """

    max_error: float | None
    argmax_differs: int
    n: int
    agreement: float | None = None
    precision: str = FP32.name

    @property
    def passed(self) -> bool:
        """Whether the file computes what the network computes, as far as its precision goes.

        An integer file passes wherever it can be compared: its accuracy is what it is judged by.
        """
        if self.max_error is None:
            return False
        if self.precision == "fp32":
            return self.max_error <= FP32_TOLERANCE and self.argmax_differs == 0
        if self.precision == "fp16":
            agrees = self.agreement is None or self.agreement >= FP16_AGREEMENT
            return self.max_error <= FP16_TOLERANCE and agrees
        return True


def check_parity(
    expected: Arrays, got: Arrays, classifies: bool, precision: str = FP32.name
) -> Parity:
    """Compare all outputs, each `[N, ...]`, of the network and of its file.

    Args:
        expected: The network's.
        got: The file's.
        classifies: Whether the outputs are logits `[N, classes]`.
        precision: What the file computes in, a name of `Precision`.
    """
    n = len(expected[0])
    shapes = [part.shape for part in expected]
    finite = all(np.isfinite(part).all() for part in (*expected, *got))
    if shapes != [part.shape for part in got] or not finite:
        return Parity(None, n, n, None, precision)
    error = max(_relative_error(e, g) for e, g in zip(expected, got, strict=True))
    if not classifies:
        return Parity(error, 0, n, None, precision)
    tolerance = {"fp32": FP32_TOLERANCE, "fp16": FP16_TOLERANCE}.get(precision, 0.0)
    differing = _differing(expected[0], got[0], tolerance)
    agreement = float((expected[0].argmax(1) == got[0].argmax(1)).mean())
    return Parity(error, differing, n, agreement, precision)


def _relative_error(expected: NDArray[np.floating[Any]], got: NDArray[np.floating[Any]]) -> float:
    return float(np.abs(expected - got).max()) / _scale(expected)


def _scale(values: NDArray[np.floating[Any]]) -> float:
    return float(np.abs(values).max()) or 1.0


def _differing(
    expected: NDArray[np.floating[Any]], got: NDArray[np.floating[Any]], tolerance: float
) -> int:
    top = np.sort(expected, axis=1)[:, -2:]
    leads = top[:, -1] - top[:, 0] > tolerance * _scale(expected)
    return int(((expected.argmax(1) != got.argmax(1)) & leads).sum())

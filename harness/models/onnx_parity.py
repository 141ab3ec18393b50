"""Does the torch network compute what the file computes? ONNX Runtime runs the file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.errors import ConfigError
from harness.models.finals import finished
from harness.tasks.objective import as_tuple

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.models.onnx_network import OnnxNetwork

TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest output."""


def check_against_file(
    module: OnnxNetwork,
    path: Path,
    samples: NDArray[np.float32],
    *,
    alike_if_not_finite: bool = False,
) -> float:
    """Return the largest difference between a converted network and its file.

    Args:
        module: The network as `load_onnx` returned it, or a copy that has not been changed.
        path: The file.
        samples: float32 `[N, ...]`, in the file's layout.
        alike_if_not_finite: Whether the same NaN or infinity at the same place is no difference.

    Returns:
        The largest absolute difference over the largest absolute value, of the worst output.
    """
    expected = run_file(path, samples, module.file_outputs)
    with torch.inference_mode():
        found = finished(module.eval(), module.finals)(torch.from_numpy(samples.copy()))
    pairs = zip(expected, as_tuple(found), strict=True)
    return max(_error(e, f.numpy(), alike_if_not_finite) for e, f in pairs)


def _error(expected: NDArray[Any], found: NDArray[Any], alike_if_not_finite: bool) -> float:
    if expected.shape != found.shape:
        return float("inf")
    finite = np.isfinite(expected)
    if alike_if_not_finite and np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        expected, found = expected[finite], found[finite]
    with np.errstate(invalid="ignore"):  # infinity less infinity
        error = float(np.abs(expected - found).max(initial=0.0))
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    return error / scale if np.isfinite(error) else float("inf")


def run_file(
    path: Path, samples: NDArray[np.float32], names: tuple[str, ...]
) -> list[NDArray[Any]]:
    """Return the file's outputs, each `[N, ...]`; in pieces where its batch is fixed.

    Raises:
        ConfigError: If ONNX Runtime refuses it.
    """
    # Wheels from 1.29 on report usage unless told not to, before the import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        (taken,) = session.get_inputs()
        step = taken.shape[0] if isinstance(taken.shape[0], int) else len(samples)
        rows = np.resize(np.arange(len(samples)), -(-len(samples) // step) * step)
        parts = [
            session.run(list(names), {taken.name: samples[rows[i : i + step]]})
            for i in range(0, len(rows), step)
        ]
    except Exception as exc:  # onnxruntime's errors have no common base
        raise ConfigError(
            f"{path}: ONNX Runtime can't run it ({str(exc).splitlines()[0]}). Export it again."
        ) from exc
    return [np.concatenate(column)[: len(samples)] for column in zip(*parts, strict=True)]

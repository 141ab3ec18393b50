"""The frozen reference: one small network, the same for ever, that shows when a machine changes.

It is timed beside every file that `bench` times alone. Its latency is compared with its own
history on the same fingerprint: if it is off, so is everything measured beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.atomic import write_atomic
from harness.candidate import OnnxModel
from harness.errors import ConfigError, ExportError
from harness.folders import cache_folder
from harness.measurement.types import Subject

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHA256 = "14ab16979f5c0b9c0a7fc62bccccb5a969a6129c1b456c17aca295be0a78d39e"
"""Of the file; a change of it would begin every history anew."""
_CHANNELS, _SIZE, _LAYERS, _OPSET = 32, 16, 3, 17
_LEAST_HISTORY, _KEPT = 5, 100
_OFF = math.log(1.1)


def frozen_reference() -> Subject:
    """Return the reference, written to the cache folder where it isn't there yet.

    Raises:
        ExportError: If the installed onnx package writes another file than the frozen one.
        ConfigError: If the cache folder can't be written.
    """
    path = cache_folder() / "reference.onnx"
    if not path.is_file() or _sha256(path.read_bytes()) != SHA256:
        data = _network().SerializeToString(deterministic=True)
        if _sha256(data) != SHA256:
            raise ExportError(
                f"The installed onnx {onnx.__version__} writes another reference model than the "
                "frozen one, so its history would mean nothing. Install onnx 1.17 to 1.23."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        except OSError as exc:
            raise ConfigError(
                f"The reference model can't be written to {path} ({exc.strerror}). Free some "
                "space, or name another cache folder with HARNESS_CACHE_DIR."
            ) from exc
    model = OnnxModel(path, SHA256, path.stat().st_size, _OPSET)
    return Subject(model, {"input": _numbers((1, _CHANNELS, _SIZE, _SIZE), 0)})


def is_off(history_s: Sequence[float], now_s: float) -> bool:
    """Whether the reference's latency is off its own history.

    Off is further from the history's median than 10 %, and than four times its scaled median
    absolute deviation, so that a machine which always varies is not called off for it.

    Args:
        history_s: Earlier latencies on the same fingerprint; fewer than 5 say nothing.
        now_s: The present one.
    """
    if len(history_s) < _LEAST_HISTORY:
        return False
    logs = np.log(np.asarray(history_s))
    centre = float(np.median(logs))
    spread = 1.4826 * float(np.median(np.abs(logs - centre)))
    return abs(math.log(now_s) - centre) > max(_OFF, 4 * spread)


def read_history(fingerprint: str) -> list[float]:
    """Return the reference's earlier latencies, seconds, oldest first."""
    try:
        values = json.loads(_history_file(fingerprint).read_bytes())["p50_s"]
        return [float(value) for value in values if float(value) > 0]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # absent or damaged: a history is a convenience and grows again


def add_to_history(fingerprint: str, now_s: float) -> None:
    """Append a latency; the last 100 are kept."""
    path = _history_file(fingerprint)
    kept = [*read_history(fingerprint), now_s][-_KEPT:]
    with suppress(OSError):  # a convenience: what was measured is not lost for it
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"p50_s": kept}).encode())


def _history_file(fingerprint: str) -> Path:
    return cache_folder() / "references" / f"{fingerprint}.json"


def _network() -> onnx.ModelProto:
    """Return a chain of 3x3 convolutions whose weights are whole-number arithmetic."""
    nodes, weights, name = [], [], "input"
    for i in range(_LAYERS):
        kernel = _numbers((_CHANNELS, _CHANNELS, 3, 3), i + 1)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes.append(helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        name = f"r{i}"
    shape = [1, _CHANNELS, _SIZE, _SIZE]
    graph = helper.make_graph(
        nodes, "reference", [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)], weights,
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8,
        producer_name="latency-harness",
    )  # fmt: skip


def _numbers(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return numbers in [-1/16, 1/16) that are the same on every machine: no random generator."""
    index = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(seed * 1_000_003)
    mixed = (index * np.uint64(2654435761)) % np.uint64(2**32)
    return ((mixed.astype(np.float64) / 2**32 - 0.5) / 8).astype(np.float32).reshape(shape)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

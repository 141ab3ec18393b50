"""A backend whose clock is made up: latency is a formula of the file's size, inference is real.

Never registered by itself. A test adds it: `BACKENDS["fake"] = FakeBackend.PATH`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx

from harness.errors import BackendError
from harness.measurement.types import Block
from harness_backends.base import Backend, Session, Worker
from harness_backends.onnxruntime import OnnxRuntimeWorker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.target import Target

FIXED_NS, NS_PER_BYTE = 40_000, 10.0
"""A call takes this long, and this much more per byte of the file."""


def fake_latency_ns(size_bytes: int) -> float:
    """Return the made-up latency of a model, nanoseconds."""
    return FIXED_NS + NS_PER_BYTE * size_bytes


class FakeSession(Session):
    """A model whose calls are made up; it infers for real, in a process started for that."""

    def __init__(self, target: Target, model: OnnxModel, inputs: Mapping[str, Any]) -> None:
        self._target, self._model, self._inputs = target, model, inputs
        self.latency_ns = fake_latency_ns(model.path.stat().st_size)
        self.session_create_s, self.first_inference_s = 0.01, 2e-9 * self.latency_ns

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model through ONNX Runtime."""
        with OnnxRuntimeWorker(self._target) as worker:
            return worker.load(self._model, self._inputs).infer(inputs)


class FakeWorker(Worker):
    """Times by formula, with the same small ripple every time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.facts = {
            "runtime_version": "1.0",
            "python": "3",
            "machine": {
                "cpu_model": "made up", "cpu_count": 1, "cpu_flags": [], "architecture": "none",
                "memory_bytes": 2**30,
            },
        }  # fmt: skip

    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> FakeSession:
        """Check that the file is an ONNX model."""
        try:
            onnx.load(str(model.path))
        except Exception as exc:  # protobuf's errors have no common base
            raise BackendError(f"{model.path.name} on target {self._target.name!r}: {exc}") from exc
        return FakeSession(self._target, model, inputs)

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        """Return made-up calls: within 1 % of the formula, in a fixed pattern."""
        blocks = []
        for session, calls in schedule:
            ripple = 1 + 0.01 * np.sin(np.arange(calls) * 2.4)
            wall = np.round(session.latency_ns * ripple).astype(np.int64)
            blocks.append(Block(wall, wall.copy(), np.zeros(calls, np.int64)))
        return blocks

    def state(self) -> dict[str, Any]:
        """Return a machine that never changes."""
        return {"governor": "fake", "max_khz": 1, "throttle_count": 0}

    def close(self) -> None:
        """Nothing runs between calls."""


class FakeBackend(Backend):
    """The made-up clock as a backend."""

    name: ClassVar[str] = "fake"
    PATH: ClassVar[str] = "harness_backends.testing.fake:FakeBackend"

    @classmethod
    def check_available(cls) -> str:
        """Return a version; it is always there."""
        return "1.0"

    def open(self) -> FakeWorker:
        """Start a fresh worker."""
        return FakeWorker(self.target)

"""A backend whose clock is made up: latency is a formula of the file's size, inference is real.

On a target with an `emulated_cpu` it counts made-up instructions instead.

Never registered by itself. A test adds it: `BACKENDS["fake"] = FakeBackend.PATH`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx

from harness.errors import BackendError
from harness.measurement.types import Block, OperatorTime
from harness_backends.base import Backend, Session, Worker
from harness_backends.onnxruntime import OnnxRuntimeBackend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.target import Target

FIXED_NS, NS_PER_BYTE = 40_000, 10.0
"""A call takes this long, and this much more per byte of the file."""
FIXED_INSTR, INSTR_PER_BYTE, COUNT_RIPPLE = 2_000_000, 400.0, 5e-4
"""The same of instructions, where a CPU is emulated, and how far calls differ."""


def fake_latency_ns(size_bytes: int) -> float:
    """Return the made-up latency of a model, nanoseconds."""
    return FIXED_NS + NS_PER_BYTE * size_bytes


def fake_instructions(size_bytes: int) -> float:
    """Return the made-up instructions of a model's call."""
    return FIXED_INSTR + INSTR_PER_BYTE * size_bytes


class FakeSession(Session):
    """A model whose calls are made up; it infers for real, in a process started for that."""

    def __init__(
        self, target: Target, model: OnnxModel, inputs: Mapping[str, Any], repeat: int
    ) -> None:
        self._target, self._model, self._inputs = target, model, inputs
        size = model.path.stat().st_size
        self.latency_ns = repeat * fake_latency_ns(size)
        # What `Worker.time` tells of a call, and how far calls differ.
        self.figure, self.ripple = self.latency_ns, 0.01
        if target.emulated_cpu:
            self.figure, self.ripple = repeat * fake_instructions(size), COUNT_RIPPLE
        self.session_create_s, self.first_inference_s = 0.01, 2e-9 * self.latency_ns

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model through ONNX Runtime."""
        here = replace(self._target, emulated_cpu="")
        with OnnxRuntimeBackend(here).open() as worker:
            return worker.load(self._model, self._inputs).infer(inputs)


class FakeWorker(Worker):
    """Times by formula, with the same small ripple every time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.facts = {
            "runtime_version": "1.0",
            "quantity": target.quantity.name,
            "python": "3",
            "machine": {
                "cpu_model": "made up", "cpu_count": 1, "cpu_flags": [], "architecture": "none",
                "memory_bytes": 2**30,
            },
        }  # fmt: skip

    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> FakeSession:
        """Check that the file is an ONNX model."""
        self._read(model)
        return FakeSession(self._target, model, inputs, repeat)

    def _read(self, model: OnnxModel) -> onnx.ModelProto:
        try:
            return onnx.load(str(model.path))
        except Exception as exc:  # protobuf's errors have no common base
            raise BackendError(f"{model.path.name} on target {self._target.name!r}: {exc}") from exc

    def reload(self, session: Any) -> None:
        """Leave the session as it is: nothing lies in memory."""

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        """Return made-up calls: near the formula, in a fixed pattern."""
        blocks = []
        for session, calls in schedule:
            ripple = 1 + session.ripple * np.sin(np.arange(calls) * 2.4)
            wall = np.round(session.figure * ripple).astype(np.int64)
            blocks.append(Block(wall, wall.copy(), np.zeros(calls, np.int64)))
        return blocks

    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Serve each request in the made-up latency, in order."""
        begun, free = [], 0
        for due in due_ns.tolist():
            begun.append(max(due, free))
            free = begun[-1] + round(session.latency_ns)
        start = np.array(begun, np.int64)
        return np.stack([due_ns.astype(np.int64), start, start + round(session.latency_ns)])

    def profile(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
    ) -> list[OperatorTime]:
        """Share the made-up latency among the file's nodes equally."""
        nodes = self._read(model).graph.node
        each_s = fake_latency_ns(model.path.stat().st_size) * 1e-9 / len(nodes)
        return [
            OperatorTime(node.name or f"node_{i}", node.op_type, (each_s,) * runs)
            for i, node in enumerate(nodes)
        ]

    def peak_memory_bytes(self) -> int | None:
        """Return a made-up peak."""
        return 2**26

    def state(self) -> dict[str, Any]:
        """Return a machine that never changes."""
        return {"governor": "fake", "max_khz": 1, "throttle_count": 0}

    def close(self) -> None:
        """Nothing runs between calls."""


class FakeBackend(Backend):
    """The made-up clock as a backend."""

    name: ClassVar[str] = "fake"
    PATH: ClassVar[str] = "harness_backends.testing.fake:FakeBackend"

    def check_available(self) -> str:
        """Return a version; it is always there."""
        return "1.0"

    def open(self) -> FakeWorker:
        """Start a fresh worker."""
        return FakeWorker(self.target)

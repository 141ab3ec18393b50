"""A backend whose clock is made up: latency is a formula of the file's size, inference is real.

Never registered by itself. A test adds it: `BACKENDS["fake"] = FakeBackend.PATH`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.measurement.types import Block
from harness_backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeWorker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.target import Target
    from harness_backends.onnxruntime import OnnxRuntimeSession

FIXED_NS, NS_PER_BYTE = 2_000, 0.5
"""A call takes this long, and this much more per byte of the file."""


def fake_latency_ns(size_bytes: int) -> float:
    """Return the made-up latency of a model, nanoseconds."""
    return FIXED_NS + NS_PER_BYTE * size_bytes


class FakeWorker(OnnxRuntimeWorker):
    """Loads and infers for real; times by formula, with the same small ripple every time."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._size: dict[str, int] = {}

    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> OnnxRuntimeSession:
        """Load for real, and remember the size."""
        session = super().load(model, inputs)
        self._size[session.key] = model.path.stat().st_size
        return session

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        """Return made-up calls: within 1 % of the formula, in a fixed pattern."""
        blocks = []
        for session, calls in schedule:
            ripple = 1 + 0.01 * np.sin(np.arange(calls) * 2.4)
            wall = np.round(fake_latency_ns(self._size[session.key]) * ripple).astype(np.int64)
            blocks.append(Block(wall, wall.copy(), np.zeros(calls, np.int64)))
        return blocks

    def state(self) -> dict[str, Any]:
        """Return a machine that never changes."""
        return {"governor": "fake", "max_khz": 1, "throttle_count": 0}


class FakeBackend(OnnxRuntimeBackend):
    """The made-up clock as a backend."""

    name: ClassVar[str] = "fake"
    PATH: ClassVar[str] = "harness_backends.testing.fake:FakeBackend"

    def open(self) -> FakeWorker:
        """Start a fresh worker."""
        return FakeWorker(self.target)

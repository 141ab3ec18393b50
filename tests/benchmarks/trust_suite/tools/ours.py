"""The project's own measurement: both models in one fresh process, interleaved in rounds."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import onnx

from harness.candidate import OnnxModel
from harness.measurement.rounds import measure, quick
from harness.measurement.types import Measurement, Subject
from harness_backends.registry import open_backend
from harness_backends.targets import find_target
from trust_suite.intervals import Ratio
from trust_suite.tools.base import Tool, Unit


class Ours(Tool):
    """One process per pair, interval over rounds."""

    distribution: ClassVar[str] = "latency-harness"

    def __init__(self) -> None:
        self._backend = open_backend(find_target("cpu"))

    def compare(
        self, a: Unit, b: Unit, seconds: float, seed: int, confidence: float = 0.99
    ) -> Ratio:
        """Return the paired ratio and its interval, as the harness gives them."""
        measured = self._measure({"a": a, "b": b}, "a", seconds, seed, confidence)
        ratio = measured["b"].stats.ratio("p50")
        return Ratio(ratio.value, ratio.lo, ratio.hi)

    def p50_s(self, unit: Unit, seconds: float, seed: int) -> float:
        """Return the median over all calls, preempted ones too."""
        return self._measure({"a": unit}, None, seconds, seed, 0.99)["a"].stats.p50_raw

    def _measure(
        self,
        units: dict[str, Unit],
        reference: str | None,
        seconds: float,
        seed: int,
        confidence: float,
    ) -> dict[str, Measurement]:
        subjects = {name: _subject(unit) for name, unit in units.items()}
        plan = quick(seconds, confidence=confidence)
        # The runner holds the host's lock already, for every tool alike.
        return measure(self._backend.open, subjects, reference, plan, nullcontext, seed)


def _subject(unit: Unit) -> Subject:
    data = unit.path.read_bytes()
    proto = onnx.load_model_from_string(data)
    model = OnnxModel(
        unit.path, hashlib.sha256(data).hexdigest(), len(data), proto.opset_import[0].version
    )
    rng = np.random.default_rng(0)
    shapes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input
    }
    inputs = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return Subject(model, inputs, repeat=unit.repeat)

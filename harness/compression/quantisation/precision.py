"""The core type: which numbers an exported file computes in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Precision:
    """Which numbers an exported file computes in.

    Attributes:
        name: `"fp32"`; `"fp16"`, weights and activations; `"int8"`, both, with activation ranges
            fixed by calibration (static); `"int8-dynamic"`, ranges found at every call.
        calibration: Training samples that fix the ranges of `"int8"`.
        method: How they do: `"minmax"`, `"entropy"` or `"percentile"`.
    """

    name: str = "fp32"
    calibration: int = 512
    method: str = "minmax"


FP32 = Precision()
WEIGHT_BYTES = {FP32.name: 4, "int8": 1, "fp16": 2, "int8-dynamic": 1}
"""What a weight takes in a file, by precision: all that there are."""
PROBE_CALIBRATION = 32
"""Calibration samples of an untrained network: how long a file takes doesn't depend on ranges."""

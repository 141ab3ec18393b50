"""OpenVINO's benchmark_app: one median per run, no interval.

It times the same file with its own runtime. `-nthreads` and `-nstreams` need `-hint none`, with
which a synchronous run still uses the latency mode; `-infer_precision f32` keeps it from bf16 on
processors that have it. `-t` takes whole seconds, one at least.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import ClassVar

from trust_suite.intervals import Ratio
from trust_suite.tools.base import Tool, ToolError, Unit, run_command

_START_S = 0.5
"""Start-up and compilation of a model of a millisecond."""
_UNIT_S = {"us": 1e-6, "ms": 1e-3}


class BenchmarkApp(Tool):
    """One run per model."""

    distribution: ClassVar[str] = "openvino"

    def compare(
        self, a: Unit, b: Unit, seconds: float, seed: int, confidence: float = 0.99
    ) -> Ratio:
        """Return the ratio of two medians."""
        return Ratio(self.p50_s(b, seconds / 2, seed) / self.p50_s(a, seconds / 2, seed))

    def p50_s(self, unit: Unit, seconds: float, seed: int) -> float:
        """Return the median that it prints."""
        if unit.repeat != 1:
            raise ToolError("benchmark_app times a file, not a number of inferences")
        whole = max(1, round(seconds - _START_S))
        printed = run_command(
            [Path(sys.executable).with_name("benchmark_app"), "-m", unit.path, "-t", whole,
             "-hint", "none", "-nthreads", 1, "-nstreams", 1, "-api", "sync",
             "-infer_precision", "f32"],
            timeout_s=60 + 10 * seconds,
        )  # fmt: skip
        found = re.search(r"Median:\s+([0-9.]+) (us|ms)", printed)
        if found is None:
            raise ToolError("benchmark_app printed no median")
        return float(found[1]) * _UNIT_S[found[2]]

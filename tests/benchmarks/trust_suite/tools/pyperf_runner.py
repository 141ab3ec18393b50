"""pyperf: its Runner, with as many worker processes as the time allows.

Its defaults (20 processes of 1 warm-up and 3 values of 100 ms) take about half a minute for a
pair. Here values last 50 to 100 ms, and 2 to 20 processes are run for each model. The number of
loops is calibrated by pyperf itself once per model and then given with `--loops`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trust_suite.intervals import Ratio, ratio_of_means
from trust_suite.tools.base import Tool, Unit, run_python

if TYPE_CHECKING:
    import pyperf

_VALUE_S = 0.05
_START_S, _PROCESS_S = 0.25, 0.48
"""What the manager and what each worker takes for a model, with a warm-up and three values."""


class Pyperf(Tool):
    """Mean over all values of all processes, as `pyperf compare_to` takes it."""

    distribution: ClassVar[str] = "pyperf"

    def __init__(self) -> None:
        self._loops: dict[Unit, int] = {}

    def compare(
        self, a: Unit, b: Unit, seconds: float, seed: int, confidence: float = 0.99
    ) -> Ratio:
        """Return the ratio of two means, interval by a t test over values, as compare_to's."""
        processes = round((seconds / 2 - _START_S) / _PROCESS_S)
        processes = min(20, max(2, processes))
        return ratio_of_means(self._values(a, processes), self._values(b, processes), confidence)

    def _values(self, unit: Unit, processes: int) -> tuple[float, ...]:
        if unit not in self._loops:
            once = _benchmark(unit, "--processes=1", "--values=1", "--warmups=1")
            self._loops[unit] = once.get_loops()
        loops = self._loops[unit]
        benchmark = _benchmark(unit, f"--processes={processes}", "--values=3", "--warmups=1",
                               f"--loops={loops}")  # fmt: skip
        values: tuple[float, ...] = benchmark.get_values()
        return values


def _benchmark(unit: Unit, *options: str) -> pyperf.Benchmark:
    import pyperf  # only where the tool is used

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "values.json"
        run_python("bench_func.py", unit.path, unit.repeat, "--quiet", "--output", out,
                   "--min-time", _VALUE_S, *options, timeout_s=300)  # fmt: skip
        return pyperf.Benchmark.load(str(out))

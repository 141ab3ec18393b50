"""MLPerf LoadGen, scenario SingleStream: the next query is issued once the last is answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from trust_suite.intervals import Ratio, ratio_of_medians
from trust_suite.tools.base import Tool, Unit, run_python

_START_S, _LEAST_S = 0.3, 0.1
"""Start-up of a process, its warm-up included; the shortest run."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One LoadGen run.

    Attributes:
        p50_s: The 50th percentile in its log.
        calls_s: All queries, as the system under test clocked them.
    """

    p50_s: float
    calls_s: list[float]


class LoadGen(Tool):
    """One run per model, each in a fresh process."""

    distribution: ClassVar[str] = "mlcommons-loadgen"

    def compare(
        self, a: Unit, b: Unit, seconds: float, seed: int, confidence: float = 0.99
    ) -> Ratio:
        """Return the ratio of two reported medians.

        LoadGen gives no interval; it is formed from the queries' order statistics, which takes
        them for independent, as LoadGen's own early stopping does.
        """
        least_s = max(_LEAST_S, seconds / 2 - _START_S)
        one, other = _run(a, least_s), _run(b, least_s)
        return ratio_of_medians((one.p50_s, other.p50_s), (one.calls_s, other.calls_s), confidence)

    def p50_s(self, unit: Unit, seconds: float, seed: int) -> float:
        """Return the median of a run whose minimum duration is `seconds`."""
        return _run(unit, seconds).p50_s


def _run(unit: Unit, least_s: float) -> _Run:
    printed = run_python(
        "single_stream.py",
        unit.path,
        unit.repeat,
        round(least_s * 1000),
        timeout_s=60 + 10 * least_s,
    )
    return _Run(**json.loads(printed.splitlines()[-1]))

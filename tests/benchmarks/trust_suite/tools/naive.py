"""What most tutorials and Olive do: 10 warm-up runs, 20 repeats, their mean, in a fresh process."""

from __future__ import annotations

import json
from typing import ClassVar

from trust_suite.intervals import Ratio, ratio_of_means
from trust_suite.tools.base import Tool, Unit, run_python


class Naive(Tool):
    """Mean of 20; its length is fixed, so the seconds asked for are not used."""

    distribution: ClassVar[str] = "onnxruntime"

    def compare(
        self, a: Unit, b: Unit, seconds: float, seed: int, confidence: float = 0.99
    ) -> Ratio:
        """Return the ratio of two means, interval from the standard errors of both."""
        return ratio_of_means(_repeats(a), _repeats(b), confidence)


def _repeats(unit: Unit) -> list[float]:
    printed = run_python("naive.py", unit.path, unit.repeat, timeout_s=120)
    repeats: list[float] = json.loads(printed)
    return repeats

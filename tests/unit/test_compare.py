from __future__ import annotations

import pytest

from harness.budget import Decision
from harness.measurement.compare import AS_FAST, Verdict, verdict
from harness.measurement.types import Estimate


@pytest.mark.parametrize(
    ("lo", "hi", "word", "decision"),
    [
        (0.9, 0.99, "faster", Decision.FEASIBLE),
        (1.01, 1.1, "slower", Decision.INFEASIBLE),
        (0.99, 1.01, "not resolved", Decision.UNDECIDED),
        (1.0, 1.2, "not resolved", Decision.UNDECIDED),
    ],
)
def test_a_word_is_said_only_if_the_interval_excludes_one(
    lo: float, hi: float, word: str, decision: Decision
) -> None:
    ratio = Estimate((lo + hi) / 2, lo, hi)
    assert verdict(ratio) == word
    assert AS_FAST.place(ratio) is decision


def test_exactly_as_fast_is_not_faster() -> None:
    assert verdict(Estimate(1.0, 1.0, 1.0)) is Verdict.NOT_RESOLVED

"""The offline scenario: how many samples a second, when all of them are there at once.

The calls are those of the rounds, on whole batches. Every call counts, preempted or not: a
throughput is what one got.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.measurement.intervals import log_interval, per_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.measurement.types import Estimate, LatencySample


@dataclass(frozen=True, slots=True)
class Throughput:
    """Samples per second.

    Attributes:
        batch: Samples per call.
        per_s: Samples per second.
        ratio: To the first model's, in the same rounds; None for the first.
    """

    batch: int
    per_s: Estimate
    ratio: Estimate | None


def throughput(
    samples: Sequence[LatencySample],
    batch: int,
    base: tuple[Sequence[LatencySample], int] | None,
    confidence: float,
) -> Throughput:
    """Return a model's throughput with its interval over processes, or over sittings in one.

    Args:
        samples: Its calls, one per process.
        batch: Samples per call.
        base: The first model's calls in the same rounds, and its batch; None for the first.
        confidence: Of the intervals.
    """
    own = [_log_rates(sample, batch) for sample in samples]
    ratio = None
    if base is not None:
        theirs = [_log_rates(sample, base[1]) for sample in base[0]]
        ratio = _over_units([a - b for a, b in zip(own, theirs, strict=True)], confidence)
    return Throughput(batch, _over_units(own, confidence), ratio)


def _log_rates(sample: LatencySample, batch: int) -> NDArray[np.float64]:
    """Return the log of samples per second, by sitting."""
    calls = per_call(sample)
    return np.array([
        np.log(batch * calls[rounds].size / calls[rounds].sum()) for rounds in sample.sittings()
    ])  # fmt: skip


def _over_units(processes: Sequence[NDArray[np.float64]], confidence: float) -> Estimate:
    if len(processes) == 1:
        return log_interval(processes[0], confidence, trim=True)
    return log_interval([float(logs.mean()) for logs in processes], confidence, trim=False)

"""A LoadGen SingleStream run: `single_stream.py MODEL REPEAT MIN_DURATION_MS`.

Prints, as one line of JSON, the median that LoadGen reports and what each query took by our own
clock: LoadGen's own per-query times are only in its trace, whose writing disturbs the run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from loading import load_unit

from harness_backends.loadgen_child import figures_of, single_stream

_WARM_UP = 50
_HEADROOM = 0.5
"""Expected latency over the fastest of the warm-up. LoadGen makes all queries beforehand, as many
as the expected latency says: a run that is out of them early is invalid, spare ones are free."""


def main() -> None:
    unit, least_ms = load_unit(sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
    fast_s = float(np.percentile([_clocked(unit) for _ in range(_WARM_UP)], 5))
    calls_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        expected_ns = max(1, int(_HEADROOM * fast_s * 1e9))
        single_stream(lambda: calls_s.append(_clocked(unit)), least_ms, expected_ns, folder)
        figures = figures_of(Path(folder) / "mlperf_log_detail.txt")
    if figures["result_validity"] != "VALID":
        sys.exit(f"LoadGen calls the run {figures['result_validity']}")
    p50_s = figures["result_50.00_percentile_latency_ns"] * 1e-9
    print(json.dumps({"p50_s": p50_s, "calls_s": [round(call_s, 9) for call_s in calls_s]}))


def _clocked(unit: Callable[[], None]) -> float:
    start = time.perf_counter()
    unit()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

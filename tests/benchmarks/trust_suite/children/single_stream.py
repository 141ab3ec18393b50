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
from typing import Any

import mlperf_loadgen as lg
import numpy as np
from loading import load_unit

_WARM_UP = 50
_HEADROOM = 0.5
"""Expected latency over the fastest of the warm-up. LoadGen makes all queries beforehand, as many
as the expected latency says: a run that is out of them early is invalid, spare ones are free."""


def main() -> None:
    unit, least_ms = load_unit(sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.SingleStream
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = least_ms
    fast_s = float(np.percentile([_clocked(unit) for _ in range(_WARM_UP)], 5))
    settings.single_stream_expected_latency_ns = max(1, int(_HEADROOM * fast_s * 1e9))
    calls_s: list[float] = []

    def issue(samples: list[Any]) -> None:
        calls_s.append(_clocked(unit))
        lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])

    with tempfile.TemporaryDirectory() as folder:
        _start(issue, settings, folder)
        figures = _figures(Path(folder) / "mlperf_log_detail.txt")
    if figures["result_validity"] != "VALID":
        sys.exit(f"LoadGen calls the run {figures['result_validity']}")
    p50_s = figures["result_50.00_percentile_latency_ns"] * 1e-9
    print(json.dumps({"p50_s": p50_s, "calls_s": [round(call_s, 9) for call_s in calls_s]}))


def _clocked(unit: Callable[[], None]) -> float:
    start = time.perf_counter()
    unit()
    return time.perf_counter() - start


def _start(issue: Callable[[list[Any]], None], settings: lg.TestSettings, folder: str) -> None:
    output = lg.LogOutputSettings()
    output.outdir = folder
    log = lg.LogSettings()
    log.log_output, log.enable_trace = output, False
    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(1, 1, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(sut, library, settings, log)
    lg.DestroyQSL(library)
    lg.DestroySUT(sut)


def _figures(path: Path) -> dict[str, Any]:
    """Return the log's entries by key."""
    prefix = ":::MLLOG "
    lines = (line for line in path.read_text().splitlines() if line.startswith(prefix))
    entries = (json.loads(line.removeprefix(prefix)) for line in lines)
    return {entry["key"]: entry["value"] for entry in entries}


if __name__ == "__main__":
    main()

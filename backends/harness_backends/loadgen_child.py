"""LoadGen's process: `python -m harness_backends.loadgen_child ASKED`, see `loadgen.referee`.

It makes its session as the agent does, so that both time the same. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_backends.agent.runtimes import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Callable

_WARM_UP, _WARM_UP_S = 50, 10.0
_HEADROOM = 0.5
"""Expected latency over the fastest calls of the warm-up. LoadGen makes all queries beforehand, as
many as the expected latency says: a run that is out of them early is INVALID, spare ones are free.
"""


def main() -> None:
    """Run LoadGen and print what its log says."""
    asked = json.loads(sys.argv[1])
    if asked["affinity"]:
        os.sched_setaffinity(0, asked["affinity"])
    runtime = OnnxRuntime()
    with runtime.np.load(asked["inputs"]) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    call = runtime.call(runtime.create(asked["model"], asked["options"]), feed)
    took_s = [_clocked(call)]
    while len(took_s) < _WARM_UP and sum(took_s) < _WARM_UP_S:
        took_s.append(_clocked(call))
    expected_ns = max(1, int(_HEADROOM * sorted(took_s)[len(took_s) // 20] * 1e9))
    single_stream(call, asked["min_duration_ms"], expected_ns, asked["logs"])
    log = figures_of(Path(asked["logs"]) / "mlperf_log_detail.txt")
    figures = {
        "verdict": log["result_validity"],
        "n_queries": log["result_query_count"],
        **{f"p{p}_s": log[f"result_{p}.00_percentile_latency_ns"] * 1e-9 for p in (50, 90, 99)},
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def single_stream(
    call: Callable[[], Any], min_duration_ms: int, expected_ns: int, logs: str
) -> None:
    """Run LoadGen's SingleStream: the next query is issued once the last is answered.

    Args:
        call: One query.
        min_duration_ms: How long at least, milliseconds.
        expected_ns: Expected latency, nanoseconds; it says how many queries are made beforehand.
        logs: Folder for LoadGen's logs.
    """
    import mlperf_loadgen as lg

    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
    settings.min_duration_ms = min_duration_ms
    settings.single_stream_expected_latency_ns = expected_ns

    def issue(samples: list[Any]) -> None:
        call()
        lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])

    output, log = lg.LogOutputSettings(), lg.LogSettings()
    output.outdir = logs
    log.log_output, log.enable_trace = output, False
    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(1, 1, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(sut, library, settings, log)
    lg.DestroyQSL(library)
    lg.DestroySUT(sut)


def _clocked(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def figures_of(path: Path) -> dict[str, Any]:
    """Return the entries of LoadGen's detail log by key."""
    prefix = ":::MLLOG "
    lines = (line for line in path.read_text().splitlines() if line.startswith(prefix))
    entries = (json.loads(line.removeprefix(prefix)) for line in lines)
    return {entry["key"]: entry["value"] for entry in entries}


if __name__ == "__main__":
    main()

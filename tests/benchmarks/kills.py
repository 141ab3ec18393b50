"""What `kill -9` leaves behind: one second after every phase boundary, and at random moments.

    python tests/benchmarks/kills.py results/reference/kills.csv [--random 10]

Each run is the real search of the embedded task with two trials on this CPU, killed, inspected and
resumed. A row says what was whole and what was lost: records that can't be read, temporary files
that the resumed run did not sweep, processes that outlived the search, trials that had been
reported and are gone or different, and whether the resumed run finished.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.budget import parse_budgets
from harness.errors import ConfigError
from harness.tasks import shipped_task
from harness_backends.targets import find_target
from harness_results.record import RunRecord, read_record
from harness_results.store import StudyFolder
from harness_search.engine import search
from harness_search.progress import Progress
from harness_search.settings import Settings

BOUNDARIES = {
    "teacher": "training the dense model",
    "probe": "trial 0: timing the untrained network",
    "training": "trial 0: distilling",
    "export": "trial 0: scoring the exported file",
    "record": "recorded 0",
    "finals": "final measurement",
    "csv": "scoring on the test split",
}
COLUMNS = (
    "moment", "after_s", "records", "unreadable", "trials_reported", "trials_lost", "orphans",
    "resumed_exit", "resumed_trials", "swept",
)  # fmt: skip


class Printing(Progress):
    def phase(self, text: str) -> None:
        print(text, flush=True)

    def trial_done(self, record: RunRecord) -> None:
        print(f"recorded {record.index} {record.run_id}", flush=True)


def child(results: Path) -> None:
    settings = Settings(
        find_target("cpu"), parse_budgets("50%"), trials=2, time_s=None, results=results
    )
    sys.exit(search(settings, shipped_task("digits"), Printing()).exit_code)


def run(results: Path, cache: Path, moment: str | None, delay: float) -> tuple[int, list[str]]:
    """Run the child; kill it `delay` seconds after the line of `moment`; return code and lines."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", str(results)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "HARNESS_CACHE_DIR": str(cache)},
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    if moment is not None:
        if moment != "start":
            for line in process.stdout:
                lines.append(line.strip())
                if line.startswith(moment):
                    break
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    return process.returncode, lines + rest.splitlines()


def orphans() -> int:
    """Count timing agents whose search is gone, two seconds after the kill."""
    time.sleep(2)
    ended = subprocess.run(["pgrep", "-fc", "harness-agent"], capture_output=True, text=True)
    return int(ended.stdout.strip() or 0)


def inspect(
    moment: str, delay: float, lines: list[str], results: Path, cache: Path
) -> dict[str, Any]:
    records, unreadable = {}, 0
    for path in results.glob("studies/*/records/*.json"):
        try:
            records[path.stem] = read_record(path).to_json()
        except ConfigError:
            unreadable += 1
    reported = [line.split()[2] for line in lines if line.startswith("recorded")]
    left = orphans()
    code, _ = run(results, cache, None, 0)
    (folder,) = (results / "studies").iterdir()
    after = {r.run_id: r for r in StudyFolder(results, folder.name).read()}
    lost = [r for r in reported if r not in after or after[r].to_json() != records[r]]
    return {
        "moment": moment, "after_s": f"{delay:.1f}", "records": len(records),
        "unreadable": unreadable, "trials_reported": len(reported), "trials_lost": len(lost),
        "orphans": left, "resumed_exit": code,
        "resumed_trials": sum(record.kind == "trial" for record in after.values()),
        "swept": not [p for p in folder.rglob("*") if p.name.endswith(".tmp")],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--random", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    asked = parser.parse_args()
    if asked.child is not None:
        child(asked.child)
    rng = random.Random(asked.seed)
    base = Path(tempfile.mkdtemp())
    start = time.monotonic()
    run(base / "whole", base / "cache", None, 0)  # trains and caches the teacher
    whole = time.monotonic() - start
    moments = [(name, line, 1.0) for name, line in BOUNDARIES.items()]
    moments += [("random", "start", rng.uniform(2, 0.5 * whole)) for _ in range(asked.random)]
    with asked.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for number, (name, line, delay) in enumerate(moments):
            results = base / str(number)
            cache = base / "empty" if name == "teacher" else base / "cache"
            _, lines = run(results, cache, line, delay)
            row = inspect(name, delay, lines, results, cache)
            print(json.dumps(row), flush=True)
            writer.writerow(row)
            file.flush()
            shutil.rmtree(results)
    shutil.rmtree(base)


if __name__ == "__main__":
    main()

"""The default search with several seeds: accuracy and latency of dense, controls and winner.

    python tests/benchmarks/seeds.py results/reference/digits-seeds.csv [--seeds 0,1,2]

Every seed starts without the teacher's cached weights, as on a fresh machine. The last lines say
where the time of a trial goes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS = (
    "seed", "role", "test_acc", "test_acc_lo", "test_acc_hi", "val_acc", "ratio_ref", "ratio_lo",
    "ratio_hi", "latency_ms", "latency_lo_ms", "latency_hi_ms", "feasible", "flags", "macs",
    "params", "search_trials", "wall_s", "fingerprint", "backend_version",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    rows, phases = [], {}
    for seed in asked.seeds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results"
            start = time.monotonic()
            subprocess.run(
                [Path(sys.executable).parent / "harness", "search", "--target", "cpu",
                 "--budget", "50%", "--seed", seed, "--results", str(results)],
                env={**os.environ, "HARNESS_CACHE_DIR": str(Path(folder) / "cache")}, check=False,
            )  # fmt: skip
            wall = time.monotonic() - start
            with (results / "leaderboard.csv").open() as file:
                for row in csv.DictReader(file):
                    rows.append({**row, "wall_s": f"{wall:.0f}"})
            for path in results.glob("studies/*/records/*.json"):
                record = json.loads(path.read_text())
                if record["kind"] == "trial":
                    for name, seconds in record["timings_s"].items():
                        phases[name] = phases.get(name, 0.0) + seconds
    with asked.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    total = sum(phases.values())
    for name, seconds in sorted(phases.items(), key=lambda item: -item[1]):
        print(f"{name:>10} {seconds / total:6.1%}")


if __name__ == "__main__":
    main()

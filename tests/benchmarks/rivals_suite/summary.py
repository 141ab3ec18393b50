"""What a table of rivals says: paired differences over seeds, and what is won back."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

Row = dict[str, str]


def print_summary(path: Path) -> None:
    """Print, per setting, each rival's accuracy, and ours against Torch-Pruning's global pruner."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    blocks: dict[tuple[str, str], dict[str, dict[str, Row]]] = defaultdict(dict)
    for row in rows:
        blocks[row["setting"], row["budget"]].setdefault(row["seed"], {})[row["rival"]] = row
    for (setting, budget), seeds in blocks.items():
        print(f"\n{setting} {budget}, {len(seeds)} seeds")
        for rival in sorted({name for one in seeds.values() for name in one}):
            own = [one[rival] for one in seeds.values() if rival in one]
            found = [row for row in own if row["found"] == "True"]
            if not found:
                print(f"  {rival:<13} nothing found in {len(own)} runs")
                continue
            accuracy = np.mean([float(row["test_acc"]) for row in found])
            ratio = np.mean([float(row["ratio"]) for row in found])
            within = sum(row["feasible"] == "True" for row in found)
            wall = [float(row["wall_s"]) for row in found if row["wall_s"]]
            longest = f", longest run {max(wall):.0f} s" if wall else ""
            print(
                f"  {rival:<13} test accuracy {100 * accuracy:.2f} %, p50 {ratio:.3f} of dense, "
                f"within budget {within} of {len(own)}{longest}"
            )
        for ours in ("harness", "harness-fp32"):
            _compare(seeds, ours, "tp-global")


def _compare(seeds: dict[str, dict[str, Row]], ours: str, theirs: str) -> None:
    pairs = [
        (one[ours], one[theirs], one["dense"])
        for one in seeds.values()
        if one.get(ours, {}).get("found") == one.get(theirs, {}).get("found") == "True"
    ]
    if not pairs:
        return
    change = np.array([100 * (float(a["test_acc"]) - float(b["test_acc"])) for a, b, _ in pairs])
    lost = [100 * (float(d["test_acc"]) - float(b["test_acc"])) for _, b, d in pairs]
    half = math.inf
    if len(pairs) > 1:
        half = stats.t.ppf(0.975, len(pairs) - 1) * change.std(ddof=1) / math.sqrt(len(pairs))
    print(
        f"  {ours} - {theirs}: {change.mean():+.2f} points ({change.mean() - half:+.2f} to "
        f"{change.mean() + half:+.2f}, 95 % over {len(pairs)} seeds); {theirs} loses "
        f"{np.mean(lost):.2f} to dense"
    )

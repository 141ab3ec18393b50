"""How well the search's latency model foretells networks that it has not seen.

    python tests/benchmarks/latency_model.py OUT.csv [--only digits,resnet20,small-cnn]
        [--candidates 100]

For each network, untrained, and each precision: the floor and the dense network are timed as in a
search; then candidates are drawn from the space, uniformly over blocks left out and over the widths
of every group, and timed as a search times a probe. The first PROBES correct the model, one after
the other; all later ones are foretold by it, and by two trivial models, before they are known:

    line    a straight line in multiply-accumulates through floor and dense network
    macs    latency in proportion to multiply-accumulates

A row of the table is one model with a number of probes: on how many candidates it was judged, the
share of them within 5 and 10 % of what was measured, the median error and Kendall's tau. Half an
hour in all.
"""

from __future__ import annotations

import argparse
import copy
import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from harness.api.request import read_request
from harness.compression.pruning.prune import last_channels
from harness.compression.quantisation.precision import PROBE_CALIBRATION, Precision
from harness.training import torch_kept
from harness_results.store import StudyFolder
from harness_search import baseline
from harness_search.engine import set_up
from harness_search.floors import measure_floors
from harness_search.progress import Progress
from harness_search.reach import take_floors
from harness_search.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Callable

PROBES = (0, 4, 8, 16)
NETWORKS: dict[str, tuple[str | None, str | None, dict[str, Any]]] = {
    "digits": (None, None, {"task": "digits"}),
    "resnet20": ("resnet20", "fashion-mnist", {}),
    "small-cnn": ("small-cnn", "fashion-mnist", {}),
}
COLUMNS = ("network", "precision", "model", "probes", "candidates", "within_5", "within_10",
           "median_error", "kendall_tau", "share_least", "share_most", "machine")  # fmt: skip


def opened(name: str, folder: Path) -> Workbench:
    """Return a search's session with the floors taken, nothing trained."""
    model, data, options = NETWORKS[name]
    progress = Progress()
    asked: Any = {**options, "budget": "50%", "trials": 1, "results": str(folder)}
    settings, task = read_request(model, data, asked).load(progress)
    study = StudyFolder(settings.results, settings.study_name(task.name))
    study.create()
    bench = set_up(settings, task, study, progress, time.monotonic())
    baseline.export_dense(bench, "untrained")
    take_floors(bench, measure_floors(bench), [])
    return bench


def drawn(bench: Workbench, rng: np.random.Generator) -> tuple[Any, dict[str, int]]:
    """Return a base and widths, uniformly over the space."""
    count = int(rng.integers(len(bench.space.blocks) + 1))
    gone = rng.permutation(len(bench.space.blocks))[:count]
    base = bench.base([bench.space.blocks[i] for i in gone])
    return base, {name: int(rng.choice(widths)) for name, widths in base.space.allowed.items()}


def measured(
    name: str, precision: str, bench: Workbench, count: int
) -> list[tuple[dict[str, float], float]]:
    """Time candidates and return, for each, its multiply-accumulates per layer and its share."""
    rng, budget, found = np.random.default_rng(0), bench.settings.budgets[0], []
    for number in range(count):
        base, widths = drawn(bench, rng)
        network = base.pruned(bench.network, bench.example[:1], last_channels(base.graph, widths))
        path = bench.model_path("candidate.onnx")
        exported = bench.export(network, path, Precision(precision, PROBE_CALIBRATION))
        share = bench.timed({"candidate": exported}, budget)["candidate"].stats.ratio("p50").value
        found.append((base.graph.macs(widths), share))
        print(f"{name} {precision} {number}: {share:.3f}", file=sys.stderr)
    return found


def rows(name: str, precision: str, bench: Workbench, count: int) -> list[dict[str, Any]]:
    """Return a row for each model and number of probes."""
    found = measured(name, precision, bench, max(PROBES) + count)
    probes, unseen = found[: max(PROBES)], found[max(PROBES) :]
    dense, smallest = bench.graph.macs(bench.space.dense), bench.base(bench.space.blocks)
    least = smallest.graph.macs(smallest.space.floor())
    fresh = bench.latency_models[precision]
    high, low = fresh.predict(dense), fresh.predict(least)
    total, bottom = sum(dense.values()), sum(least.values())

    def line(macs: dict[str, float]) -> float:
        return low + (high - low) * (sum(macs.values()) - bottom) / (total - bottom)

    def proportional(macs: dict[str, float]) -> float:
        return high * sum(macs.values()) / total

    made = [_row("line", 0, line, unseen), _row("macs", 0, proportional, unseen)]
    for number in PROBES:
        model = copy.deepcopy(fresh)
        for macs, share in probes[:number]:
            model.add(macs, share)
        made.append(_row("search", number, model.predict, unseen))
    machine = bench.facts["machine"]["cpu_model"]
    return [{"network": name, "precision": precision, "machine": machine, **row} for row in made]


def _row(
    model: str,
    probes: int,
    predict: Callable[[dict[str, float]], float],
    unseen: list[tuple[dict[str, float], float]],
) -> dict[str, Any]:
    told = np.array([predict(macs) for macs, _ in unseen])
    shares = np.array([share for _, share in unseen])
    errors = np.abs(told / shares - 1)
    return {
        "model": model, "probes": probes, "candidates": len(unseen),
        "within_5": round(float((errors <= 0.05).mean()), 3),
        "within_10": round(float((errors <= 0.10).mean()), 3),
        "median_error": round(float(np.median(errors)), 4),
        "kendall_tau": round(float(stats.kendalltau(told, shares).statistic), 3),
        "share_least": round(float(shares.min()), 3), "share_most": round(float(shares.max()), 3),
    }  # fmt: skip


@torch_kept()
def main() -> None:
    """Judge the models on the networks asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default=",".join(NETWORKS), help="networks, joined by commas")
    parser.add_argument("--candidates", type=int, default=100)
    args = parser.parse_args()
    made: list[dict[str, Any]] = []
    for name in args.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            bench = opened(name, Path(folder))
            for precision in bench.space.precisions:
                made += rows(name, precision, bench, args.candidates)
                with args.out.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(made)


if __name__ == "__main__":
    main()

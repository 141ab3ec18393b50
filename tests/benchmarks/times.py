"""The embedded task's dense latency and floor.

    python tests/benchmarks/times.py results/reference/digits-times.csv

Dense should take 0.5-2 ms, so that arithmetic is timed; the floor at most a fifth of that.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import last_channels, prune
from harness.export import INPUT, export_onnx
from harness.measurement.hostlock import HostLock
from harness.measurement.rounds import FINAL, measure
from harness.measurement.types import Subject
from harness.tasks import shipped_task
from harness_backends.registry import open_backend
from harness_backends.targets import find_target

_GRANULE = 16
"""The narrowest width of the floor, as probed on the machine of the table."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    target, task = find_target("cpu"), shipped_task("digits")
    dense, example = task.model(), task.example_input(1)
    graph = pruning_graph(dense, example)
    gone = last_channels(graph, {g.name: min(_GRANULE, g.width) for g in graph.groups})
    networks = {"dense": dense, "floor": prune(dense, graph, example, gone)}
    with tempfile.TemporaryDirectory() as folder:
        subjects = {
            name: Subject(
                export_onnx(network, example, Path(folder) / f"{name}.onnx"),
                {INPUT: example.numpy()},
            )
            for name, network in networks.items()
        }
        measured = measure(
            open_backend(target).open, subjects, "dense", FINAL, HostLock().exclusive
        )
    with asked.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "p50_ms", "p50_lo_ms", "p50_hi_ms", "share", "lo", "hi", "macs",
                         "n_calls", "n_processes", "flags"])  # fmt: skip
        for name, one in measured.items():
            p50, ratio = one.stats.p50, one.stats.ratio("p50")
            numbers = (p50.value * 1e3, p50.lo * 1e3, p50.hi * 1e3, ratio.value, ratio.lo, ratio.hi)
            writer.writerow([
                name, *(f"{number:.6g}" for number in numbers), subjects[name].model.macs,
                one.stats.n_calls, one.stats.n_processes, " ".join(one.flags),
            ])  # fmt: skip
    print(asked.out.read_text())


if __name__ == "__main__":
    main()

"""What the records of trials, floors and finals have in common."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness_results.store import relative

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.budget import Budget
    from harness.candidate import Candidate, OnnxModel
    from harness.measurement.types import Measurement
    from harness_search.workbench import Workbench


def share_of_dense(measured: Mapping[str, Measurement], name: str, budget: Budget) -> float:
    """Return a model's latency as a share of the dense one's, by the budget's statistic."""
    return measured[name].stats.ratio(budget.statistic).value


def common_fields(
    bench: Workbench,
    budget: Budget,
    candidate: Candidate,
    model: OnnxModel | None,
    weights: Path | None,
) -> dict[str, Any]:
    """Return the fields that every kind of record fills alike."""
    dense, target = bench.space.dense, bench.settings.target
    exported: dict[str, Any] = {}
    if model is not None:
        exported = {
            "onnx": None if weights is None else relative(model.path, bench.folder),
            "weights": None if weights is None else relative(weights, bench.folder),
            "sha256": model.sha256, "size_bytes": model.size_bytes, "opset": model.opset,
            "params": model.n_params, "macs": model.macs,
        }  # fmt: skip
    return {
        "study": bench.folder.study,
        "task": dict(bench.provenance["task"]),
        "target": {**target.options(), "granule": target.granule,
                   "scenario": "single_stream",
                   "backend_version": bench.facts["runtime_version"]},
        "budget": asdict(budget),
        "candidate": {
            "widths": dict(candidate.widths), "dense_widths": dict(dense),
            "ratios": bench.space.ratios(candidate.widths), "criterion": candidate.criterion,
            "temperature": candidate.temperature, "kd_weight": candidate.kd_weight,
            "precision": candidate.precision, "blocks": list(candidate.blocks),
        },
        "model": exported,
        "versions": dict(bench.provenance["versions"]),
        "git": dict(bench.provenance["git"]),
    }  # fmt: skip


def environment(bench: Workbench, states: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's environment: fingerprint, machine, and its state around the timing."""
    machine = dict(bench.facts["machine"])
    return {"fingerprint": bench.provenance["fingerprint"], "machine": machine, **states}


def search_fields(bench: Workbench, trials: int, test_reads: int = 0) -> dict[str, Any]:
    """Return what a record says of the search around it."""
    return {
        "seed": bench.settings.seed, "trials": trials, "elapsed_s": bench.elapsed_s(),
        "test_reads": test_reads,
    }  # fmt: skip

"""`--remeasure`: a study whose machine or runtime changed is timed again, model by model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.budget import Budget, Decision
from harness.compression.pruning.prune import prune
from harness.provenance import now_utc
from harness_results.record import latency_figures, make_record
from harness_search import baseline
from harness_search.finals import trained_model
from harness_search.tools import samples_of
from harness_search.trial import environment, share_of_dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench


def remeasure_study(bench: Workbench, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Time the floor and every trial's file on the present setup; return the new records.

    Each trial keeps its number, training and scores and gets new latencies; its old record, and
    the old floor and finals, move to `records/superseded/`, unchanged.
    """
    for record in _stale(records):
        bench.folder.supersede(record)
    fresh = [baseline.measure_floor(bench)]
    for record in _latest_trials(records):
        if record.status == "failed":
            fresh.append(record)
            continue
        fresh.append(_timed_again(bench, record))
        bench.folder.supersede(record)
    return fresh


def _latest_trials(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return one record per trial: a kill while measuring again can leave the old and the new."""
    latest = {r.index: r for r in sorted(records, key=lambda r: r.date_utc) if r.kind == "trial"}
    return [latest[index] for index in sorted(latest, key=lambda i: i or 0)]


def _stale(records: Sequence[RunRecord]) -> list[RunRecord]:
    kept = {record.run_id for record in _latest_trials(records)}
    return [record for record in records if record.run_id not in kept]


def _timed_again(bench: Workbench, record: RunRecord) -> RunRecord:
    bench.progress.phase(f"trial {record.index}: timing again on this setup")
    if record.status == "complete":
        model = trained_model(bench, record)
    else:  # never trained: latency depends on the architecture alone, so build that again
        smaller = prune(bench.network, bench.graph, bench.example[:1], record.pruning or {})
        model = bench.export(smaller, bench.model_path("probe.onnx"))
    budget = Budget(**record.budget)
    measured = bench.timed({"candidate": model}, budget)
    within = budget.decide(measured["candidate"].stats) is Decision.FEASIBLE
    phase = "retimed" if record.status == "complete" else "probe"
    widths, share = record.candidate["widths"], share_of_dense(measured, "candidate", budget)
    figures = latency_figures(measured["candidate"])
    changes: dict[str, Any] = {
        "latency": {"probe": figures, phase: figures},
        "probes": [{"widths": widths, "share": share, "within": within, "timed": True}],
        "flags": sorted(
            {*measured["candidate"].flags, *({"parity_failed"} & set(record.flags))}
        ),
        "feasible": within and record.status == "complete",
        "environment": environment(bench, measured["candidate"].environment),
        "versions": dict(bench.provenance["versions"]),
        "target": {**record.target, "backend_version": bench.facts["runtime_version"]},
    }  # fmt: skip
    kept = {k: v for k, v in asdict(record).items() if k not in ("schema", "run_id", "date_utc")}
    new = make_record(now_utc(), **{**kept, **changes})
    bench.folder.write(new, samples_of(phase, measured, "candidate"))
    return new
